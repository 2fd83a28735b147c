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
        """`run` is the run's name in what is told; a command is run only where `alerts` has one."""
        self.sentinels = Sentinels(rules)
        self._ringer = Ringer(alerts, run)
        self._told: deque[Alarm] = deque()
        self._complaints: deque[str] = deque()
        self._runner = Runner(alerts.command, run, self._complaints.append) if alerts.command else None

    def look(self, model: RunModel, now: float, link: Link, *, settled: bool) -> None:
        """Let the sentinels see what is new; `settled` is False while more frames are waiting."""
        self.sentinels.update(model, now, link)
        if settled:
            self._told += self.sentinels.take_new_alarms(link)

    def hush(self, link: Link) -> None:
        """Tell nobody of what was raised so far: it is the past of a recording that has just been opened there."""
        self.sentinels.take_new_alarms(link)

    def turn(self, now: float) -> tuple[str, list[Alarm], list[str]]:
        """What to write to the terminal now, the alarms to tell of, and what went wrong with a command."""
        told = [self._told.popleft() for _ in range(len(self._told))]
        if self._runner is not None and told:
            self._runner.send(told)
        text = self._ringer.output(told, self.sentinels.standing, now)
        return text, told, [self._complaints.popleft() for _ in range(len(self._complaints))]

    def close(self) -> None:
        """End what is still being run."""
        if self._runner is not None:
            self._runner.close()


def guards(rules: Rules, alerts: Alerts) -> Guards:
    """Guards with the same rules and ways of telling for every run."""
    return lambda run: Guard(rules, alerts, run)
