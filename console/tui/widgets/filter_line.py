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
from console.tui.paint.clean_text import clean
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.widgets.typing_line import TypingLine

LONGEST: Final = 200
"""Characters that are taken; what is longer is no filter but a paste that went astray."""


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
        self.text = ""
        """The text as typed."""
        self.applied = ""
        """The text in force."""
        self.error = ""
        self._before = ""
        self._caret = 0
        self.is_open = False

    def open(self) -> None:
        """Show the line with the filter in force, and take the keys."""
        self.is_open = True
        self._before = self.text = self.applied
        self._caret = len(self.text)
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
        self.text = self.applied = self._before = self.error = ""
        self._caret = 0
        self.post_message(self.Changed(""))
        self.repaint()

    def insert(self, text: str) -> None:
        """Write something where the caret is."""
        text = clean(text)[: max(LONGEST - len(self.text), 0)]
        self._edit(self.text[: self._caret] + text + self.text[self._caret :], self._caret + len(text))

    def _edit(self, text: str, caret: int) -> None:
        self._caret = max(min(caret, len(text)), 0)
        if text != self.text:
            self.text = text
            self.error = self._check(text)
            if not self.error and text != self.applied:
                self.applied = text
                self.post_message(self.Changed(text))
        self.repaint()

    def on_paste(self, event: Paste) -> None:
        event.stop()
        self.insert(event.text)

    def on_key(self, event: Key) -> None:
        """Every key but tab is the line's own: a `q` in a word must not leave the console."""
        text, caret = self.text, self._caret
        match event.key:
            case "enter":
                if self.error:
                    self.repaint()
                else:
                    self.close()
            case "escape":
                self._edit(self._before, len(self._before))
                self.close()
            case "backspace" | "ctrl+h":
                self._edit(text[: max(caret - 1, 0)] + text[caret:], caret - 1)
            case "delete":
                self._edit(text[:caret] + text[caret + 1 :], caret)
            case "ctrl+u":
                self._edit(text[caret:], 0)
            case "ctrl+w":
                kept = text[:caret].rstrip().rpartition(" ")
                start = len(kept[0]) + len(kept[1])
                self._edit(text[:start] + text[caret:], start)
            case "left":
                self._edit(text, caret - 1)
            case "right":
                self._edit(text, caret + 1)
            case "home" | "ctrl+a":
                self._edit(text, 0)
            case "end" | "ctrl+e":
                self._edit(text, len(text))
            case "tab" | "shift+tab":
                return
            case _ if event.is_printable and event.character:
                self.insert(event.character)
        event.stop()
        event.prevent_default()

    def paint(self, cells: Cells) -> None:
        used = cells.text(0, 1, "/ ", Ink.ACCENT) + 1
        # The end that is being typed is what must be seen.
        room = max(cells.width - used - 2, 1)
        start = max(self._caret - room, 0)
        shown = self.text[start : start + room]
        cells.text(0, used, shown, Ink.BRIGHT)
        caret = used + self._caret - start
        if self.has_focus and caret < cells.width:
            cells.select(0, caret, caret + 1)
        after = used + len(shown) + 2
        if self.error:
            cells.text(0, after, self.error, Ink.ALARM)
        elif not self.text:
            cells.text(0, after, self._hint, Ink.DIM)
        else:
            cells.text(0, after, "enter keep  esc back", Ink.DIM)
