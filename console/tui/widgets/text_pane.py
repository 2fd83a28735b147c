"""A pane of lines that its screen makes, scrolled where they are more than fit."""

from __future__ import annotations

from collections.abc import Callable

from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.widgets.pane import Pane

Lines = Callable[[int, int], list[list[Text]]]
"""Makes lines for a width and a height, without waiting and without the model."""


class TextPane(Pane):
    """Shows what a function makes for its size."""

    def __init__(self, *, id: str, glyphs: Glyphs, title: str = "") -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.title = title
        self._make: Lines = lambda _width, _height: []
        self._label = ""
        self._count = 0
        self.top = 0

    def show(self, make: Lines, title: str = "", label: str = "") -> None:
        """Take what makes the lines; called again for every size."""
        self._make, self._label = make, label
        self.title = title or self.title
        self.repaint()

    def label(self) -> str:
        return self._label

    def move(self, direction: str) -> bool:
        step = {"up": -1, "down": 1}.get(direction, 0)
        room = max(self._count - (self.size.height - (2 if self.framed else 0)), 0)
        if step == 0 or not 0 <= self.top + step <= room:
            return False
        self.top += step
        self.repaint()
        return True

    def lines(self, width: int, height: int) -> list[list[Text]]:
        made = self._make(width, height)
        self._count = len(made)
        self.top = max(min(self.top, len(made) - height), 0)
        return made[self.top : self.top + height]
