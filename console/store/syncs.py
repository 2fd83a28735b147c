"""The weight syncs of a run, put together from their spans as these come: a sync, its engines, their phases.

The newest `SPANS_KEPT` spans are kept, whole syncs at a time; how long each phase took over the whole run is kept as
quantiles. Pure: the same spans give the same index.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from console.store.series.quantiles import Quantiles
from console.store.sync import TIMES, Sync
from driftline.frames import Span

SPANS_KEPT: Final = 20_000
OPEN: Final = 16
"""Newest syncs that are not packed: those for which spans still come."""


class SyncIndex:
    """All syncs that are kept, oldest first."""

    def __init__(self, kept: int = SPANS_KEPT) -> None:
        self.syncs: deque[Sync] = deque()
        self.count = 0
        """Of the whole run."""
        self.failures = 0
        """Engines that did not load their weights, summed over the syncs of the whole run."""
        self.phases = {phase: Quantiles() for phase in TIMES}
        """Seconds of each phase, of every engine in every sync of the run."""
        self._open: dict[str, Sync] = {}
        self._spans = 0
        self._kept = kept

    def record(self, span: Span) -> None:
        """Add one span."""
        sync = self._open.get(span.sync)
        earlier = sync.engines.get(span.engine) if sync is not None else None
        known = earlier.phases.get(span.phase) if earlier is not None else None
        if known is not None and known.start == span.start:
            return  # sent again after a crash of the hub
        if sync is None or known is not None:
            # A trainer that was started again counts its syncs from one: the same name is another sync then.
            sync = self._begin(span.sync)
        self.failures += sync.add(span)
        self._spans += 1
        if sync.number <= self.count - OPEN:
            sync.pack()
        if span.phase in self.phases and span.ok:
            # Failed syncs would distort the usual times.
            self.phases[span.phase].add(span.seconds)
        while self._spans > self._kept and len(self.syncs) > 1:
            gone = self.syncs.popleft()
            self._spans -= gone.spans
            if self._open.get(gone.id) is gone:
                del self._open[gone.id]

    def _begin(self, identity: str) -> Sync:
        self.count += 1
        sync = Sync(self.count, identity)
        self.syncs.append(sync)
        self._open[identity] = sync
        if len(self.syncs) > OPEN:
            self.syncs[-OPEN - 1].pack()
        return sync

    def find(self, identity: str) -> Sync | None:
        """The newest sync of that name that is kept."""
        return self._open.get(identity)

    def number(self, number: int) -> Sync | None:
        """The sync with this number, if it is kept."""
        if not self.syncs or not self.syncs[0].number <= number <= self.count:
            return None
        return self.syncs[number - self.syncs[0].number]
