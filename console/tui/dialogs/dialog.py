"""Base of all dialogs: a painted box in the middle of a dimmed screen."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any, TypeVar

from textual.app import ComposeResult
from textual.screen import ModalScreen

from console.tui.bindings import bindings
from console.tui.paint.cells import Cells, Text
from console.tui.paint.frame import draw_frame
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.widgets.cell_widget import CellWidget

Result = TypeVar("Result")
Row = list[Text]


def folded(texts: Iterable[Text], width: int, lines: int = 2) -> list[Row]:
    """Each text in exactly `lines` lines, cut or filled up, so that a box keeps its size from row to row."""
    return [
        [(f" {part}", ink)]
        for text, ink in texts
        for part in [*textwrap.wrap(text, max(width - 2, 10)), *[""] * lines][:lines]
    ]


def buttons(glyphs: Glyphs, width: int, action: str, *, on_action: bool) -> Row:
    """Cancel and the button of an action in the middle of a line, with the pointer on one of them."""
    cancel, go = "  Cancel  ", f"  {action}  "
    return [
        (" " * (max(width - len(cancel) - len(go) - 6, 0) // 2), Ink.TEXT),
        (f"{' ' if on_action else glyphs.pointer}{cancel}", Ink.DIM if on_action else Ink.BRIGHT),
        ("   ", Ink.TEXT),
        (f"{glyphs.pointer if on_action else ' '}{go}", Ink.WARN if on_action else Ink.DIM),
    ]


class Box(CellWidget):
    """Paints the lines of the dialog it belongs to."""

    def __init__(self, dialog: Dialog[Any], glyphs: Glyphs) -> None:
        super().__init__(id="box", glyphs=glyphs)
        self.dialog = dialog

    def paint(self, cells: Cells) -> None:
        draw_frame(
            cells,
            self.glyphs,
            [(f" {self.dialog.heading} ", Ink.BRIGHT)],
            low_right=[(f" {self.dialog.hint} ", Ink.DIM)],
            focused=True,
        )
        lines = self.dialog.lines(cells.width - 4)
        height = cells.height - 2
        chosen = self.dialog.selected()
        top = max(min(self.dialog.top(height), len(lines) - height), 0)
        for row, line in enumerate(lines[top : top + height]):
            cells.line(row + 1, 2, line, cells.width - 4)
            if chosen is not None and row + top == chosen:
                cells.select(row + 1, 1, cells.width - 1)


class Dialog(ModalScreen[Result]):
    """A modal screen of painted lines. Subclasses say which, and what the keys of the table do."""

    CSS_PATH = "dialog.tcss"
    BINDINGS = bindings("dialog")
    heading = ""
    hint = "esc close"
    preferred_width = 64

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__()
        self.glyphs = glyphs
        self._fitted = (0, 0)
        self.box = Box(self, glyphs)

    def compose(self) -> ComposeResult:
        yield self.box

    def lines(self, width: int) -> list[list[Text]]:
        """The lines inside the frame; more than fit are scrolled by `top`."""
        raise NotImplementedError  # abstract: a Textual class has no room for the ABC metaclass

    def selected(self) -> int | None:
        """The line to show as selected."""
        return None

    def top(self, height: int) -> int:  # noqa: ARG002  for those that scroll
        """First visible line in a box of `height` lines."""
        return 0

    def on_mount(self) -> None:
        self.fit_box()

    def on_resize(self) -> None:
        self.fit_box()

    def fit_box(self) -> None:
        """Give the box the size of its lines, and paint it."""
        box = self.box
        width = min(self.preferred_width, max(self.app.size.width - 4, 20))
        height = min(len(self.lines(width - 4)) + 2, max(self.app.size.height - 2, 3))
        if self._fitted != (width, height):
            # Only then: setting a style lays the whole screen out anew, and this is called with every tick.
            self._fitted = (width, height)
            box.styles.width, box.styles.height = width, height
        box.repaint()

    def tick(self) -> None:
        """The model has news."""
        self.fit_box()

    def action_close(self) -> None:
        self.dismiss(None)

    def action_choose(self) -> None:
        """Take what is selected."""

    def action_switch(self) -> None:
        """Select the other button."""

    def action_line(self, step: int) -> None:
        """Select the line above or below."""

    def action_mark(self) -> None:
        """Mark what is selected, where several can be."""
