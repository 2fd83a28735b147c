"""The alarms of all watched runs: in the header, by bell or notification, and as a list."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from console.settings.keys import TABS
from console.tui.control.navigate import seek, show_step
from console.tui.notice import Notice
from driftline.frames import Level

if TYPE_CHECKING:
    from console.sentinels.alarm import Alarm
    from console.sentinels.watch import Sentinels
    from console.tui.host import Host

_SIGN: Final = {"warn": "!", "error": "!!"}


class Alarms:
    """New ones in the header and as was asked for at the start; those of the run on show in a list.

    Not in the footer: after an alarm the operator looks there for a key.
    """

    def __init__(self, app: Host) -> None:
        self._app = app
        self.news = Notice(app.notice.clock)
        """The newest alarm, or why the command for one failed."""

    def show_new(self) -> None:
        """Ring for those that are new, and show the newest in the header."""
        app = self._app
        for watch in app.watches:
            if watch.guard is None:
                continue
            text, alarms, complaints = watch.guard.collect(time.monotonic())
            if text:
                app.ring(text)
            # Of the run on show the header counts the alarms beside it, with their sign.
            other = watch is not app.showing
            said: list[tuple[str, Level]] = [
                (f"{_SIGN[one.level]} {watch.source.run}: {one.line}" if other else one.line, one.level)
                for one in alarms[:1]
            ]
            for words, level in [*said, *((f"! {one}", "warn") for one in complaints)]:
                self.news.show(words, level)

    def open(self) -> None:
        """List those of the run on show, to go where one came from."""
        # Not before it is asked for: the first frame is what an operator waits for.
        from console.tui.dialogs.alarms import AlarmsScreen

        if self._app.showing.guard is None:
            self._app.say("no sentinels are watching this run")
        else:
            self._app.push_screen(AlarmsScreen(self._app.glyphs, self._sentinels), self._go_to)

    def _sentinels(self) -> Sentinels | None:
        guard = self._app.showing.guard
        return guard.sentinels if guard is not None else None

    def _go_to(self, alarm: Alarm | None) -> None:
        """Show where an alarm came from: its engine, or its step on the charts; a recording goes to that step."""
        app = self._app
        if alarm is None:
            return
        if alarm.subject in app.model.engines and any(tab.id == "engines" for tab in TABS):
            app.action_screen("engines")
            if alarm.step >= 0:
                seek(app, alarm.step)
        elif alarm.step >= 0:
            show_step(app, alarm.step)
        else:
            app.action_screen("live")
        app.say(alarm.line, "info")
