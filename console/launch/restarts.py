"""When a process that has died is started again: after a pause that grows with its deaths of late. Pure.

There is no number of deaths after which a process is given up: it watches the run, and the run does not depend on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec


class Backoff(msgspec.Struct, frozen=True):
    """`pauses` in seconds by the number of deaths within the last `window` seconds; the last one is the longest.

    `window` should be several times the longest pause: otherwise deaths fall out of it while they go on.
    """

    pauses: tuple[float, ...]
    window: float = 600.0


HUB: Final = Backoff((0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0))
"""Producers hold their frames while the hub is away, as far as their rings reach: the first restart is at once."""

STANDBY: Final = Backoff((0.0, 1.0, 2.0, 5.0, 15.0, 60.0))
TAKEOVER: Final = Backoff((0.0, 0.0, 1.0, 5.0, 15.0, 60.0))
"""A supervisor that dies of its own mistake must not be one process a second for a month."""

COMPACTION: Final = Backoff((1.0, 2.0, 5.0, 15.0, 60.0))


class Restarts:
    """The deaths of one process, and the time of its next start. Times are seconds on any monotonic clock."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._deaths: deque[float] = deque()
        self._next: float | None = None

    def carry(self, ages: Iterable[float], now: float) -> None:
        """Go on with the deaths that another supervisor has counted, `ages` seconds ago; older ones do not count."""
        before = sorted(now - max(age, 0.0) for age in ages if age <= self._backoff.window)
        self._deaths.extendleft(reversed(before))

    def died(self, now: float) -> float:
        """Count a death; returns the pause in seconds until the next start."""
        self._deaths.append(now)
        while self._deaths[0] < now - self._backoff.window:
            self._deaths.popleft()
        pause = self._backoff.pauses[min(len(self._deaths), len(self._backoff.pauses)) - 1]
        self._next = now + pause
        return pause

    @property
    def deaths(self) -> int:
        """Deaths within the window, as of the newest."""
        return len(self._deaths)

    def ages(self, now: float) -> list[float]:
        """Seconds since each of those deaths, the oldest first."""
        return [now - death for death in self._deaths]

    @property
    def waiting(self) -> bool:
        """True from a death to the next start."""
        return self._next is not None

    @property
    def window(self) -> float:
        """Seconds for which a death counts."""
        return self._backoff.window

    @property
    def next(self) -> float | None:
        """When it is started again, None while that is not waited for."""
        return self._next

    def due(self, now: float) -> bool:
        """True when the pause is over."""
        return self._next is not None and now >= self._next

    def started(self) -> None:
        """The process has been started again."""
        self._next = None

    def text(self, pause: float) -> str:
        """A clause: when it starts again, and how often it has died of late."""
        when = f"in {pause:g} s" if pause else "at once"
        if len(self._deaths) < 2:
            return when
        return f"{when}, {len(self._deaths)} deaths within {self._backoff.window / 60:g} min"
