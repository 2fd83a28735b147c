"""The table of the engines screen."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from console.tui.paint.cells import Text
from console.tui.paint.table import Column, choose, head
from console.tui.present.engine_rows import ORDERS, EngineRow
from console.tui.screens.engines import view
from console.tui.widgets.list_pane import ListPane


class EngineTable(ListPane[EngineRow]):
    """A row for each engine, the dead first."""

    title = "engines"
    order = ORDERS[0]
    reverse = False
    word = ""

    def key(self, item: EngineRow) -> Hashable:
        return item.state.engine

    def _columns(self, width: int) -> list[Column]:
        return choose(view.columns(self.items), width)

    def head(self, width: int) -> list[Text]:
        return head(self._columns(width))

    def row(self, item: EngineRow, width: int) -> list[Text]:
        return view.table_row(item, self._columns(width), self.glyphs)

    def label(self) -> str:
        return label(self.items, self.word, f"by {self.order}{', turned' if self.reverse else ''}")


def label(rows: Sequence[EngineRow], word: str, order: str) -> str:
    """How many engines there are, how many of them are dead, in which order, and whether the figures are of now."""
    if not rows:
        return word
    dead = sum(row.state.phase == "dead" for row in rows)
    return ", ".join(part for part in (f"{len(rows):,}", f"{dead:,} dead" if dead else "", order, word) if part)
