"""Retention: how much of a journal is kept. By default, everything."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from driftline.journal.journal import Journal
from driftline.rundir import RunDir

GB: Final = 10**9


class RetentionPolicy(msgspec.Struct, frozen=True):
    """At most `gb` GB (10^9 bytes), nothing older than `hours` (0: no limit); `compacted`: only what Parquet has goes.

    Whole closed segments go, the oldest first; the segment that is being written always stays.
    """

    gb: float = 0.0
    hours: float = 0.0
    compacted: bool = False

    def expired(self, journal: Journal, run: RunDir, wall: float) -> list[Path]:
        """Segments that the journal has given up, to be deleted."""
        if not (self.gb or self.hours):
            return []
        oldest = wall - 3600 * self.hours if self.hours else float("-inf")

        def spared(number: int) -> bool:
            return self.compacted and not run.compacted(number).exists()

        return journal.expired(self.gb * GB, oldest, spared)
