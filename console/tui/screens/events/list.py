"""The list of the events screen."""

from __future__ import annotations

from collections.abc import Hashable

from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.screens.events import view
from console.tui.screens.events.view import EventRow
from console.tui.widgets.list_pane import ListPane


class EventList(ListPane[EventRow]):
    """Everything that happened, newest last."""

    title = "events"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs, follow=True)
        self.now: float | None = None
        self.words: list[str] = []
        """Words in the upper edge: filter, number and freshness."""

    def key(self, item: EventRow) -> Hashable:
        # A fold grows at its end, and from its beginning the log forgets.
        return item.last.number if len(item.entries) == 1 else ("fold", item.last.number)

    def row(self, item: EventRow, width: int) -> list[Text]:
        return view.line(item, width, self.now)

    def label(self) -> str:
        newer = len(self.items) - 1 - self.cursor
        return ", ".join([*self.words, *([f"{newer:,} newer below, G follows"] if newer > 0 else [])])
