"""A compacted segment (`console.columns`, `console.compact`) as the tables of single frames, equal to the journal's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from console.snapshot import longform
from console.snapshot.blobs import sequences
from console.snapshot.build import batches
from console.snapshot.records import Block, encode
from console.snapshot.reports import KEYS
from console.snapshot.series import times
from console.tables import STORED
from driftline.frames import Stamped
from driftline.rundir import RunDir

_ROWS: Final = 65_536
_SLICE: Final = 262_144


def parts(run: RunDir, segment: int, stored: str) -> Iterator[pl.DataFrame]:
    """A stored table of one segment, in the order of the frames' numbers."""
    # Frames without a table of their own, or of a shape that theirs cannot hold, as they were journaled.
    rest = list(batches(stored, frames(run, segment)))
    table, turned = _FROM.get(stored, (None, None))
    path = run.parquet / (table or stored) / f"{segment:06d}.parquet"
    if turned is None or not path.exists():
        yield from rest
    elif rest:
        yield pl.concat([turned(path), *rest], how="diagonal").sort("seq", maintain_order=True)
    elif stored == "tokens":
        yield from _slices(path, list(STORED[stored].columns))
    else:
        yield turned(path)


def _slices(path: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
    """A table that may be large, in parts of about a row group."""
    rows = pl.scan_parquet(path, glob=False).select(columns)
    for at in range(0, rows.select(pl.len()).collect().item(), _SLICE):
        yield _timed(rows.slice(at, _SLICE).collect())


def frames(run: RunDir, segment: int) -> Iterator[Block]:
    """The encoded frames of a segment that were kept as they are, in blocks."""
    path = run.parquet / "rest" / f"{segment:06d}.parquet"
    if path.exists():
        for rows in pl.read_parquet(path, glob=False).iter_slices(_ROWS):
            yield Block.of(
                encode(Stamped(seq, time, producer, msgspec.Raw(body)))
                for seq, time, producer, body in rows.select("seq", "hub_time", "producer", "body").iter_rows()
            )


def _timed(rows: pl.DataFrame) -> pl.DataFrame:
    moments = [name for name in ("time", "start") if name in rows.columns]
    return rows.with_columns(times(name, rows[name].to_numpy()) for name in moments)


def _same(stored: str) -> Callable[[Path], pl.DataFrame]:
    return lambda path: _timed(pl.read_parquet(path, glob=False, columns=list(STORED[stored].columns)))


def _reports(path: Path) -> pl.DataFrame:
    rows = longform.read(path, KEYS)
    keys = {name: longform.array(rows, name) for name in ("seq", "step", "time", "version")}
    producer = pl.Series("producer", rows.column("producer"))
    parts = []
    for group in longform.groups(rows):
        columns = {
            "seq": pl.Series("seq", keys["seq"][group.first]),
            "producer": producer.gather(group.first),
            "step": pl.Series("step", keys["step"][group.first]),
            "time": times("time", keys["time"][group.first]),
            "version": pl.Series("version", keys["version"][group.first]),
        }
        for name, values in group.values.items():
            if name not in KEYS:
                columns[name] = pl.Series(name, values)
        parts.append(pl.DataFrame(columns))
    return parts[0] if len(parts) == 1 else pl.concat(parts, how="diagonal").sort("seq")


def _fixes(path: Path) -> pl.DataFrame:
    rows = pl.read_parquet(path, glob=False)
    # The table's words are those of the engine's report; those of the whole fix stand beside them here.
    reported = rows.drop("how", "detail").rename({"engine_how": "how", "engine_detail": "detail"})
    return _timed(reported).select(list(STORED["fixes"].columns))


def _sequences(path: Path) -> pl.DataFrame:
    return sequences(_timed(pl.read_parquet(path, glob=False)))


_FROM: Final[dict[str, tuple[str, Callable[[Path], pl.DataFrame]]]] = {
    "reports": ("metrics", _reports),
    "events": ("events", _same("events")),
    "spans": ("spans", _same("spans")),
    "fixes": ("fixes", _fixes),
    "tokens": ("tokens", _same("tokens")),
    "sequences": ("tokens", _sequences),
}
