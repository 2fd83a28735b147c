"""The map of the engines screen: one cell an engine, in natural order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from console.tui.paint.cells import Cells, Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.spark import spark
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut, number
from console.tui.present.engine_rows import LEVEL_INK, EngineRow, Level, counts
from console.tui.screens.engines.table import label
from console.tui.widgets.pane import Pane

_GROUP: Final = 8
"""Cells between two gaps: a place can be counted by eye."""
_ROWS: Final = (128, 96, 64, 48, 32, 16, 8)
"""How many engines a row may have: the same number of them under each other, whatever the width."""
_NAME: Final = 14
_SIGNS: Final = {Level.DEAD: "x", Level.SILENT: "!", Level.NOT_RUNNING: "o"}


class EngineMap(Pane):
    """A cell's height is the engine's tokens a second, its colour how it stands; a letter what stands still."""

    title = "engines"
    word = ""

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.items: Sequence[EngineRow] = ()
        self.cursor = 0
        self._held = ""
        self._across = 1
        """Engines in a row, as drawn last."""
        self._top = 0

    def show(self, rows: Sequence[EngineRow]) -> None:
        """Take the engines, in natural order; the chosen one stays chosen while others come and go."""
        self.items = rows
        if self._held:
            place = next((i for i, row in enumerate(rows) if row.state.engine == self._held), self.cursor)
            self.cursor = max(min(place, len(rows) - 1), 0)
        self.repaint()

    @property
    def chosen(self) -> EngineRow | None:
        """The engine under the cursor."""
        return self.items[self.cursor] if 0 <= self.cursor < len(self.items) else None

    def go(self, place: int) -> None:
        """Choose an engine by its place; beyond an end is that end."""
        self.cursor = max(min(place, len(self.items) - 1), 0)
        self._held = self.items[self.cursor].state.engine if self.items else ""
        self.repaint()

    def reset(self) -> None:
        """Other engines from now on."""
        self.items, self.cursor, self._held, self._top = (), 0, "", 0

    @property
    def page(self) -> int:
        """Engines that a page key goes on by: four rows."""
        return 4 * self._across

    def label(self) -> str:
        return label(self.items, self.word, "map")

    def move(self, direction: str) -> bool:
        step = {"left": -1, "right": 1, "up": -self._across, "down": self._across}.get(direction, 0)
        if step == 0 or not 0 <= self.cursor + step < len(self.items):
            return False
        self.go(self.cursor + step)
        return True

    # -- drawing

    def rows(self, width: int) -> int:
        """Lines that the map takes in a pane of `width` cells inside its frame, with the two below it."""
        return -(-len(self.items) // _across(width)) + 2

    def lines(self, width: int, height: int) -> list[list[Text]]:
        across = self._across = _across(width)
        cells = _cells(self.items, self.glyphs)
        made = []
        for start in range(0, len(self.items), across):
            line: list[Text] = [(f" {cut(self.items[start].state.engine, _NAME):<{_NAME}} ", Ink.DIM)]
            for place in range(start, min(start + across, len(self.items))):
                gap = " " if (place - start) % _GROUP == 0 and place > start else ""
                line += [(gap, Ink.TEXT), cells[place]] if gap else [cells[place]]
            made.append(line)
        room = max(height - 2, 1)
        at = self.cursor // across
        self._top = max(min(self._top, at, max(len(made) - room, 0)), at - room + 1, 0)
        shown = made[self._top : self._top + room]
        return [*shown, [(" ", Ink.TEXT), *counts(self.items)], self._legend()]

    def _legend(self) -> list[Text]:
        top = max((row.state.tokens_per_s for row in self.items), default=0.0)
        ramp = spark([0.0, 0.5, 1.0], 3, self.glyphs, 1.0)
        return [
            (f" {ramp}", Ink.OK), (f" 0 to {number(top)} tok/s  ", Ink.DIM),
            (ramp[1], Ink.WARN), (" needs a look  ", Ink.DIM),
            (_SIGNS[Level.NOT_RUNNING], Ink.WARN), (" not running  ", Ink.DIM),
            (_SIGNS[Level.SILENT], Ink.ALARM), (" silent  ", Ink.DIM),
            (_SIGNS[Level.DEAD], Ink.ALARM), (" dead", Ink.DIM),
        ]  # fmt: skip

    def paint(self, cells: Cells) -> None:
        super().paint(cells)
        if not self.items:
            return
        offset, width, height = self.inner(cells)
        row, place = divmod(self.cursor, self._across)
        line, column = row - self._top, 2 + _NAME + place + place // _GROUP
        if 0 <= line < height - 2 and column < width:
            # A cell that is filled hides its ground: it has the cursor's colour too. Without colour the pointer of the
            # row and the name in the pane below say which it is.
            sign, _ = _cells(self.items, self.glyphs)[self.cursor]
            cells.text(line + offset, column + offset, sign, Ink.ACCENT)
            cells.select(line + offset, column + offset, column + offset + 1)
            cells.text(line + offset, offset, self.glyphs.pointer, Ink.ACCENT)


def _across(width: int) -> int:
    room = width - 2 - _NAME
    return next((count for count in _ROWS if count + count // _GROUP - 1 <= room), _ROWS[-1])


def _cells(rows: Sequence[EngineRow], glyphs: Glyphs) -> list[Text]:
    drawn = spark([row.state.tokens_per_s for row in rows], len(rows), glyphs)
    return [
        (_SIGNS.get(row.level, drawn[place]), Ink.DIM if row.ended else LEVEL_INK[row.level])
        for place, row in enumerate(rows)
    ]
