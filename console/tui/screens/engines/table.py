"""The table of the engines screen."""

from __future__ import annotations

from collections.abc import Hashable

from console.tui.paint.cells import Text
from console.tui.paint.table import Column, choose, head
from console.tui.screens.engines import view
from console.tui.screens.engines.view import EngineRow
from console.tui.widgets.list_pane import ListPane


class EngineTable(ListPane[EngineRow]):
    """A row for each engine, the dead first."""

    title = "engines"
    order = view.ORDERS[0]
    reverse = False
    word = ""

    def key(self, item: EngineRow) -> Hashable:
        return item.state.engine

    def _columns(self, width: int) -> list[Column]:
        name = min(max((len(item.state.engine) for item in self.items), default=9), 20)
        shaped = [Column(c.id, c.title, max(name, 6)) if c.id == "engine" else c for c in view.COLUMNS]
        return choose(shaped, width)

    def head(self, width: int) -> list[Text]:
        return head(self._columns(width))

    def row(self, item: EngineRow, width: int) -> list[Text]:
        return view.table_row(item, self._columns(width), self.glyphs)

    def label(self) -> str:
        if not self.items:
            return self.word
        parts = [f"{len(self.items):,}"]
        dead = sum(item.state.phase == "dead" for item in self.items)
        if dead:
            parts.append(f"{dead:,} dead")
        parts.append(f"by {self.order}{', turned' if self.reverse else ''}")
        return ", ".join([*parts, self.word] if self.word else parts)
