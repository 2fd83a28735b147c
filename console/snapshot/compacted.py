"""A compacted segment (`console.columns`, `console.compact`) as the tables of single frames, equal to the journal's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import polars as pl

from console.snapshot.blobs import sequences
from console.snapshot.build import batches
from console.snapshot.records import Block, encode
from console.snapshot.reports import KEYS
from console.snapshot.series import times
from console.tables import STORED
from driftline.frames import Stamped
from driftline.metrics import resolve
from driftline.rundir import RunDir

_ROWS: Final = 65_536


def parts(run: RunDir, segment: int, stored: str) -> Iterator[pl.DataFrame]:
    """A stored table of one segment, in the order of the frames' numbers."""
    found = []
    if stored in _FROM:
        table, turned = _FROM[stored]
        path = run.parquet / table / f"{segment:06d}.parquet"
        if path.exists():
            found.append(turned(pl.read_parquet(path, glob=False)))
    # Frames without a table of their own, or of a shape that theirs cannot hold, as they were journaled.
    found += batches(stored, frames(run, segment))
    if len(found) > 1:
        yield pl.concat(found, how="diagonal").sort("seq", maintain_order=True)
    else:
        yield from found


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


def _same(stored: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda rows: _timed(rows).select(list(STORED[stored].columns))


def _reports(rows: pl.DataFrame) -> pl.DataFrame:
    named = rows.filter(pl.col("value").is_not_null()).with_columns(
        pl.col("name").replace({name: resolve(name) for name in rows["name"].unique()})
    )
    named = named.filter(~pl.col("name").is_in(KEYS))
    # A frame that has only a label, or only numbers under the names of keys, is a report all the same.
    keys = rows.select(list(KEYS)).unique("seq", keep="first", maintain_order=True)
    wide = named.pivot("name", index="seq", values="value", aggregate_function="last", maintain_order=True)
    return _timed(keys.join(wide, on="seq", how="left", maintain_order="left"))


def _fixes(rows: pl.DataFrame) -> pl.DataFrame:
    # The table's words are those of the engine's report; those of the whole fix stand beside them here.
    reported = rows.drop("how", "detail").rename({"engine_how": "how", "engine_detail": "detail"})
    return _timed(reported).select(list(STORED["fixes"].columns))


def _sequences(rows: pl.DataFrame) -> pl.DataFrame:
    return sequences(_timed(rows))


_FROM: Final[dict[str, tuple[str, Callable[[pl.DataFrame], pl.DataFrame]]]] = {
    "reports": ("metrics", _reports),
    "events": ("events", _same("events")),
    "spans": ("spans", _same("spans")),
    "fixes": ("fixes", _fixes),
    "tokens": ("tokens", _same("tokens")),
    "sequences": ("tokens", _sequences),
}
