"""Which fix to switch: the fixes as the panel shows them, one to choose."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from console.tui.glyphs import Glyphs
from console.tui.present import FixRow
from console.tui.screens.dialog import Dialog
from console.tui.theme import Ink
from console.tui.widgets.cells import Text
from console.tui.widgets.panes import fix_line


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
