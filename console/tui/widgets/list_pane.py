"""A pane of many rows of which one is chosen: scrolls by the row and the page, follows the newest, draws what is seen.

It holds the rows' own order and nothing of the run. Rows are found again by their key when others come or go, so that
what the operator looks at stays where it is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, Generic, TypeVar

from console.tui.paint.cells import Cells, Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.widgets.pane import Pane

Item = TypeVar("Item")

_BLANK: Final[Text] = (" ", Ink.TEXT)


class ListPane(Pane, Generic[Item]):
    """Subclasses say what a row shows (`row`), which key it has (`key`), and what stands above them (`head`)."""

    def __init__(self, *, id: str, glyphs: Glyphs, follow: bool = False) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.items: Sequence[Item] = ()
        self.cursor = 0
        self.top = 0
        self.newest_last = follow
        self.follow = follow
        """Whether the newest row is the chosen one, whatever comes."""
        self._held: Item | None = None
        self.notes: list[list[Text]] = []
        """Lines in place of rows, or below them where there is room."""

    # -- for subclasses

    def key(self, item: Item) -> Hashable:
        """The key of a row, the same when the rows have changed."""
        raise NotImplementedError  # abstract: a Textual class has no room for the ABC metaclass

    def row(self, item: Item, width: int) -> list[Text]:
        """A row of at most `width` cells."""
        raise NotImplementedError  # abstract: a Textual class has no room for the ABC metaclass

    def head(self, width: int) -> list[Text]:  # noqa: ARG002  for those that have columns
        """The line above the rows; empty for none."""
        return []

    # -- rows

    def show(self, items: Sequence[Item], notes: Sequence[list[Text]] = ()) -> None:
        """Take the rows, in order."""
        # Not by its place: the rows may be the same list, which has lost its oldest meanwhile.
        chosen, before = self._held, self.cursor
        self.items, self.notes = items, list(notes)
        if self.follow or chosen is None:
            self.cursor = len(items) - 1 if self.newest_last else min(self.cursor, max(len(items) - 1, 0))
        else:
            self.cursor = self._find(self.key(chosen), before)
            self.top += self.cursor - before
        self._held = self.chosen
        self.repaint()

    def _find(self, key: Hashable, near: int) -> int:
        """The index of the row with that key; its former one where it is gone."""
        count = len(self.items)
        near = max(min(near, count - 1), 0)
        for away in range(count):
            for place in (near - away, near + away):
                if 0 <= place < count and self.key(self.items[place]) == key:
                    return place
        return near

    @property
    def chosen(self) -> Item | None:
        """The row under the cursor."""
        return self.items[self.cursor] if 0 <= self.cursor < len(self.items) else None

    @property
    def page(self) -> int:
        """Rows that are seen at once."""
        height = self.size.height - (2 if self.framed and self.size.height >= 3 else 0)
        return max(height - (1 if self.head(self.size.width) else 0), 1)

    def go(self, place: int) -> None:
        """Choose a row by its place; beyond an end is that end. The last one of a list that grows is followed."""
        last = len(self.items) - 1
        self.cursor = max(min(place, last), 0)
        self.follow = self.newest_last and self.cursor >= last
        self._held = self.chosen
        self.repaint()

    def move(self, direction: str) -> bool:
        step = {"up": -1, "down": 1}.get(direction, 0)
        if step == 0 or not 0 <= self.cursor + step < len(self.items):
            return False
        self.go(self.cursor + step)
        return True

    def reset(self) -> None:
        """Other rows from now on."""
        self.items, self.cursor, self.top, self.follow = (), 0, 0, self.newest_last
        self._held = None

    # -- drawing

    def _scrolled(self, height: int) -> int:
        """The first row that is seen, so that the chosen one is."""
        top = max(min(self.top, self.cursor), self.cursor - height + 1)
        self.top = max(min(top, len(self.items) - height), 0)
        return self.top

    def lines(self, width: int, height: int) -> list[list[Text]]:
        # The first cell is the pointer's.
        head = self.head(width - 1) if self.items else []
        lines = [[_BLANK, *head]] if head else []
        height -= len(lines)
        top = self._scrolled(max(height, 1))
        lines += [[_BLANK, *self.row(item, width - 1)] for item in self.items[top : top + height]]
        spare = height - min(len(self.items), height)
        return [*lines, *self.notes[:spare]]

    def selected(self) -> int | None:
        if not self.items:
            return None
        return self.cursor - self.top + (1 if self.head(self.size.width - 2) else 0)

    def paint(self, cells: Cells) -> None:
        super().paint(cells)
        # The chosen row can be told apart without the focus and without colour, too.
        chosen = self.selected()
        offset, _, height = self.inner(cells)
        if chosen is not None and chosen < height:
            cells.text(chosen + offset, offset, self.glyphs.pointer, Ink.ACCENT)
