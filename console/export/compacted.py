"""A compacted segment (`console.recorded.compaction`) as the tables of single frames, equal to the journal's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl
import pyarrow.parquet as pq

from console.export import metric_rows
from console.export.build import REPORT_ROWS, batches
from console.export.numbers import KEYS, Collector, Names, Numbers
from console.export.polars_columns import stacked, times
from console.export.projection import EVERYTHING, Projection
from console.export.projection import KEYS as FRAME_KEYS
from console.export.schema import STORED
from console.export.token_rows import sequences
from console.recorded.blocks import Block, encode
from console.recorded.compaction import read_long, read_wide
from driftline.frames import Stamped
from driftline.rundir import RunDir

_ROWS: Final = 65_536
_SLICE: Final = 262_144


def parts(run: RunDir, segment: int, stored: str, projection: Projection = EVERYTHING) -> Iterator[pl.DataFrame]:
    """A stored table of one segment, in the order of the frames' numbers."""
    if stored == "reports" and _path(run, "metrics", segment).exists():
        names, producers = Names(), dict[str, int]()
        yield from metric_rows.parts(numbers(run, segment, names, producers), names, producers, projection)
        return
    # Frames without a table of their own, or of a form that it cannot hold, are there as they were journaled.
    found = list(batches(stored, frames(run, segment), projection=projection))
    paths = {table: _path(run, table, segment) for table in _FROM.get(stored, {})}
    tables = [(table, path) for table, path in paths.items() if path.exists()]
    if not found and stored in _IN_PARTS and [table for table, _ in tables] == [stored]:
        yield from _IN_PARTS[stored](paths[stored], projection)
        return
    for table, path in tables:
        found += _FROM[stored][table](path, projection)
    yield from _as_one(found)


def numbers(run: RunDir, segment: int, names: Names, producers: dict[str, int]) -> Numbers:
    """The reports of one segment, whichever of its tables they are in."""
    made = Collector(names, producers)
    for block in frames(run, segment):
        made.add(block)
    reports, single = (_path(run, table, segment) for table in ("reports", "metrics"))
    if reports.exists():
        for sheet in read_wide.sheets(reports):
            seq, step, version, time = (sheet.keys[name].to_numpy() for name in ("seq", "step", "version", "time"))
            sent_by = np.array([made.producer(name) for name in sheet.keys["producer"]], np.int64)
            values = np.empty((len(seq), len(sheet.values)))
            for at, column in enumerate(sheet.values.values()):
                values[:, at] = column.to_numpy()
            made.add_columns(seq, step, version, time, sent_by, names.codes(sheet.values), values)
    if single.exists():
        made.add_part(_single_numbers(single, names, made))
    return made.take()


def _single_numbers(path: Path, names: Names, made: Collector) -> Numbers:
    """The table `metrics`: its rows are the numbers, and those of a report stand together."""
    rows = read_long.read(path, ("step", "version", "time", "producer"))
    seq, value = read_long.array(rows, "seq"), read_long.array(rows, "value")
    known, name = read_long.codes(rows, "name")
    given = np.asarray(rows.column("value").is_valid().to_numpy())  # a name without a number has a label alone
    first = np.flatnonzero(np.append(True, seq[1:] != seq[:-1])[: len(seq)])
    size = np.add.reduceat(given, first, dtype=np.int64) if len(first) else first
    step, version, time = (read_long.array(rows, key)[first] for key in ("step", "version", "time"))
    sent_by = np.array([made.producer(one) for one in rows.column("producer").take(first).to_pylist()], np.int64)
    code = names.codes(known)[name[given]]
    return Numbers(seq[first], step, version, time, sent_by, np.cumsum(size) - size, size, code, value[given])


def _path(run: RunDir, table: str, segment: int) -> Path:
    return run.parquet / table / f"{segment:06d}.parquet"


