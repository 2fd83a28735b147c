"""A grid of characters and inks, and the widget that shows one: every pane of the console is painted on this.

Textual repaints a dirty region whole and does not compare cells. Here two grids are compared, and only the spans that
differ are asked to be redrawn: over SSH that is the difference between kilobytes and bytes a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip

from console.tui.paint.clean_text import clean
from console.tui.paint.glyphs import GLYPHS, Codes
from console.tui.paint.theme import SELECTED, Ink

_SPACE = 32
_CONTINUED = 0
"""Second cell of a character that is two cells wide."""

_GAP = 8
"""Cells that are sent again rather than jumped over: about what moving the cursor takes in bytes."""

Text = tuple[str, Ink]


class Row(Strip):
    """A row of the screen that is freed as soon as another takes its place.

    Textual's own keeps what it was divided into, which is itself where the only cut is at its end, as for most rows of
    most frames: a circle of some thirty objects, left to the collector of garbage, which may not come for an hour.
    """

    __slots__ = ()

    @classmethod
    def of(cls, strip: Strip) -> Strip:
        """A strip of Textual's own, made by a filter or a crop, as one of these.

        The object itself, because the strip that it was made from keeps it for the next time: a copy would cost every
        frame what it costs once.
        """
        strip.__class__ = cls
        return strip

    def divide(self, cuts: Iterable[int]) -> Sequence[Strip]:
        """The parts between these cell positions; what lies behind the last is left out."""
        inside = [cut for cut in cuts if cut <= self.cell_length]
        return [self] if inside == [self.cell_length] else super().divide(inside)


class Cells:
    """`height` x `width` cells; `chars` are code points, `inks` say what each is for."""

    __slots__ = ("chars", "ellipsis", "height", "inks", "width")

    def __init__(self, width: int, height: int, ellipsis: str = GLYPHS["braille"].ellipsis) -> None:
        """`ellipsis` stands in the last cell of a text that goes on."""
        self.width, self.height, self.ellipsis = width, height, ellipsis
        self.chars: Codes = np.full((height, width), _SPACE, np.uint32)
        self.inks: npt.NDArray[np.uint8] = np.zeros((height, width), np.uint8)

    def text(self, row: int, column: int, text: str, ink: int = Ink.TEXT, width: int | None = None) -> int:
        """Write one line of text, made safe; returns the cells it took.

        What is longer than `width` cells (or goes over the edge) ends in an ellipsis; blanks at its end do not count.
        """
        if not 0 <= row < self.height or column >= self.width or column < 0:
            return 0
        room = self.width - column if width is None else min(width, self.width - column)
        if room <= 0:
            return 0
        codes = _codes(clean(text), room, self.ellipsis)
        self.chars[row, column : column + len(codes)] = codes
        self.inks[row, column : column + len(codes)] = ink
        return len(codes)

    def line(self, row: int, column: int, parts: Sequence[Text], width: int | None = None) -> int:
        """Write several texts after one another, cut as one; returns the cells they took together."""
        room = self.width - column if width is None else min(width, self.width - column)
        used = 0
        for text, ink in parts:
            if used >= room and used > 0 and text.strip():
                self._cut(row, column + used - 1)
                break
            used += self.text(row, column + used, text, ink, room - used)
        return used

    def _cut(self, row: int, column: int) -> None:
        """Say in the last cell of a text that it goes on."""
        if 0 <= row < self.height and 0 <= column < self.width:
            if self.chars[row, column] == _CONTINUED and column > 0:
                self.chars[row, column - 1] = _SPACE
            self.chars[row, column] = ord(self.ellipsis)

    def select(self, row: int, start: int, stop: int) -> None:
        """Show a part of a row as selected."""
        self.inks[row, start:stop] |= SELECTED

    def changed(self, before: Cells) -> list[Region]:
        """Spans that differ from a grid of the same size, top to bottom and left to right."""
        differs = (self.chars != before.chars) | (self.inks != before.inks)
        # Half of a wide character cannot be sent.
        halves = (self.chars == _CONTINUED) | (before.chars == _CONTINUED)
        if halves.any():
            for _ in range(2):
                differs[:, 1:] |= differs[:, :-1] & halves[:, 1:]
                differs[:, :-1] |= differs[:, 1:] & halves[:, 1:]
        regions = []
        for row in np.flatnonzero(differs.any(axis=1)).tolist():
            columns = np.flatnonzero(differs[row])
            breaks = np.flatnonzero(np.diff(columns) > _GAP)
            starts, stops = columns[[0, *(breaks + 1)]], columns[[*breaks, -1]] + 1
            regions += [Region(x, row, end - x, 1) for x, end in zip(starts.tolist(), stops.tolist(), strict=True)]
        return regions

    def strips(self, styles: Sequence[Style | None], rows: Sequence[int] | None = None) -> list[Strip]:
        """The rows (all without `rows`) as strips for the compositor; as few segments as the inks allow."""
        chars, inks = (self.chars, self.inks) if rows is None else (self.chars[rows], self.inks[rows])
        if self.width == 0:
            return [Row([], 0) for _ in range(len(chars))]
        # A blank has no ink of its own: it continues the run on its left, unless the row has a selection.
        plain = (inks < SELECTED).all(axis=1, keepdims=True)
        own = np.where((chars == _SPACE) & plain, 0, np.arange(self.width))
        inks = np.take_along_axis(inks, np.maximum.accumulate(own, axis=1), axis=1)
        bounds = np.ones((len(inks), self.width), np.bool_)
        np.not_equal(inks[:, 1:], inks[:, :-1], out=bounds[:, 1:])
        strips: list[Strip] = []
        for row in range(len(inks)):
            starts = np.flatnonzero(bounds[row])
            run_inks = inks[row, starts].tolist()
            line = chars[row].tobytes().decode("utf-32-le", "replace")
            stops = starts[1:].tolist()
            stops.append(self.width)
            begin = 0
            segments = []
            for stop, ink in zip(stops, run_inks, strict=True):
                segments.append(Segment(line[begin:stop], styles[ink]))
                begin = stop
            if "\0" in line:
                segments = [Segment(segment.text.replace("\0", ""), segment.style) for segment in segments]
            strips.append(Row(segments, self.width))
        return strips


def _codes(text: str, room: int, ellipsis: str) -> Codes:
    """Code points of a text in cells, at most `room`, of which the last is an ellipsis where it goes on."""
    if text.isascii() or cell_len(text) == len(text):
        if len(text) > room:
            text = f"{text[: room - 1]}{ellipsis}" if text[room:].strip() else text[:room]
        return np.frombuffer(text.encode("utf-32-le"), np.uint32)
    whole = cell_len(text.rstrip()) <= room
    codes: list[int] = []
    for char in text:
        width = cell_len(char)
        if len(codes) + width > (room if whole else room - 1):
            break
        codes += [ord(char), *[_CONTINUED] * (width - 1)] if width else []
    return np.array(codes if whole else [*codes, ord(ellipsis)], np.uint32)
