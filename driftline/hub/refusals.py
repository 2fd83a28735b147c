"""Who was turned away, for the audit log: the first time at once, a repetition as a count now and then.

Somebody who knocks ten thousand times a second must not fill the disk with it.
"""

from __future__ import annotations

from typing import Final

from driftline.audit import Entry
from driftline.hub.effects import Note, Now

REPEAT_SECONDS: Final = 10.0
_KINDS_KEPT: Final = 1024


class Refusals:
    """Counts refusals by kind and by who was refused."""

    def __init__(self) -> None:
        self.total = 0
        self._told: dict[tuple[str, str], float] = {}
        self._untold: dict[tuple[str, str], tuple[int, str]] = {}

    def note(self, kind: str, who: str, text: str, now: Now) -> list[Note]:
        """Count one; the effects record it if it is time to."""
        self.total += 1
        key = (kind, who)
        if key not in self._told and len(self._told) >= _KINDS_KEPT:
            key = (kind, "others")
        count = self._untold.get(key, (0, ""))[0] + 1
        if now.mono - self._told.get(key, float("-inf")) < REPEAT_SECONDS:
            self._untold[key] = count, text
            return []
        return [self._tell(key, count, text, now)]

    def due(self, now: Now) -> list[Note]:
        """What was counted and not told for a while."""
        ready = [key for key in self._untold if now.mono - self._told[key] >= REPEAT_SECONDS]
        notes = [self._tell(key, *self._untold[key], now) for key in ready]
        for key in [k for k, told in self._told.items() if now.mono - told > 2 * REPEAT_SECONDS]:
            del self._told[key]
        return notes

    def rest(self, now: Now) -> list[Note]:
        """Everything not told yet, at the hub's end."""
        return [self._tell(key, *self._untold[key], now) for key in list(self._untold)]

    def _tell(self, key: tuple[str, str], count: int, text: str, now: Now) -> Note:
        self._told[key] = now.mono
        self._untold.pop(key, None)
        kind, who = key
        return Note(Entry(f"refused.{kind}", now.wall, who, text=text, data={"count": count}))
