"""From encoded frames to the stored tables: one builder each, and all of them over one segment of the journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import polars as pl

from console.snapshot.blobs import SequenceRows, TokenRows
from console.snapshot.records import decoder, segment, tag
from console.snapshot.reports import Reports
from console.snapshot.series import schema, series
from console.tables import STORED, Row, Table
from driftline.frames import DECODE_ERRORS, FrameError
from driftline.records import Damage
from driftline.text import sanitize

BATCH_ROWS: Final = 131_072
"""Rows of a batch, or little more: what a table costs in memory while it is streamed."""


class Builder(Protocol):
    """Makes a stored table of frames."""

    rows: int

    def take(self, encoded: Sequence[bytes]) -> None:
        """Take over encoded frames of the table's tags, in the order of their numbers."""

    def frame(self) -> pl.DataFrame:
        """What was taken since the last time."""


class FrameRows:
    """A table whose rows come from `Table.rows`."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows: list[Row] = []
        self.rows = 0

    def take(self, encoded: Sequence[bytes]) -> None:
        assert self._table.rows is not None
        for one in encoded:
            try:
                stamped = decoder.decode(one)
                frame = stamped.frame()
            except (FrameError, *DECODE_ERRORS):
                continue  # of a newer producer
            # A command has no time of its own: the hub's then.
            self._rows += [{"seq": stamped.seq, "time": stamped.time, **row} for row in self._table.rows(frame)]
        self.rows = len(self._rows)

    def frame(self) -> pl.DataFrame:
        rows, self._rows, self.rows = self._rows, [], 0
        return pl.DataFrame(
            [
                series(name, column.kind, [row.get(name) for row in rows])
                for name, column in self._table.columns.items()
            ]
        )


class RawFrames:
    """Every frame but the tokens', as it was sent."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, float, str, str, bytes]] = []
        self.rows = 0

    def take(self, encoded: Sequence[bytes]) -> None:
        for one in encoded:
            try:
                stamped = decoder.decode(one)
            except DECODE_ERRORS:
                continue  # of a newer hub
            body = bytes(stamped.body)
            self._rows.append((stamped.seq, stamped.time, sanitize(stamped.producer), chr(tag(one)), body))
        self.rows = len(self._rows)

    def frame(self) -> pl.DataFrame:
        rows, self._rows, self.rows = self._rows, [], 0
        columns = STORED["frames"].columns
        if not rows:
            return pl.DataFrame(schema=schema(columns))
        fields = zip(*rows, strict=True)
        return pl.DataFrame(
            [series(name, column.kind, field) for (name, column), field in zip(columns.items(), fields, strict=True)]
        )


def builder(name: str) -> Builder:
    """The builder of a stored table."""
    match name:
        case "frames":
            return RawFrames()
        case "reports":
            return Reports()
        case "tokens":
            return TokenRows()
        case "sequences":
            return SequenceRows()
        case _:
            return FrameRows(STORED[name])


def batches(name: str, blocks: Iterable[list[bytes]], rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
    """A stored table from blocks of encoded frames (all kinds), in parts of about `rows` rows."""
    wanted = frozenset(STORED[name].tags.encode())
    making = builder(name)
    step = 64 if wanted == frozenset(b"t") else 1 << 16  # a Tokens frame is thousands of rows
    for block in blocks:
        found = [one for one in block if tag(one) in wanted]
        for at in range(0, len(found), step):
            making.take(found[at : at + step])
            if making.rows >= rows:
                yield making.frame()
    if making.rows:
        yield making.frame()


def segment_tables(path: Path, damage: Damage | None = None) -> dict[str, pl.DataFrame]:
    """All stored tables of one segment of a journal, by name, the empty ones too; what compaction writes.

    It takes about three times the segment's size in memory. `damage` counts bytes that are no records.
    """
    makers = {name: builder(name) for name in STORED}
    by_tag: dict[int, list[str]] = {}
    for name, table in STORED.items():
        for letter in table.tags.encode():
            by_tag.setdefault(letter, []).append(name)
    for block in segment(path, damage if damage is not None else Damage()):
        found: dict[str, list[bytes]] = {name: [] for name in STORED}
        for one in block:
            for name in by_tag.get(tag(one), ()):
                found[name].append(one)
        for name, encoded in found.items():
            if encoded:
                makers[name].take(encoded)
    return {name: making.frame() for name, making in makers.items()}