def _as_one(found: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """Rows of several frames in the order of their numbers."""
    if len(found) < 2:
        return found
    return [stacked(found).sort("seq", maintain_order=True)]


def _slices(path: Path, projection: Projection) -> Iterator[pl.DataFrame]:
    """A table that may be large, in parts of whole row groups: a group split over two parts would be decoded twice."""
    columns = [name for name in STORED["tokens"].columns if projection.has(name) or name == "seq"]
    rows = pl.scan_parquet(path, glob=False)
    for begin, count in _row_groups(path, _SLICE):
        part = rows.slice(begin, count)
        if projection.where is not None:
            wanted = projection.rows(_timed(part.select(sorted(FRAME_KEYS)).collect()))
            if wanted is not None and not wanted.any():
                continue
        yield _timed(part.select(columns).collect())


def _report_slices(path: Path, projection: Projection) -> Iterator[pl.DataFrame]:
    """Reports in parts, so that the first are written while the next are read."""
    for rows in _row_groups(path, REPORT_ROWS):
        yield from _as_one(_reports(path, projection, rows))


def _row_groups(path: Path, limit: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of row groups, several together where they are small."""
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)]
    begin = count = 0
    for size in sizes:
        if count and count + size > limit:
            yield begin, count
            begin, count = begin + count, 0
        count += size
    if count:
        yield begin, count


def frames(run: RunDir, segment: int) -> Iterator[Block]:
    """The encoded frames of a segment that were kept as they are, in blocks."""
    path = _path(run, "rest", segment)
    if path.exists():
        for rows in pl.read_parquet(path, glob=False).iter_slices(_ROWS):
            yield Block.from_bodies(
                encode(Stamped(seq, time, producer, msgspec.Raw(body)))
                for seq, time, producer, body in rows.select("seq", "hub_time", "producer", "body").iter_rows()
            )


def _timed(rows: pl.DataFrame) -> pl.DataFrame:
    moments = [name for name in ("time", "start") if name in rows.columns]
    return rows.with_columns(times(name, rows[name].to_numpy()) for name in moments)


def _same(stored: str) -> Callable[[Path, Projection], list[pl.DataFrame]]:
    def made(path: Path, projection: Projection) -> list[pl.DataFrame]:  # noqa: ARG001 - these tables are small
        return [_timed(pl.read_parquet(path, glob=False, columns=list(STORED[stored].columns)))]

    return made


def _reports(path: Path, projection: Projection, rows: tuple[int, int | None] = (0, None)) -> list[pl.DataFrame]:
    found = []
    for sheet in read_wide.sheets(path, columns=projection.columns, rows=rows):
        values = [column for name, column in sheet.values.items() if name not in KEYS]
        found.append(_timed(sheet.keys.select(KEYS)).with_columns(values))
    return found


def _fixes(path: Path, projection: Projection) -> list[pl.DataFrame]:  # noqa: ARG001 - this table is small
    rows = pl.read_parquet(path, glob=False)
    # The stored table has the engine's own `how` and `detail`; the compacted one has those of the whole fix as well.
    reported = rows.drop("how", "detail").rename({"engine_how": "how", "engine_detail": "detail"})
    return [_timed(reported).select(list(STORED["fixes"].columns))]


def _sequences(path: Path, projection: Projection) -> list[pl.DataFrame]:
    rows = pl.scan_parquet(path, glob=False)
    rows = rows if projection.has("text") else rows.with_columns(pl.lit(None, pl.String()).alias("piece"))
    return [sequences(_timed(rows.collect()))]


_FROM: Final[dict[str, dict[str, Callable[[Path, Projection], list[pl.DataFrame]]]]] = {
    "reports": {"reports": _reports},
    "events": {"events": _same("events")},
    "spans": {"spans": _same("spans")},
    "fixes": {"fixes": _fixes},
    "tokens": {"tokens": _same("tokens")},
    "sequences": {"tokens": _sequences},
}
"""By stored table, the compacted tables that it is made from."""
_IN_PARTS: Final = {"tokens": _slices, "reports": _report_slices}
"""Stored tables that may be large: read in parts if the compacted table of that name is their only source."""
