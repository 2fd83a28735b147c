"""Whether the journal lacks segments in its middle, for those who read it through the hub and see no file of it.

The folder is looked through when it has changed, which it does with each new segment and with each that is taken away.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from driftline.journal.holes import lacks
from driftline.rundir import RunDir
from driftline.text import sanitize

LISTED: Final = 8
"""Clauses that are sent; more are counted."""

log = logging.getLogger("driftline.hub")


class HoleWatch:
    """`missing` are clauses about what the journal lacks, and what in its folder does not belong there."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._seen = -1
        self._said: frozenset[str] = frozenset()
        self.missing: tuple[str, ...] = ()
        self.look()

    def changed(self) -> bool:
        """Whether to look again; costs one system call. False while there is no folder: its loss is said elsewhere."""
        try:
            return os.stat(self._run.journal).st_mtime_ns != self._seen
        except OSError:
            return False

    def look(self) -> None:
        """Look through the folder, and log what is new. May read a segment whose index is missing."""
        try:
            self._seen = os.stat(self._run.journal).st_mtime_ns
        except OSError:
            return
        found = [sanitize(clause) for clause in lacks(self._run)]
        for clause in found:
            if clause not in self._said:
                log.warning("%s: %s", self._run.journal, clause)
        self._said = frozenset(found)
        more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
        self.missing = (*found[:LISTED], *more)
