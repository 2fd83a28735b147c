"""The alarms of the run on show: those that stand, then those that are over."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Final

from console.formatting import clock
from console.sentinels.alarm import Alarm
from console.sentinels.watch import Sentinels
from console.tui.bindings import bindings
from console.tui.dialogs.dialog import Dialog
from console.tui.paint.axis import number
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink

_DETAIL: Final = 4
"""Lines below the list for the whole sentence of the chosen alarm."""


class AlarmsScreen(Dialog[Alarm]):
    """Returns the alarm to jump to, or None. The cursor stays with its alarm while others come and go."""

    BINDINGS = bindings("dialog", "alarms")
    heading = "alarms"
    hint = "enter go there  a seen  * all seen  esc close"
    preferred_width = 96

    def __init__(self, glyphs: Glyphs, sentinels: Callable[[], Sentinels | None]) -> None:
        super().__init__(glyphs)
        self._sentinels = sentinels
        self._chosen: int | None = None

    @property
    def alarms(self) -> list[Alarm]:
        """As listed: standing ones, errors first, then those that are over, the newest first."""
        sentinels = self._sentinels()
        return [*sentinels.standing, *sentinels.history] if sentinels is not None else []

    @property
    def chosen(self) -> Alarm | None:
        """The alarm under the cursor."""
        alarms = self.alarms
        return next((alarm for alarm in alarms if alarm.number == self._chosen), alarms[0] if alarms else None)

    def lines(self, width: int) -> list[list[Text]]:
        alarms = self.alarms
        if not alarms:
            rules = self._sentinels()
            count = sum(1 for _ in rules.rules) if rules is not None else 0
            return [[(f"none; {count} rules are watching (driftline sentinels show)", Ink.DIM)]]
        shown = [_line(alarm) for alarm in self._window(alarms)]
        chosen = self.chosen
        assert chosen is not None, "there are alarms"
        detail = [*textwrap.wrap(chosen.line, max(width - 2, 10)), *[""] * _DETAIL][:_DETAIL]
        return [_HEAD, *shown, [], *([(f" {part}", Ink.BRIGHT)] for part in detail)]

    def _window(self, alarms: list[Alarm]) -> list[Alarm]:
        """The alarms around the cursor for which there is room between head and detail."""
        room = max(self.app.size.height - 2 - 2 - 2 - _DETAIL, 1)
        at = self._at(alarms)
        top = min(max(at - room // 2, 0), max(len(alarms) - room, 0))
        return alarms[top : top + room]

    def _at(self, alarms: list[Alarm]) -> int:
        chosen = self.chosen
        return next((i for i, alarm in enumerate(alarms) if chosen is not None and alarm.number == chosen.number), 0)

    def selected(self) -> int | None:
        alarms = self.alarms
        return 1 + self._at(self._window(alarms)) if alarms else None

    def action_line(self, step: int) -> None:
        alarms = self.alarms
        if alarms:
            self._chosen = alarms[(self._at(alarms) + step) % len(alarms)].number
            self.fit_box()

    def action_choose(self) -> None:
        self.dismiss(self.chosen)

    def action_acknowledge(self, everything: bool = False) -> None:
        """Mark the chosen alarm, or all of them, as seen: the bell is silent then."""
        sentinels, chosen = self._sentinels(), self.chosen
        if sentinels is not None and chosen is not None:
            sentinels.acknowledge(None if everything else [chosen.number])
            self._chosen = chosen.number
            self.fit_box()


_HEAD: Final[list[Text]] = [(f"   {'rule':<17}{'step':>8} {'value':>8}  {'state':<7} {'since':<9} what", Ink.DIM)]


def _line(alarm: Alarm) -> list[Text]:
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
