"""Which fix to switch, and to which value where it has more than two: lists of which one is chosen."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from console.tui.actions import WHEN, how_of, meaning
from console.tui.fixrows import FixRow
from console.tui.glyphs import Glyphs
from console.tui.screens.dialog import Dialog
from console.tui.theme import Ink
from console.tui.widgets.cells import Text
from console.tui.widgets.panes import fix_line
from driftline.fixes import BY_ID
from driftline.frames import FixState


class FixPicker(Dialog[str]):
    """Returns the id of the chosen fix, or None."""

    heading = "which fix"
    hint = "↑ ↓ enter  esc cancel"
    preferred_width = 72

    def __init__(self, glyphs: Glyphs, rows: Callable[[], list[FixRow]]) -> None:
        super().__init__(glyphs)
        self._rows = rows
        self.cursor = 0

    def lines(self, width: int) -> list[list[Text]]:
        rows = self._rows()
        fix = rows[self.cursor].fix
        lines = [*(fix_line(row, width) for row in rows), []]
        for text, ink in ((fix.summary, Ink.TEXT), (f"why: {fix.why}", Ink.DIM)):
            # Always two lines, so that the box does not jump from fix to fix.
            parts = [*textwrap.wrap(text, max(width - 2, 10)), "", ""][:2]
            lines += [[(f" {part}", ink)] for part in parts]
        return lines

    def selected(self) -> int | None:
        return self.cursor

    def action_line(self, step: int) -> None:
        self.cursor = (self.cursor + step) % len(self._rows())
        self.fit_box()

    def action_choose(self) -> None:
        self.dismiss(self._rows()[self.cursor].fix.id)


class ValuePicker(Dialog[str]):
    """Returns the chosen value of a fix that has more than two, or None; stands on the first that is not wanted now."""

    hint = "↑ ↓ enter  esc cancel"
    preferred_width = 72

    def __init__(self, glyphs: Glyphs, state: FixState) -> None:
        super().__init__(glyphs)
        self.state = state
        self.fix = BY_ID[state.fix]
        self.heading = f"{self.fix.title}: which value"
        self.cursor = next(i for i, value in enumerate(self.fix.values) if value != state.requested)

    def lines(self, width: int) -> list[list[Text]]:
        lines: list[list[Text]] = []
        for value in self.fix.values:
            wanted = value == self.state.requested
            sign = self.glyphs.on if wanted else " "
            lines.append([(f" {sign} ", Ink.OK), (f"{value:<8} ", Ink.TEXT), (meaning(self.fix, value), Ink.DIM)])
        value = self.fix.values[self.cursor]
        note = "wanted now" if value == self.state.requested else WHEN[how_of(self.state, value)]
        # Always two lines, so that the box does not jump from value to value.
        parts = [*textwrap.wrap(note, max(width - 2, 10)), ""][:2]
        return [*lines, [], *([(f" {part}", Ink.WARN)] for part in parts)]

    def selected(self) -> int | None:
        return self.cursor

    def action_line(self, step: int) -> None:
        self.cursor = (self.cursor + step) % len(self.fix.values)
        self.fit_box()

    def action_choose(self) -> None:
        self.dismiss(self.fix.values[self.cursor])
