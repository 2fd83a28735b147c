"""The alarms of the run on show: those that stand, then those that are over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from console.formatting import clock
from console.sentinels.alarm import Alarm
from console.sentinels.watch import Sentinels
from console.tui.bindings import bindings
from console.tui.dialogs.dialog import Row, folded
from console.tui.dialogs.list_dialog import ListDialog
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import number

_DETAIL: Final = 4
"""Lines below the list for the whole sentence of the chosen alarm."""


class AlarmsScreen(ListDialog[Alarm, Alarm]):
    """Returns the alarm to jump to, or None."""

    BINDINGS = bindings("dialog", "alarms")
    heading = "alarms"
    hint = "enter go there  a seen  * all seen  esc close"
    preferred_width = 96

    def __init__(self, glyphs: Glyphs, sentinels: Callable[[], Sentinels | None]) -> None:
        super().__init__(glyphs, self._listed, _line, lambda alarm: alarm, key=lambda alarm: alarm.number, note=_note)
        self._sentinels = sentinels

    def _listed(self) -> list[Alarm]:
        """Standing ones, errors first, then those that are over, the newest first."""
        sentinels = self._sentinels()
        return [*sentinels.standing, *sentinels.history] if sentinels is not None else []

    def head(self, width: int) -> list[Row]:  # noqa: ARG002  its columns have fixed widths
        return [_HEAD] if self.items() else []

    def empty(self) -> list[Row]:
        sentinels = self._sentinels()
        count = len(list(sentinels.rules)) if sentinels is not None else 0
        return [[(f"none; {count} rules are watching (driftline sentinels show)", Ink.DIM)]]

    def action_acknowledge(self, everything: bool = False) -> None:
        """Mark the chosen alarm, or all of them, as seen: the bell is silent then."""
        sentinels, chosen = self._sentinels(), self.chosen
        if sentinels is not None and chosen is not None:
            sentinels.acknowledge(None if everything else [chosen.number])
            self.cursor_key = chosen.number
            self.fit_box()


def _note(alarm: Alarm, width: int) -> list[Row]:
    return [[], *folded([(alarm.line, Ink.BRIGHT)], width, _DETAIL)]


_HEAD: Final[Row] = [(f"   {'rule':<17}{'step':>8} {'value':>8}  {'state':<7} {'since':<9} what", Ink.DIM)]


def _line(alarm: Alarm, _width: int) -> Row:
    standing = alarm.state == "raised"
    sign, ink = ("!!", Ink.ALARM) if alarm.level == "error" else (" !", Ink.WARN)
    if not standing:
        sign, ink = "  ", Ink.DIM
    state = "over" if not standing else "seen" if alarm.acknowledged else "raised"
    step = str(alarm.step) if alarm.step >= 0 else "-"
    return [
        (f"{sign} ", ink),
        (f"{alarm.rule[:16]:<17}", ink if standing and not alarm.acknowledged else Ink.TEXT if standing else Ink.DIM),
        (f"{step:>8} {number(alarm.value):>8}  ", Ink.TEXT if standing else Ink.DIM),
        (f"{state:<7} ", ink if state == "raised" else Ink.DIM),
        (f"{clock(alarm.time):<9} ", Ink.DIM),
        (alarm.text if standing else alarm.cleared_text, Ink.DIM),
    ]
