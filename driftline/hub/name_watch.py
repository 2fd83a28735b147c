"""Watches for producers that make too many names, which everything that holds something by name must drop some of.

The hub itself holds no numbers; consoles hold a series for each name of a metric, at most NAMES_KEPT of them. So the
hub counts names, by a hash of each, until there are that many, and then says which producer made the most of them.
"""

from __future__ import annotations

from typing import Final

from driftline.catalog.metrics import NAMES_KEPT
from driftline.frames import Event, Frame, Metrics
from driftline.hub.effects import Now

TOO_MANY: Final = "names.too_many"
"""Kind of the event."""
PRODUCERS_KEPT: Final = 64


class NameWatch:
    """Counts the names of metrics; `crowded` is a sentence once there are too many of anything, "" before."""

    def __init__(self, most: int = NAMES_KEPT) -> None:
        self._most = most
        self._known: set[int] = set()
        self._made: dict[str, int] = {}
        self._full = False
        self._reported: set[tuple[str, str]] = set()
        self._waiting: list[tuple[str, str, int]] = []
        self.crowded = ""

    def count(self, producer: str, frame: Frame) -> None:
        """Count the names of a frame that is in the journal."""
        if self._full or not isinstance(frame, Metrics) or self._known.issuperset(map(hash, frame.values)):
            return
        before = len(self._known)
        self._known.update(map(hash, frame.values))
        if producer in self._made or len(self._made) < PRODUCERS_KEPT:
            self._made[producer] = self._made.get(producer, 0) + len(self._known) - before
        if len(self._known) > self._most:
            self._full = True
            self._known.clear()
            self.add(max(self._made, key=lambda name: self._made[name]), "metrics", self._most)

    def add(self, producer: str, what: str, most: int) -> None:
        """A producer has made more names of something than are kept; reported once for each."""
        if (producer, what) not in self._reported and len(self._reported) < PRODUCERS_KEPT:
            self._reported.add((producer, what))
            self._waiting.append((producer, what, most))
            self.crowded = f"{producer} makes more than {most:,} names of {what}: the newest are kept in memory"

    def due(self, now: Now) -> list[Event]:
        """Events that are to be published."""
        events = []
        for producer, what, most in self._waiting:
            text = (
                f"TOO MANY NAMES: {producer} makes more than {most:,} names of {what}: the newest are kept in memory, "
            )
            data: dict[str, str | float | int | bool] = {"producer": producer, "what": what, "kept": most}
            events.append(Event(now.wall, "warn", TOO_MANY, f"{text}the journal has them all", data=data))
        self._waiting.clear()
        return events
