"""The frames of a compacted segment again (`console.columns`): numbers as columns, all others as they were sent.

What compaction writes is safe to show, so a frame whose text was not comes back with the text that a console shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from console.store.stretch import Floats, Portion, Stretch, of_frames
from driftline.frames import EngineFix, Event, FixState, Frame, FrameError, Metrics, Span, Stamped, encode
from driftline.metrics import resolve
from driftline.rundir import RunDir

_NOT_JSON: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""What numbers are called for which JSON has no word (`console.plain.to_json`)."""
_SPAN: Final = tuple(field.name for field in msgspec.structs.fields(Span))


def portion(run: RunDir, segment: int, until: int) -> Portion | None:
    """The frames of a segment up to number `until`; None where it has none."""
    stretches = _stretches(_path(run, "metrics", segment), until)
    others = [
        Stamped(seq, time, producer, msgspec.Raw(encode(frame)))
        for table, frames in (("events", _events), ("spans", _spans), ("fixes", _fixes))
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
    stretches += of_frames(empty)
    ends = _ends(run, segment, until)
    return Portion(stretches, sorted(others, key=lambda one: one.seq), *ends) if ends is not None else None


def _metrics(stamped: Stamped) -> Metrics | None:
    """The frame if it is of Metrics: those without a number are not among the numbers."""
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
    for table in ("metrics", "events", "spans", "fixes", "tokens", "rest"):
        path = _path(run, table, segment)
        if path is not None:
            rows = pl.scan_parquet(path, glob=False).select("seq", "hub_time").filter(pl.col("seq") <= until)
            found += pl.concat([rows.head(1), rows.tail(1)]).collect().rows()
    return (min(found), max(found)) if found else None


Placed = Iterator[tuple[int, float, str, Frame]]


def _events(rows: pl.DataFrame) -> Placed:
    for row in rows.iter_rows(named=True):
        data = {name: _NOT_JSON.get(item, item) for name, item in msgspec.json.decode(row["data"]).items()}
        event = Event(row["time"], row["level"], row["kind"], row["text"], row["step"], data)
        yield row["seq"], row["hub_time"], row["producer"], event


def _spans(rows: pl.DataFrame) -> Placed:
    for row in rows.iter_rows(named=True):
        yield row["seq"], row["hub_time"], row["producer"], Span(*(row[name] for name in _SPAN))


def _fixes(rows: pl.DataFrame) -> Placed:
    # The engines' reports of one fix stand together, a row each; a fix without one has a row all the same.
    for _, group in groupby(rows.iter_rows(named=True), key=lambda row: row["seq"]):
        mine = list(group)
        reports = tuple(
            EngineFix(
                row["engine"], row["effective"], row["engine_how"], row["since_version"], row["since_step"],
                row["engine_detail"],
            )
            for row in mine
            if row["engine"] is not None
        )  # fmt: skip
        first = mine[0]
        state = FixState(
            first["fix"], first["requested"], first["generation"], first["by"], first["time"], first["how"], reports,
            first["detail"],
        )  # fmt: skip
        yield first["seq"], first["hub_time"], first["producer"], state


def _stretches(path: str | None, until: int) -> list[Stretch]:
    """Metrics frames by the names that they have: their rows stand together, one for each name."""
    if path is None:
        return []
    rows = pq.read_table(
        path, columns=["seq", "step", "time", "name", "value", "label"], read_dictionary=["name", "label"]
    )
    seq, step, time, value = (_array(rows, name) for name in ("seq", "step", "time", "value"))
    names, name = _codes(rows, "name")
    labels, label = _codes(rows, "label")
    starts = np.flatnonzero(np.concatenate(([True], seq[1:] != seq[:-1])))
    starts = starts[seq[starts] <= until]
    sizes = np.diff(np.concatenate((starts, [int(np.searchsorted(seq, until, side="right"))])))
    told = np.asarray(rows.column("value").is_valid().to_numpy())
    # A name without a number has a label alone.
    unlike = 2 * (name.astype(np.int64) * (len(labels) + 1) + label + 1) + told
    found = []
    for size in np.unique(sizes).tolist():
        begins = starts[sizes == size]
        cells = begins[:, None] + np.arange(size)
        kinds, which = _distinct(unlike[cells])
        for turn, kind in enumerate(kinds.tolist()):
            mine = cells[which == turn] if len(kinds) > 1 else cells
            numbers = value[mine]
            values: dict[str, Floats] = {}
            worn: dict[str, str] = {}
            for at, sign in enumerate(kind):
                known, code = divmod(sign // 2, len(labels) + 1)
                if sign % 2:
                    values[resolve(names[known])] = np.ascontiguousarray(numbers[:, at])
                if code:
                    worn[resolve(names[known])] = labels[code - 1]
            first = mine[:, 0]
            found.append(Stretch(seq[first], step[first], time[first], values, worn))
    return found


def _distinct(rows: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The distinct rows, and which of them each row is."""
    if (rows == rows[0]).all():
        return rows[:1], np.zeros(len(rows), np.int64)
    kinds, which = np.unique(rows, axis=0, return_inverse=True)
    return kinds, which.ravel()


def _array(rows: pa.Table, name: str) -> np.ndarray[Any, Any]:
    return np.asarray(rows.column(name).combine_chunks().to_numpy(zero_copy_only=False))


def _codes(rows: pa.Table, name: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Distinct texts of a column and which of them each row has, -1 for null."""
    column = rows.column(name).unify_dictionaries().combine_chunks()
    whole = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return whole.dictionary.to_pylist(), np.asarray(whole.indices.fill_null(-1).to_numpy(zero_copy_only=False))
