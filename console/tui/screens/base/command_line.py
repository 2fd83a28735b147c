"""The command line: one row in the place of the footer, over a screen that goes on.

Words, candidates and meaning are `console.tui.command.grammar`, which is imported when the line is first opened: every
screen has one, and the first frame is what an operator waits for. This is the caret, the keys and the row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from textual.events import Key, Paste
from textual.message import Message

from console.tui.command.history import History
from console.tui.paint.cells import Cells
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut
from console.tui.widgets.line_edit import Line
from console.tui.widgets.typing_line import TypingLine

if TYPE_CHECKING:
    from console.tui.command.command import Known, Request
    from console.tui.command.grammar import Completion

_SHORTEST: Final = 16
"""Cells that what is being typed keeps beside a long note."""


class CommandLine(TypingLine):
    """Hidden until it is opened. Every key is its own: a `q` in a word must not leave the console."""

    DEFAULT_CSS = """
    CommandLine { display: none; height: 1; width: 100%; }
    """

    class Entered(Message):
        """The operator asks for something."""

        def __init__(self, request: Request) -> None:
            super().__init__()
            self.request = request

    class Closed(Message):
        """The line has been put away."""

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.line = Line()
        self.error = ""
        self.is_open = False
        self._known: Callable[[], Known]
        self._history: History
        self._cycle: tuple[Completion, int] | None = None

    def open(self, text: str, known: Callable[[], Known], history: History) -> None:
        """Take the keys, with `text` typed already."""
        self.line, self.error, self._cycle = Line.at_end(text), "", None
        self._known, self._history = known, history
        history.rewind()
        self.is_open = True
        self.display = True
        self.take_keys()
        self.repaint()

    def close(self) -> None:
        """Put the line away."""
        if self.is_open:
            self.is_open = False
            self.display = False
            self.post_message(self.Closed())

    def on_paste(self, event: Paste) -> None:
        event.stop()
        self._edit(self.line.insert(event.text.strip("\r\n")))

    def on_key(self, event: Key) -> None:
        event.stop()
        event.prevent_default()
        handler = _KEYS.get(event.key)
        if handler is not None:
            handler(self)
            return
        edited = self.line.key(event.key)
        if edited is not None:
            if event.key == "backspace" and not self.line.text:
                self.close()  # as in vi and k9s: deleting the colon leaves
                return
            self._edit(edited)
        elif event.is_printable and event.character:
            self._edit(self.line.insert(event.character))

    def _edit(self, line: Line) -> None:
        self.line, self.error, self._cycle = line, "", None
        self.repaint()

    def enter(self) -> None:
        """Ask for what the line says, or say what is wrong with it."""
        from console.tui.command.command import GrammarError
        from console.tui.command.grammar import parse

        try:
            request = parse(self.line.text, self._known())
        except GrammarError as error:
            self.error = str(error)
            self.repaint()
            return
        self._history.add(self.line.text)
        self.close()
        if request is not None:
            self.post_message(self.Entered(request))

    def turn(self, step: int) -> None:
        """Complete as far as is certain; then try one candidate after the other."""
        from console.tui.command import grammar

        if self._cycle is not None:
            found, at = self._cycle
            at = (at + step) % len(found.candidates)
            self._replace(found, found.candidates[at])
            self._cycle = found, at
            return
        found = grammar.complete(self.line.text, self.line.caret, self._known())
        word = self.line.text[found.start : self.line.caret]
        if len(found.candidates) == 1:
            self._replace(found, f"{found.candidates[0]} ")
        elif len(found.common) > len(word):
            self._replace(found, found.common)
        elif found.candidates:
            at = 0 if step > 0 else len(found.candidates) - 1
            self._replace(found, found.candidates[at])
            self._cycle = found, at

    def _replace(self, found: Completion, word: str) -> None:
        rest = self.line.text[self.line.caret :].lstrip()
        self._edit(Line(self.line.text[: found.start] + word + rest, found.start + len(word)))

    def older(self) -> None:
        """The line before in the history."""
        self._edit(Line.at_end(self._history.older(self.line.text)))

    def newer(self) -> None:
        """The line after in the history."""
        self._edit(Line.at_end(self._history.newer()))

    def _note(self) -> tuple[str, Ink]:
        from console.tui.command import grammar

        if self.error:
            return self.error, Ink.ALARM
        found = self._cycle[0] if self._cycle else grammar.complete(self.line.text, self.line.caret, self._known())
        here = self.line.text[found.start : self.line.caret]
        if self.line.text and found.candidates and found.candidates != (here,):
            chosen = self._cycle[1] if self._cycle else 0
            # From the one that is tried now on: the others are behind it.
            return "  ".join(found.candidates[chosen:]), Ink.DIM
        return grammar.hint(self.line.text, self._known()), Ink.DIM

    def paint(self, cells: Cells) -> None:
        if not self.is_open:
            return
        note, ink = self._note()
        cells.text(0, 0, ":", Ink.ACCENT)
        # An error is shown whole; a hint does not push what was typed out of sight.
        asked = len(note) if self.error else min(len(note), cells.width // 3)
        room = max(cells.width - asked - 4, min(_SHORTEST, cells.width - 2), 1)
        start = max(self.line.caret - room, 0)
        shown = self.line.text[start : start + room]
        cells.text(0, 1, shown, Ink.BRIGHT)
        caret = 1 + self.line.caret - start
        if caret < cells.width:
            cells.select(0, caret, caret + 1)
        at = 1 + len(shown) + 2
        left = cells.width - at - 1
        if left > 0:
            cells.text(0, at, cut(note, left), ink)


_KEYS: Final[dict[str, Callable[[CommandLine], None]]] = {
    "enter": CommandLine.enter,
    "escape": CommandLine.close,
    "tab": lambda line: line.turn(1),
    "shift+tab": lambda line: line.turn(-1),
    "up": CommandLine.older,
    "ctrl+p": CommandLine.older,
    "down": CommandLine.newer,
    "ctrl+n": CommandLine.newer,
}
