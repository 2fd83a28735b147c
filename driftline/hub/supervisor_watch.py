"""Whether a hub's supervisor is there: the process that started it, or another that has taken the run over since."""

from __future__ import annotations

import logging
import os
from typing import Final

from driftline.frames import Event, encode
from driftline.hub.effects import Effect, Now, Write
from driftline.rundir import RunDir, RunError

ORPHAN_SECONDS: Final = 5.0
UNSUPERVISED_SECONDS: Final = 3.0
"""Time for a standby to take over before the loss of the supervisor is reported."""

log = logging.getLogger("driftline.hub")


class SupervisorWatch:
    """`parent` is the process id of the supervisor that started this hub, None for a hub on its own.

    `fd` becomes readable when that process ends; None without one, and once it has ended. Raises RunError if there is
    no such process.
    """

    def __init__(self, run: RunDir, parent: int | None) -> None:
        self._run = run
        self._gone_at = float("inf")
        self._alone = False
        self.fd: int | None = None
        if parent is not None:
            try:
                self.fd = os.pidfd_open(parent)
            except OSError as error:
                raise RunError(f"--parent-pid {parent}: no such process") from error

    def parent_ended(self, mono: float) -> None:
        """Take note that the descriptor is readable."""
        if self.fd is not None:
            os.close(self.fd)
        self.fd, self._gone_at = None, mono

    def orphaned(self, mono: float, producer_seen: float) -> bool:
        """True once the supervisor has gone for good, and no producer has been seen for ORPHAN_SECONDS either."""
        quiet = mono - max(self._gone_at, producer_seen) > ORPHAN_SECONDS
        return self._gone_at < float("inf") and quiet and not self._supervised()

    def look(self, now: Now) -> list[Effect]:
        """An event when the run goes on without a supervisor, and when it has one again. Call it about every second."""
        if now.mono - self._gone_at < UNSUPERVISED_SECONDS or (alone := not self._supervised()) == self._alone:
            return []
        self._alone = alone
        if alone:
            text = "the run goes on without a supervisor: nothing starts a hub again that dies"
            event = Event(now.wall, "warn", "supervisor.lost", text)
        else:
            event = Event(now.wall, "info", "supervisor.found", "the run has a supervisor again")
        log.warning("%s", event.text)
        return [Write(encode(event), event)]

    def _supervised(self) -> bool:
        # Another supervisor starts a hub again that has ended: it needs none that does.
        try:
            return self._run.supervised()
        except RunError:  # a filesystem that gives no locks any more
            return False
