"""The sentinels of one watched run, and how its alarms reach the operator of this console."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from console.connect.source import Link
from console.sentinels.alarm import Alarm
from console.sentinels.notify import Alerts, Ringer, Runner
from console.sentinels.rules import Rules
from console.sentinels.watch import Sentinels
from console.store.model import RunModel

Guards = Callable[[str], "Guard"]
"""Makes the guard of a run, by its name."""


class Guard:
    """The reader's thread looks, with the model's lock held; everything else is the app's thread."""

    def __init__(self, rules: Rules, alerts: Alerts, run: str) -> None:
        """`run` is the run's name in notifications; a command is run only where `alerts` has one."""
        self.sentinels = Sentinels(rules)
        self._ringer = Ringer(alerts, run)
        self._new: deque[Alarm] = deque()
        self._complaints: deque[str] = deque()
        self._runner = Runner(alerts.command, run, self._complaints.append) if alerts.command else None

    def check(self, model: RunModel, now: float, link: Link, *, settled: bool) -> None:
        """Let the sentinels see what is new; `settled` is False while more frames are waiting."""
        self.sentinels.update(model, now, link)
        if settled:
            self._new += self.sentinels.take_new_alarms(link)

    def discard_past(self, link: Link) -> None:
        """Drop the alarms raised so far: they are the past of a recording that has just been opened there."""
        self.sentinels.take_new_alarms(link)

    def collect(self, now: float) -> tuple[str, list[Alarm], list[str]]:
        """The bytes to write to the terminal now, the new alarms, and the complaints of a command that failed."""
        alarms = [self._new.popleft() for _ in range(len(self._new))]
        if self._runner is not None and alarms:
            self._runner.send(alarms)
        text = self._ringer.output(alarms, self.sentinels.standing, now)
        return text, alarms, [self._complaints.popleft() for _ in range(len(self._complaints))]

    def close(self) -> None:
        """End what is still being run."""
        if self._runner is not None:
            self._runner.close()


def guards(rules: Rules, alerts: Alerts) -> Guards:
    """Guards with the same rules and notifications for every run."""
    return lambda run: Guard(rules, alerts, run)
