"""The help screen: the table of keys, and what the symbols mean."""

from __future__ import annotations

from typing import Final

from console.tui.bindings import KEYS, Key, Where
from console.tui.glyphs import Glyphs
from console.tui.screens.dialog import Dialog
from console.tui.theme import Ink
from console.tui.widgets.cells import Text

_KEY_WIDTH: Final = 10


class HelpScreen(Dialog[None]):
    """Generated, so that it cannot be wrong about a key."""

    heading = "help"
    hint = "↑ ↓ scroll  esc close"
    preferred_width = 76

    def __init__(self, glyphs: Glyphs, *, operator: bool, where: Where = "live") -> None:
        super().__init__(glyphs)
        self.operator = operator
        self.where = where
        self._top = 0

    def lines(self, width: int) -> list[list[Text]]:  # noqa: ARG002  nothing here depends on it
        here = [key for key in KEYS if key.where == self.where and not key.acts_on_run]
        view = [key for key in KEYS if key.where in ("screens", "everywhere") and not key.acts_on_run]
        acting = [key for key in KEYS if key.acts_on_run]
        how = "" if self.operator else " (read-only now: start with --operate)"
        lines: list[list[Text]] = [[(f"Capitals act on the run{how}", Ink.WARN if self.operator else Ink.DIM)]]
        lines += [_line(key) for key in acting]
        if here:
            lines += [[], [(f"On the {self.where} screen", Ink.BRIGHT)], *(_line(key) for key in here)]
        lines += [[], [("Everywhere", Ink.BRIGHT)], *(_line(key) for key in view)]
        glyphs = self.glyphs
        lines += [[], [("Symbols", Ink.BRIGHT)]]
        for symbol, ink, meaning in (
            (glyphs.on, Ink.OK, "on: every engine has reported it"),
            (glyphs.partial, Ink.WARN, "wanted and not yet reported by every engine"),
            (glyphs.off, Ink.TEXT, "off: vLLM's default behaviour"),
            (glyphs.unavailable, Ink.DIM, "not available here; the panel says why"),
            (glyphs.mark, Ink.FIX_MARK, "in a chart: a fix changed at this step"),
            (glyphs.mark, Ink.SYNC_MARK, "in a chart: an operator synced the weights"),
            (glyphs.gap, Ink.ALARM, "in a chart: NaN or Inf at this step"),
            (glyphs.limit, Ink.LIMIT_ALARM, "in a chart: published limit (warn, alarm)"),
            ("0.47!", Ink.ALARM, "a value beyond its published alarm limit"),
        ):
            lines.append([(f"  {symbol:<{_KEY_WIDTH}}", ink), (meaning, Ink.TEXT)])
        return lines

    def top(self, height: int) -> int:
        self._top = max(min(self._top, len(self.lines(0)) - height), 0)
        return self._top

    def action_line(self, step: int) -> None:
        self._top += step
        self.fit_box()

    def action_choose(self) -> None:
        self.dismiss(None)


def _line(key: Key) -> list[Text]:
    return [
        (f"  {key.shown:<{_KEY_WIDTH}}", Ink.WARN if key.acts_on_run else Ink.ACCENT),
        (key.description, Ink.TEXT),
    ]
