"""Garbage of a console that runs for days: looked for now and then, however little there is."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

from driftline import heap

PAUSE: Final = 30.0
"""Seconds between two collections, at least."""
SHARE: Final = 1000
"""A collection follows after so many times as long as the last one took: a thousandth of the time at most."""


class Collector:
    """Collects all garbage at intervals, from the thread that asks.

    Python does it by counts, and only once a quarter of what lives is new: what Textual's layouts leave in circles
    waits for most of an hour then. What it took is given back to the system.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, collect: Callable[[], object] = gc.collect) -> None:
        """`clock` gives seconds of any origin."""
        self._clock, self._collect = clock, collect
        self._next = clock() + PAUSE

    def tick(self) -> bool:
        """Collect if it is time; whether it was. Nothing where a start has not settled (`fast_start.settle`)."""
        began = self._clock()
        if began < self._next or not gc.get_freeze_count():
            return False
        self._collect()
        heap.trim()
        ended = self._clock()
        self._next = ended + max(PAUSE, SHARE * (ended - began))
        return True
