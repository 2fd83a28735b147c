"""The base of every pane: cells in a frame, with a title and a focus."""

from __future__ import annotations

from console.tui.paint.cells import Cells, Text
from console.tui.paint.frame import draw_frame
from console.tui.paint.theme import Ink
from console.tui.widgets.cell_widget import CellWidget


class Pane(CellWidget, can_focus=True):
    """Lines in a frame. Subclasses say what their lines are."""

    title = ""
    framed = True
    """False on a screen of few rows, where the content needs those of the frame."""

    def lines(self, width: int, height: int) -> list[list[Text]]:
        """At most `height` lines of at most `width` cells."""
        raise NotImplementedError  # abstract: a Textual class has no room for the ABC metaclass

    def label(self) -> str:
        """Text on the right of the upper edge."""
        return ""

    def selected(self) -> int | None:
        """The line to show as selected, if any."""
        return None

    def move(self, direction: str) -> bool:  # noqa: ARG002  for those that scroll
        """Take a key of direction; False hands it back, so that the focus moves on."""
        return False

    def inner(self, cells: Cells) -> tuple[int, int, int]:
        """Offset, width and height of the lines."""
        if not self.framed or cells.height < 3:
            return 0, cells.width, cells.height
        return 1, cells.width - 2, cells.height - 2

    def paint(self, cells: Cells) -> None:
        offset, width, height = self.inner(cells)
        if offset:
            label = self.label()
            draw_frame(
                cells,
                self.glyphs,
                [(f" {self.title} ", Ink.TITLE)],
                [(f" {label} ", Ink.DIM)] if label else [],
                focused=self.has_focus,
            )
        if width < 1:
            return
        lines = self.lines(width, height)[:height]
        for row, line in enumerate(lines):
            cells.line(row + offset, offset, line, width)
        chosen = self.selected()
        if chosen is not None and chosen < len(lines) and self.has_focus:
            cells.select(chosen + offset, offset, offset + width)
