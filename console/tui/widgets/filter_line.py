"""One line to type a filter into, above the footer: what is typed is tried at once, and what is wrong is said at once.

The screen that owns one says what a text means by `check`; it hears `FilterLine.Changed` for every text that is right,
also for that to which `esc` goes back. The last right text stays in force while a wrong one is being typed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from textual.events import Key, Paste
from textual.message import Message

from console.tui.paint.cells import Cells
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.widgets.line_edit import Line
from console.tui.widgets.typing_line import TypingLine

LONGEST: Final = 200
"""Characters that are taken; a longer text is a paste that went astray."""


class FilterLine(TypingLine):
    """The line. `check(text)` gives "" for a right text, else one sentence saying what is allowed."""

    DEFAULT_CSS = """
    FilterLine { display: none; height: 1; width: 100%; }
    """

    class Changed(Message):
        """`text` is in force from now on."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Closed(Message):
        """The operator is done typing."""

    def __init__(self, check: Callable[[str], str], hint: str, *, glyphs: Glyphs, id: str = "filter") -> None:
        super().__init__(id=id, glyphs=glyphs)
        self._check = check
        self._hint = hint
        self.line = Line()
        """The text as typed, with the caret."""
        self.applied = ""
        """The text in force."""
        self.error = ""
        self._before = ""
        self.is_open = False

    def open(self) -> None:
        """Show the line with the filter in force, and take the keys."""
        self.is_open = True
        self._before = self.applied
        self.line = Line.at_end(self.applied)
        self.error = ""
        self.display = True
        self.take_keys()
        self.repaint()

    def close(self) -> None:
        """Put the line away; what is in force stays."""
        self.is_open = False
        self.display = False
        self.post_message(self.Closed())

    def clear(self) -> None:
        """No filter from now on."""
        self.line = Line()
        self.applied = self._before = self.error = ""
        self.post_message(self.Changed(""))
        self.repaint()

    @property
    def text(self) -> str:
        """The text as typed."""
        return self.line.text

    def _edit(self, line: Line) -> None:
        before, self.line = self.text, line
        if self.text != before:
            self.error = self._check(self.text)
            if not self.error and self.text != self.applied:
                self.applied = self.text
                self.post_message(self.Changed(self.text))
        self.repaint()

    def on_paste(self, event: Paste) -> None:
        event.stop()
        self._edit(self.line.insert(event.text, LONGEST))

    def on_key(self, event: Key) -> None:
        """Every key but tab is the line's own: a `q` in a word must not leave the console."""
        edited = self.line.key(event.key)
        if event.key in ("tab", "shift+tab"):
            return
        if event.key == "escape":
            self._edit(Line.at_end(self._before))
            self.close()
        elif event.key == "enter" and not self.error:
            self.close()
        elif edited is not None:
            self._edit(edited)
        elif event.is_printable and event.character:
            self._edit(self.line.insert(event.character, LONGEST))
        event.stop()
        event.prevent_default()

    def paint(self, cells: Cells) -> None:
        used = cells.text(0, 1, "/ ", Ink.ACCENT) + 1
        # The end that is being typed is what must be seen.
        room = max(cells.width - used - 2, 1)
        start = max(self.line.caret - room, 0)
        shown = self.text[start : start + room]
        cells.text(0, used, shown, Ink.BRIGHT)
        caret = used + self.line.caret - start
        if self.has_focus and caret < cells.width:
            cells.select(0, caret, caret + 1)
        after = used + len(shown) + 2
        if self.error:
            cells.text(0, after, self.error, Ink.ALARM)
        elif not self.text:
            cells.text(0, after, self._hint, Ink.DIM)
        else:
            cells.text(0, after, "enter keep  esc back", Ink.DIM)
