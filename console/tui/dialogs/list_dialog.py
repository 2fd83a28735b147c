"""A dialog that is a list with a cursor: rows, the note of the row under the cursor, and what Enter returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from console.tui.dialogs.dialog import Dialog, Result, Row
from console.tui.paint.glyphs import Glyphs

Item = TypeVar("Item")


class ListDialog(Dialog[Result], Generic[Item, Result]):
    """Returns the value of the chosen row, or None. Rows between a fixed head and note scroll around the cursor.

    `items` are read anew at every painting. The cursor stays with its row, by `key`, while others come and go.
    """

    hint = "↑ ↓ enter  esc cancel"
    preferred_width = 72

    def __init__(
        self,
        glyphs: Glyphs,
        items: Callable[[], Sequence[Item]],
        row: Callable[[Item, int], Row],
        value: Callable[[Item], Result],
        *,
        key: Callable[[Item], object] | None = None,
        note: Callable[[Item, int], list[Row]] = lambda _item, _width: [],
        start: object = None,
        heading: str = "",
        width: int = 0,
    ) -> None:
        """`row` and `note` paint an item in a width, the note below all rows; `value` is what choosing it returns.

        `key` names an item, by default its value; the cursor begins on the item named `start`, else on the first.
        """
        super().__init__(glyphs)
        self.items = items
        self.cursor_key = start
        """Names the item under the cursor; the first one where there is none of that name."""
        self._row, self._value, self._note = row, value, note
        self._key: Callable[[Item], object] = key or value
        self._line: int | None = None
        self.heading = heading or self.heading
        self.preferred_width = width or self.preferred_width

    def head(self, width: int) -> list[Row]:  # noqa: ARG002  for those that have one
        """Lines above the rows."""
        return []

    def empty(self) -> list[Row]:
        """Lines in place of rows where there are none."""
        return []

    @property
    def chosen(self) -> Item | None:
        """The item under the cursor."""
        items = self.items()
        return items[self._cursor(items)] if items else None

    def _cursor(self, items: Sequence[Item]) -> int:
        return next((i for i, item in enumerate(items) if self._key(item) == self.cursor_key), 0)

    def room(self, taken: int) -> int:
        """Rows of the list that fit on the screen beside `taken` other lines."""
        return max(self.app.size.height - 4 - taken, 1)

    def lines(self, width: int) -> list[Row]:
        items, head = self.items(), self.head(width)
        self._line = None
        if not items:
            return [*head, *self.empty()]
        cursor = self._cursor(items)
        note = self._note(items[cursor], width)
        room = self.room(len(head) + len(note))
        top = max(min(cursor - room // 2, len(items) - room), 0)
        self._line = len(head) + cursor - top
        return [*head, *(self._row(item, width) for item in items[top : top + room]), *note]

    def selected(self) -> int | None:
        return self._line

    def action_line(self, step: int) -> None:
        if items := self.items():
            self.cursor_key = self._key(items[(self._cursor(items) + step) % len(items)])
            self.fit_box()

    def action_choose(self) -> None:
        chosen = self.chosen
        if chosen is not None:
            self.dismiss(self._value(chosen))
