"""The palette: every command and every key of this screen in one list, found by a few letters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from textual.events import Key as KeyEvent
from textual.events import Paste

from console.settings.keys import Key, Where
from console.tui.command.command import Command
from console.tui.command.fuzzy import match
from console.tui.command.table import COMMANDS
from console.tui.dialogs.dialog import Row
from console.tui.dialogs.list_dialog import ListDialog
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.widgets.line_edit import Line

_NAME: Final = 24
"""Cells of the column of keys and commands."""
_MOVING: Final = frozenset({"left", "right", "up", "down", "next", "previous", "back"})
"""Keys that move: useless in a list that is itself moved in."""


@dataclass(frozen=True)
class Entry:
    """One line of the list: a command of the command line, or a key of the table."""

    shown: str
    text: str
    acts_on_run: bool
    what: Command[Any] | Key

    @property
    def searched(self) -> str:
        """The text that is searched: the line as it is shown."""
        return f"{self.shown} {self.text}"


Found = tuple[Entry, tuple[int, ...]]
"""An entry, and the places of its text at which it fits what was typed."""


def entries(keys: tuple[Key, ...], where: Where) -> list[Entry]:
    """Everything that can be done here, commands first."""
    own = [
        key
        for key in keys
        if key.where in ("everywhere", "screens", where) and not (key.where == "screens" and key.id in _MOVING)
    ]
    return [
        *(Entry(command.shown, command.summary, command.acts_on_run, command) for command in COMMANDS),
        *(Entry(key.shown, key.description, key.acts_on_run, key) for key in own),
    ]


class Palette(ListDialog[Found, Entry]):
    """Returns the chosen entry, or None."""

    heading = "commands and keys"
    hint = "↑ ↓ enter  esc close"
    preferred_width = 84

    def __init__(self, glyphs: Glyphs, offered: list[Entry], *, operator: bool) -> None:
        super().__init__(glyphs, self._found, self._entry, lambda found: found[0])
        self._offered = offered
        self._operator = operator
        self.query_line = Line()

    def _found(self) -> list[Found]:
        """The entries that fit, best first."""
        if not self.query_line.text.strip():
            return [(entry, ()) for entry in self._offered]
        fits = [(entry, match(self.query_line.text, entry.searched)) for entry in self._offered]
        ranked = [(entry, fit) for entry, fit in fits if fit is not None]
        ranked.sort(key=lambda pair: -pair[1][0])
        return [(entry, fit[1]) for entry, fit in ranked]

    def on_key(self, event: KeyEvent) -> None:
        """Letters go into the query; only keys that are none are those of every dialog."""
        edited = None if event.key in ("left", "right") else self.query_line.key(event.key)
        if edited is None and event.is_printable and event.character:
            edited = self.query_line.insert(event.character)
        if event.key in ("tab", "ctrl+n", "shift+tab", "ctrl+p"):
            self.action_line(1 if event.key in ("tab", "ctrl+n") else -1)
        elif edited is not None:
            self._look_for(edited)
        else:
            return
        event.stop()
        event.prevent_default()

    def on_paste(self, event: Paste) -> None:
        event.stop()
        self._look_for(self.query_line.insert(event.text))

    def _look_for(self, query: Line) -> None:
        self.query_line, self.cursor_key = query, None
        self.fit_box()

    def head(self, width: int) -> list[Row]:  # noqa: ARG002  clipped where painted
        return [[
            ("> ", Ink.ACCENT), (self.query_line.text, Ink.BRIGHT), ("_", Ink.DIM),
            ("" if self.items() else "  nothing fits", Ink.WARN),
        ]]  # fmt: skip

    def lines(self, width: int) -> list[Row]:
        lines = super().lines(width)
        # As many lines whatever fits, so that the box does not jump at every letter.
        return lines + [[]] * (1 + min(len(self._offered), self.room(1)) - len(lines))

    def _entry(self, found: Found, _width: int) -> Row:
        entry, places = found
        plain = Ink.ACCENT if not entry.acts_on_run else Ink.WARN if self._operator else Ink.DIM
        shown = len(entry.shown)
        line = [(char, Ink.BRIGHT if at in places else plain) for at, char in enumerate(entry.shown)]
        line.append((" " * max(_NAME - shown, 1), plain))
        line += [(char, Ink.BRIGHT if shown + 1 + at in places else Ink.TEXT) for at, char in enumerate(entry.text)]
        return line
