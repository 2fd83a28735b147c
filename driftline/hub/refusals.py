"""Refusals for the audit log: the first of a kind at once, repetitions as a count now and then.

A client that is refused ten thousand times a second must not fill the disk with entries.
"""

from __future__ import annotations

from typing import Final

from driftline.audit import Entry
from driftline.hub.effects import Note, Now

REPEAT_SECONDS: Final = 10.0
_KINDS_KEPT: Final = 1024


class Refusals:
    """Counts refusals by kind and by the refused identity."""

    def __init__(self) -> None:
        self.total = 0
        self._recorded_at: dict[tuple[str, str], float] = {}
        self._unrecorded: dict[tuple[str, str], tuple[int, str]] = {}

    def count(self, kind: str, identity: str, text: str, now: Now) -> list[Note]:
        """Count one; the effects record it if it is time to."""
        self.total += 1
        key = (kind, identity)
        if key not in self._recorded_at and len(self._recorded_at) >= _KINDS_KEPT:
            key = (kind, "others")
        count = self._unrecorded.get(key, (0, ""))[0] + 1
        if now.mono - self._recorded_at.get(key, float("-inf")) < REPEAT_SECONDS:
            self._unrecorded[key] = count, text
            return []
        return [self._record(key, count, text, now)]

    def due_notes(self, now: Now) -> list[Note]:
        """Entries for counts that have not been recorded for REPEAT_SECONDS."""
        ready = [key for key in self._unrecorded if now.mono - self._recorded_at[key] >= REPEAT_SECONDS]
        notes = [self._record(key, *self._unrecorded[key], now) for key in ready]
        for key in [k for k, recorded in self._recorded_at.items() if now.mono - recorded > 2 * REPEAT_SECONDS]:
            del self._recorded_at[key]
        return notes

    def all_notes(self, now: Now) -> list[Note]:
        """Entries for all counts not recorded yet, for the end of the hub."""
        return [self._record(key, *self._unrecorded[key], now) for key in list(self._unrecorded)]

    def _record(self, key: tuple[str, str], count: int, text: str, now: Now) -> Note:
        self._recorded_at[key] = now.mono
        self._unrecorded.pop(key, None)
        kind, identity = key
        return Note(Entry(f"refused.{kind}", now.wall, identity, text=text, data={"count": count}))
