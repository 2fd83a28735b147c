"""A line being typed: text, caret, and what the keys of every shell make of it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from console.tui.paint.clean_text import clean

LONGEST: Final = 500
"""Characters that are taken; what is longer is a paste that went astray."""


class Line(msgspec.Struct, frozen=True):
    """`caret` counts characters from the start."""

    text: str = ""
    caret: int = 0

    def insert(self, text: str, longest: int = LONGEST) -> Line:
        """With something written at the caret, made one printable line, as far as `longest` characters have room."""
        text = clean(text)[: max(longest - len(self.text), 0)]
        return Line(self.text[: self.caret] + text + self.text[self.caret :], self.caret + len(text))

    def key(self, key: str) -> Line | None:
        """With an editing key applied, by Textual's name of it; None for a key that edits nothing."""
        edit = _KEYS.get(key)
        return edit(self) if edit is not None else None

    @staticmethod
    def at_end(text: str) -> Line:
        """A text with the caret at its end."""
        return Line(text, len(text))

    def _to(self, caret: int) -> Line:
        return Line(self.text, max(min(caret, len(self.text)), 0))

    def _cut(self, start: int, stop: int) -> Line:
        start = max(start, 0)
        return Line(self.text[:start] + self.text[stop:], start)

    def _word(self) -> Line:
        kept = self.text[: self.caret].rstrip().rpartition(" ")
        return self._cut(len(kept[0]) + len(kept[1]), self.caret)


_KEYS: Final[dict[str, Callable[[Line], Line]]] = {
    "backspace": lambda line: line._cut(line.caret - 1, line.caret),
    "ctrl+h": lambda line: line._cut(line.caret - 1, line.caret),
    "delete": lambda line: Line(line.text[: line.caret] + line.text[line.caret + 1 :], line.caret),
    "ctrl+u": lambda line: line._cut(0, line.caret),
    "ctrl+k": lambda line: Line(line.text[: line.caret], line.caret),
    "ctrl+w": lambda line: line._word(),
    "left": lambda line: line._to(line.caret - 1),
    "right": lambda line: line._to(line.caret + 1),
    "home": lambda line: line._to(0),
    "ctrl+a": lambda line: line._to(0),
    "end": lambda line: line._to(len(line.text)),
    "ctrl+e": lambda line: line._to(len(line.text)),
}
