"""From encoded frames to the tables of single frames, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import polars as pl

from console.export.metric_rows import Reports
from console.export.polars_columns import series
from console.export.projection import EVERYTHING, Projection
from console.export.schema import STORED, Row, Table
from console.export.token_rows import SequenceRows, TokenRows
from console.recorded.blocks import Block, decoder
from driftline.frames import DECODE_ERRORS, FrameError

BATCH_ROWS: Final = 131_072
"""Rows of a batch, or little more: bounds the memory of a streamed table."""
REPORT_ROWS: Final = 32_768
"""Rows of a batch of reports, which have many columns: larger ones cost more in fresh memory than they save."""


class Builder(Protocol):
    """Builds a stored table from frames."""

    @property
    def rows(self) -> int:
        """Rows that were added since the last `frames`."""

    def is_full(self, rows: int) -> bool:
        """Whether it is time for `frames`, with at most about so many rows."""

    def add(self, block: Block) -> None:
        """Add the frames with the table's tags, in the order of their numbers."""

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows added since the last call; one part, or several that have other columns."""


class FrameRows:
    """A table whose rows come from `Table.rows`."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows: list[Row] = []
        self.rows = 0

    def add(self, block: Block) -> None:
        assert self._table.rows is not None
        for one in block.having(self._table.tags.encode()):
            try:
                stamped = decoder.decode(one)
                frame = stamped.frame()
            except (FrameError, *DECODE_ERRORS):
                continue  # of a newer producer
            # A command has no time of its own: the hub's is used.
            self._rows += [{"seq": stamped.seq, "time": stamped.time, **row} for row in self._table.rows(frame)]
        self.rows = len(self._rows)

    def is_full(self, rows: int) -> bool:
        return self.rows >= rows

    def frames(self) -> Iterator[pl.DataFrame]:
        rows, self._rows, self.rows = self._rows, [], 0
        yield pl.DataFrame(
            [series(name, column.kind, [row.get(name) for row in rows]) for name, column in self._table.columns.items()]
        )


def builder(name: str, projection: Projection = EVERYTHING) -> Builder:
    """The builder of a stored table, of which no more than `projection` is needed."""
    match name:
        case "reports":
            return Reports(projection)
        case "tokens":
            return TokenRows(projection)
        case "sequences":
            return SequenceRows(projection)
        case _:
            return FrameRows(STORED[name])


def batches(
    name: str, blocks: Iterable[Block], rows: int | None = None, *, projection: Projection = EVERYTHING
) -> Iterator[pl.DataFrame]:
    """A stored table from blocks of encoded frames (all kinds), in parts of about `rows` rows."""
    if rows is None:
        rows = REPORT_ROWS if name == "reports" else BATCH_ROWS
    making = builder(name, projection)
    for block in blocks:
        making.add(block)
        if making.is_full(rows):
            yield from making.frames()
    if making.rows:
        yield from making.frames()
