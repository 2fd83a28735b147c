"""The frames of a recorded run in order, from any number on: from its journal, or from its compacted Parquet."""

from __future__ import annotations

import heapq
import shlex
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from console.recorded.blocks import run_segments
from console.recorded.compaction import decode, wide
from driftline import bounded_file
from driftline.frames import Frame, Stamped, encode
from driftline.journal.records import Damage, first_seq, read_segment
from driftline.rundir import NOTE_BYTES, RunDir

if TYPE_CHECKING:
    import polars as pl


def frames(run: RunDir, start: int = 1, damage: Damage | None = None) -> Iterator[Stamped]:
    """Every intact frame with a number >= `start`, byte for byte as the hub stamped it; segments before are not read.

    Raises OSError, or what Polars raises, for a file that cannot be read.
    """
    damage = damage if damage is not None else Damage()
    listed = run_segments(run)
    for at, (number, path) in enumerate(listed):
        if start > 1 and at + 1 < len(listed) and 0 < _first(run, *listed[at + 1]) <= start:
            continue
        # A hub may have deleted it since: it is compacted then.
        if path is not None and path.exists():
            yield from read_segment(path, start, damage)
        else:
            yield from compacted(run, number, start)


def unreadable() -> tuple[type[Exception], ...]:
    """Exceptions that `frames` raises for damaged Parquet. Call it only after an error: its imports take a while."""
    import polars as pl
    import pyarrow as pa

    return pl.exceptions.PolarsError, pa.ArrowException


def damaged(run: RunDir, segment: int = 0) -> str:
    """The error message for an `unreadable` run, with the segment if it is known."""
    where = f" of segment {segment}" if segment else ""
    see = f"driftline compact --run {shlex.quote(str(run.path))} --check"
    return f"{run.parquet}: the compacted tables{where} cannot be read; see: {see}"


def _first(run: RunDir, number: int, path: Path | None) -> int:
    """The first sequence number of a segment; 0 if it cannot be determined."""
    if path is not None:
        return first_seq(path)
    try:
        note = msgspec.json.decode(bounded_file.read(run.compacted(number), NOTE_BYTES))
    except (OSError, msgspec.DecodeError):
        return 0
    first = note.get("first", 0) if isinstance(note, dict) else 0
    return first if isinstance(first, int) else 0


def compacted(run: RunDir, segment: int, start: int = 1) -> Iterator[Stamped]:
    """The frames of one compacted segment."""
    import polars as pl  # takes a while to load

    from console.recorded.compaction import read_wide as snapshot_wide

    streams = []
    for table, made in _TABLES.items():
        path = run.parquet / table / f"{segment:06d}.parquet"
        if path.exists():
            streams.append(made(pl.read_parquet(path, glob=False).filter(pl.col("seq") >= start)))
    reports = run.parquet / wide.TABLE / f"{segment:06d}.parquet"
    if reports.exists():
        streams.append(snapshot_wide.stamped(reports, start))
    yield from heapq.merge(*streams, key=attrgetter("seq"))


def _stamped(row: decode.Row, frame: Frame) -> Stamped:
    return Stamped(row["seq"], row["hub_time"], row["producer"], msgspec.Raw(encode(frame)))


def _single(make: Callable[[decode.Row], Frame]) -> Callable[[pl.DataFrame], Iterator[Stamped]]:
    return lambda rows: (_stamped(row, make(row)) for row in rows.iter_rows(named=True))


def _grouped(make: Callable[[list[Any]], Frame]) -> Callable[[pl.DataFrame], Iterator[Stamped]]:
    def made(rows: pl.DataFrame) -> Iterator[Stamped]:
        # The rows of one frame stand together.
        for _, group in groupby(rows.iter_rows(named=True), key=lambda row: row["seq"]):
            mine = list(group)
            yield _stamped(mine[0], make(mine))

    return made


def _tokens(rows: pl.DataFrame) -> Iterator[Stamped]:
    numbers = rows["seq"].to_numpy()
    bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    for begin, end in pairwise(bounds):
        if begin == end:
            continue
        part = rows.slice(begin, end - begin)
        arrays: dict[str, Any] = {
            name: part[name].to_list() if name in _PER_TOKEN_TEXT else part[name].to_numpy() for name in part.columns
        }
        yield _stamped(part.row(0, named=True), decode.tokens(arrays))


def _rest(rows: pl.DataFrame) -> Iterator[Stamped]:
    for row in rows.iter_rows(named=True):
        yield Stamped(row["seq"], row["hub_time"], row["producer"], msgspec.Raw(row["body"]))


_PER_TOKEN_TEXT: Final = frozenset({"engine", "prompt", "reward", "piece"})
_TABLES: Final[dict[str, Callable[[pl.DataFrame], Iterator[Stamped]]]] = {
    "metrics": _grouped(decode.metrics),
    "events": _single(decode.event),
    "spans": _single(decode.span),
    "fixes": _grouped(decode.fix),
    "tokens": _tokens,
    "rest": _rest,
}
