"""The frames of a compacted segment (`console.recorded.compaction.encode`): numbers as columns, all others as they were
sent.

Frames that could not be restored from columns byte for byte are kept encoded by compaction, and read from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl

from console.recorded.compaction import decode, read_long, read_wide
from console.recorded.metric_columns import Portion, Stretch, stretches_of_frames
from driftline.frames import Frame, FrameError, Metrics, Stamped, encode
from driftline.rundir import RunDir


def portion(run: RunDir, segment: int, until: int) -> Portion | None:
    """The frames of a segment up to number `until`; None where it has none."""
    stretches = _sheets(_path(run, "reports", segment), until) + _stretches(_path(run, "metrics", segment), until)
    others = [
        Stamped(seq, time, producer, msgspec.Raw(encode(frame)))
        for table, frames in _FRAMES
        for seq, time, producer, frame in frames(_rows(_path(run, table, segment), until))
    ]
    empty: list[tuple[int, Metrics]] = []
    for row in _rows(_path(run, "rest", segment), until).iter_rows(named=True):
        stamped = Stamped(row["seq"], row["hub_time"], row["producer"], msgspec.Raw(row["body"]))
        frame = _metrics(stamped)
        if frame is None:
            others.append(stamped)
        else:
            empty.append((stamped.seq, frame))
    stretches += stretches_of_frames(empty)
    ends = _ends(run, segment, until)
    return Portion(stretches, sorted(others, key=lambda one: one.seq), *ends) if ends is not None else None


def _metrics(stamped: Stamped) -> Metrics | None:
    """The frame if it is a Metrics frame: those without a number are in the table `rest`."""
    try:
        frame = stamped.frame()
    except FrameError:
        return None
    return frame if isinstance(frame, Metrics) else None


def _path(run: RunDir, table: str, segment: int) -> str | None:
    path = run.parquet / table / f"{segment:06d}.parquet"
    return str(path) if path.exists() else None


def _rows(path: str | None, until: int) -> pl.DataFrame:
    if path is None:
        return pl.DataFrame(schema={"seq": pl.Int64()})
    return pl.read_parquet(path, glob=False).filter(pl.col("seq") <= until)


def _ends(run: RunDir, segment: int, until: int) -> tuple[tuple[int, float], tuple[int, float]] | None:
    """Number and hub time of the first and the last frame of any kind."""
    found: list[tuple[int, float]] = []
    for table in ("reports", "metrics", "events", "spans", "fixes", "tokens", "rest"):
        path = _path(run, table, segment)
        if path is not None:
            rows = pl.scan_parquet(path, glob=False).select("seq", "hub_time").filter(pl.col("seq") <= until)
            found += pl.concat([rows.head(1), rows.tail(1)]).collect().rows()
    return (min(found), max(found)) if found else None


Placed = Iterator[tuple[int, float, str, Frame]]


def _each(make: Callable[[decode.Row], Frame]) -> Callable[[pl.DataFrame], Placed]:
    def frames(rows: pl.DataFrame) -> Placed:
        for row in rows.iter_rows(named=True):
            yield row["seq"], row["hub_time"], row["producer"], make(row)

    return frames


def _fixes(rows: pl.DataFrame) -> Placed:
    # The engines' reports of one fix stand together, a row each; a fix without one has a row all the same.
    for _, group in groupby(rows.iter_rows(named=True), key=lambda row: row["seq"]):
        mine = list(group)
        yield mine[0]["seq"], mine[0]["hub_time"], mine[0]["producer"], decode.fix(mine)


_FRAMES: Final = (("events", _each(decode.event)), ("spans", _each(decode.span)), ("fixes", _fixes))


def _sheets(path: str | None, until: int) -> list[Stretch]:
    """Metrics frames by their shape."""
    if path is None:
        return []
    found = []
    for sheet in read_wide.sheets(Path(path), until=until):
        seq, step, time = (sheet.keys[name].to_numpy() for name in ("seq", "step", "time"))
        values = {name: column.to_numpy() for name, column in sheet.values.items()}
        found.append(Stretch(seq, step, time, values, sheet.labels))
    return found


def _stretches(path: str | None, until: int) -> list[Stretch]:
    """Metrics frames that have a row for each number, by the names that they have."""
    if path is None:
        return []
    rows = read_long.read(Path(path), ("seq", "step", "time"))
    seq = read_long.array(rows, "seq")
    rows = rows.slice(0, int(np.searchsorted(seq, until, side="right")))
    step, time = read_long.array(rows, "step"), read_long.array(rows, "time")
    return [
        Stretch(seq[group.first], step[group.first], time[group.first], group.values, group.labels)
        for group in read_long.groups(rows)
    ]
