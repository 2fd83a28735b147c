"""The widget that shows a grid of cells: every pane of the console is painted on this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from console.tui.paint.cells import Cells, Row
from console.tui.paint.glyphs import GLYPHS, Glyphs
from console.tui.paint.theme import DARK, palette


class CellWidget(Widget):
    """A widget painted as cells. Subclasses fill the grid in `paint` and call `repaint` when they have news."""

    DEFAULT_CSS = ""

    def __init__(self, *, id: str | None = None, glyphs: Glyphs = GLYPHS["braille"], **kwargs: Any) -> None:
        super().__init__(id=id, **kwargs)
        self.glyphs = glyphs
        self._cells: Cells | None = None
        self._strips: list[Strip] = []
        self._styles: Sequence[Style | None] = ()

    def paint(self, cells: Cells) -> None:
        """Fill the grid, which is blank."""
        raise NotImplementedError  # abstract: a Textual class has no room for the ABC metaclass

    def repaint(self) -> int:
        """Paint anew and refresh what changed; returns the number of cells that are sent."""
        width, height = self.size
        if not self.is_mounted or width <= 0 or height <= 0:
            return 0
        cells = Cells(width, height, self.glyphs.ellipsis)
        self.paint(cells)
        before, self._cells = self._cells, cells
        # Every app may show a cell widget; the console says in which look.
        styles = palette(getattr(self.app, "look", DARK).name)
        same = before is not None and (before.width, before.height) == (width, height) and self._styles is styles
        if before is None or not same or len(self._strips) != height:
            self._strips, self._styles = cells.strips(styles), styles
            self.refresh()
            return width * height
        regions = cells.changed(before)
        if not regions:
            return 0
        rows = sorted({region.y for region in regions})
        for row, strip in zip(rows, cells.strips(styles, rows), strict=True):
            self._strips[row] = strip
        self.refresh(*regions)
        return sum(region.area for region in regions)

    def render_line(self, y: int) -> Strip:
        # Rows below the first trust its look at the size: asking costs more than the row itself.
        if y == 0 or y >= len(self._strips):
            width, height = self.size
            if self._cells is None or self._cells.width != width or len(self._strips) != height:
                self.repaint()
        if 0 <= y < len(self._strips):
            return self._strips[y]
        return Strip.blank(self.size.width)

    def render_lines(self, crop: Region) -> list[Strip]:
        # A pane has no border, padding or tint: what Textual would add to each row costs as much as painting it.
        strips = [self.render_line(y) for y in crop.line_range]
        if filters := self.get_line_filters():
            background = self.background_colors[1]
            for line_filter in filters:
                strips = [strip.apply_filter(line_filter, background) for strip in strips]
        if crop.column_span != (0, self.size.width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        # What a filter or a crop has made is one of Textual's own.
        return [strip if isinstance(strip, Row) else Row.of(strip) for strip in strips]

    def on_resize(self) -> None:
        self.repaint()

    def on_focus(self) -> None:
        self.repaint()

    def on_blur(self) -> None:
        self.repaint()
