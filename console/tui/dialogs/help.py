"""The help screen: the table of keys, the commands, and what the symbols mean. `/` finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from textual.events import Key as KeyEvent

from console.settings.keys import KEYS, TABS, Key, Where
from console.tui.bindings import bindings
from console.tui.command.fuzzy import match
from console.tui.command.table import COMMANDS
from console.tui.dialogs.dialog import Dialog
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.widgets.line_edit import Line

_KEY_WIDTH: Final = 10
_COMMAND_WIDTH: Final = 24

Row = list[Text]
Section = tuple[str, Ink, list[Row]]


class HelpScreen(Dialog[None]):
    """Generated, so that it cannot be wrong about a key: `keys` is the table as the operator has mapped it."""

    BINDINGS = bindings("dialog", "help")
    preferred_width = 100

    def __init__(
        self, glyphs: Glyphs, *, operator: bool, where: Where = "live", keys: Sequence[Key] = KEYS, replay: bool = False
    ) -> None:
        super().__init__(glyphs)
        self.operator = operator
        self.where = where
        self.keys = keys
        self.replay = replay
        self.search: Line | None = None
        self._typing = False
        self._top = 0

    @property
    def heading(self) -> str:  # type: ignore[override]  # fixed words elsewhere, here they follow the search
        if self.search is None:
            return "help"
        return f"help /{self.search.text}{'_' if self._typing else ''}"

    @property
    def hint(self) -> str:  # type: ignore[override]  # as above
        if self._typing:
            return "enter keep  esc all"
        return "↑ ↓ scroll  / find  esc close" if self.search is None else "↑ ↓ scroll  / find  esc all"

    def _sections(self) -> list[Section]:
        keys = self.keys
        here = [key for key in keys if key.where == self.where and not key.acts_on_run]
        view = [key for key in keys if key.where in ("screens", "everywhere") and not key.acts_on_run]
        acting = [key for key in keys if key.acts_on_run]
        how = "" if self.operator else " (read-only now: start with --operate)"
        word = next((tab.word for tab in TABS if tab.id == self.where), self.where)
        sections: list[Section] = [
            (f"Capitals act on the run{how}", Ink.WARN if self.operator else Ink.DIM, [_line(key) for key in acting]),
            (f"On the {word} screen", Ink.BRIGHT, [_line(key) for key in here]),
            ("Everywhere", Ink.BRIGHT, [_line(key) for key in view]),
        ]
        if self.replay:
            playing = [_line(key) for key in keys if key.where == "replay"]
            sections.append(("In a recording", Ink.BRIGHT, playing))
        sections += [
            ("Command line (: then a command; tab completes)", Ink.BRIGHT, _commands()),
            ("Symbols", Ink.BRIGHT, self._symbols()),
        ]
        return sections

    def _symbols(self) -> list[Row]:
        glyphs = self.glyphs
        meanings = (
            (glyphs.on, Ink.OK, "on: every engine has reported it"),
            (glyphs.partial, Ink.WARN, "wanted and not yet reported by every engine"),
            (glyphs.off, Ink.TEXT, "off: vLLM's default behaviour"),
            (glyphs.unavailable, Ink.DIM, "not available here; the panel says why"),
            (glyphs.mark, Ink.FIX_MARK, "in a chart: a fix changed at this step"),
            (glyphs.mark, Ink.SECOND, "in a chart: the objective took another correction at this step"),
            (glyphs.mark, Ink.SYNC_MARK, "in a chart: an operator synced the weights"),
            (glyphs.gap, Ink.ALARM, "in a chart: NaN or Inf at this step"),
            (glyphs.limit, Ink.LIMIT_ALARM, "in a chart: published limit (warn, alarm)"),
            ("0.47!", Ink.ALARM, "a value beyond its published alarm limit"),
            ("- - -", Ink.OVERLAY, "in a chart: another watched run, drawn over this one"),
        )
        return [[(f"  {symbol:<{_KEY_WIDTH}}", ink), (meaning, Ink.TEXT)] for symbol, ink, meaning in meanings]

    def lines(self, width: int) -> list[list[Text]]:  # noqa: ARG002  nothing here depends on it
        lines: list[Row] = []
        query = self.search.text if self.search is not None else ""
        for title, ink, rows in self._sections():
            kept = [row for row in rows if not query or match(query, "".join(text for text, _ in row)) is not None]
            if kept:
                lines += [*([[]] if lines else []), [(title, ink)], *kept]
        return lines or [[("nothing fits", Ink.WARN)]]

    def top(self, height: int) -> int:
        self._top = max(min(self._top, len(self.lines(0)) - height), 0)
        return self._top

    def on_key(self, event: KeyEvent) -> None:
        """While something is looked for, letters go into it."""
        if not self._typing or self.search is None:
            return
        edited = self.search.key(event.key)
        if edited is None and event.is_printable and event.character:
            edited = self.search.insert(event.character)
        if edited is not None:
            self._look_for(edited)
        elif event.key == "enter":
            self._typing = False
            self.fit_box()
        else:
            return
        event.stop()
        event.prevent_default()

    def _look_for(self, search: Line | None) -> None:
        self.search, self._top = search, 0
        self.fit_box()

    def action_find(self) -> None:
        self._typing = True
        self._look_for(Line())

    def action_line(self, step: int) -> None:
        self._top += step
        self.fit_box()

    def action_page(self, step: int) -> None:
        self._top += step * max(self.box.size.height - 3, 1)
        self.fit_box()

    def action_choose(self) -> None:
        self.dismiss(None)

    def action_close(self) -> None:
        """One level out: the search first."""
        if self.search is not None:
            self._typing = False
            self._look_for(None)
        else:
            self.dismiss(None)


def _commands() -> list[Row]:
    return [
        [
            (f"  {command.shown:<{_COMMAND_WIDTH}} ", Ink.WARN if command.acts_on_run else Ink.ACCENT),
            (command.summary, Ink.TEXT),
        ]
        for command in COMMANDS
    ]


def _line(key: Key) -> Row:
    return [
        (f"  {key.shown:<{_KEY_WIDTH}} ", Ink.WARN if key.acts_on_run else Ink.ACCENT),
        (key.description, Ink.TEXT),
    ]
