"""A pane of more rows than it has room for, moved with up and down."""

from __future__ import annotations

from console.tui.paint.glyphs import Glyphs
from console.tui.widgets.pane import Pane


class ScrolledPane(Pane):
    """Subclasses show their rows from `top` on and say how many there are; they stand still at both ends."""

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.top = 0

    @property
    def count(self) -> int:
        """Rows, shown or not."""
        raise NotImplementedError  # abstract: a Textual class has no room for the ABC metaclass

    @property
    def room(self) -> tuple[int, int]:
        """Columns and rows within the frame."""
        return max(self.size.width - 2, 20), max(self.size.height - 2, 1)

    def move(self, direction: str) -> bool:
        step = {"up": -1, "down": 1}.get(direction, 0)
        if step == 0 or not 0 <= self.top + step <= max(self.count - self.room[1], 0):
            return False
        self.top += step
        self.repaint()
        return True
