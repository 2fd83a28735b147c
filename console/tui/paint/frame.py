"""The frame around every pane: title on the left of the upper edge, label on the right, notes on the lower."""

from __future__ import annotations

from collections.abc import Sequence

from console.tui.paint.cells import Cells, Text
from console.tui.paint.clean_text import clean
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink


def draw_frame(
    cells: Cells,
    glyphs: Glyphs,
    title: Sequence[Text],
    label: Sequence[Text] = (),
    low_left: Sequence[Text] = (),
    low_right: Sequence[Text] = (),
    *,
    focused: bool = False,
) -> None:
    """Draw a frame around all of `cells`. A label that does not fit beside the title is left out."""
    width, height = cells.width, cells.height
    ink = Ink.FOCUS if focused else Ink.FRAME
    for row, corner in ((0, 0), (height - 1, 2)):
        edge = glyphs.horizontal * (width - 2)
        cells.text(row, 0, glyphs.corners[corner] + edge + glyphs.corners[corner + 1], ink)
    cells.chars[1 : height - 1, [0, width - 1]] = ord(glyphs.vertical)
    cells.inks[1 : height - 1, [0, width - 1]] = ink
    _edge(cells, 0, title, label)
    _edge(cells, height - 1, low_left, low_right)


def _edge(cells: Cells, row: int, left: Sequence[Text], right: Sequence[Text]) -> None:
    inner = cells.width - 2
    used = cells.line(row, 1, left, inner) if left else 0
    length = sum(len(clean(text)) for text, _ in right)
    if right and used + length < inner:
        cells.line(row, cells.width - 1 - length, right, length)
