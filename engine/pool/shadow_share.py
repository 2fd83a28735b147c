"""How much is scored: the share of the groups that is wanted, less while the scoring engine falls behind. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

RECENT: Final = 8
LATE: Final = 4
"""With so many of the recent groups too late, the share is halved."""
IN_TIME: Final = 16
"""After so many groups in time, one after the other, it is doubled again, up to the one that is wanted."""
LEAST: Final = 1 / 64
"""The share shrinks no further than to this part of the wanted one: it has to be seen when there is room again."""


class Share:
    """`effective` is the fraction of the groups that `take` says yes to."""

    def __init__(self, wanted: float) -> None:
        self.wanted = self.effective = wanted
        self._credit = 0.0
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._in_time = 0

    def set(self, wanted: float) -> None:
        """Another share from the next group on, with a clean record."""
        self.wanted = self.effective = wanted
        self._credit = 0.0
        self._recent.clear()
        self._in_time = 0

    def take(self) -> bool:
        """Whether the group that has just been sampled is one of the share: spread evenly, not drawn."""
        self._credit += self.effective
        if self._credit < 1.0 - 1e-9:
            return False
        self._credit -= 1.0
        return True

    def late(self) -> bool:
        """A group of the share came too late, or found no room. True when the share is smaller for it."""
        self._in_time = 0
        self._recent.append(True)
        least = self.wanted * LEAST
        if sum(self._recent) < LATE or self.effective <= least:
            return False
        self.effective = max(least, self.effective / 2)
        self._recent.clear()
        return True

    def in_time(self) -> bool:
        """A group of the share was scored. True when the share is back at the wanted one with it."""
        self._recent.append(False)
        self._in_time += 1
        if self._in_time < IN_TIME or self.effective >= self.wanted:
            return False
        self._in_time = 0
        self.effective = min(self.wanted, self.effective * 2)
        return self.effective == self.wanted
