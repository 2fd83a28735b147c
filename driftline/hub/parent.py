"""The process that started a hub: the hub ends once it has gone, and no producer has been heard of for a while."""

from __future__ import annotations

import os
from typing import Final

from driftline.rundir import RunError

ORPHAN_SECONDS: Final = 5.0


class Parent:
    """`fd` becomes readable when the process ends; None without one, and once it has. Raises RunError if there is no
    such process."""

    def __init__(self, pid: int | None) -> None:
        self.fd: int | None = None
        self._gone_at = float("inf")
        if pid is not None:
            try:
                self.fd = os.pidfd_open(pid)
            except OSError as error:
                raise RunError(f"--parent-pid {pid}: no such process") from error

    def end(self, mono: float) -> None:
        """It has ended, at a monotonic time."""
        if self.fd is not None:
            os.close(self.fd)
        self.fd, self._gone_at = None, mono

    def orphaned(self, mono: float, producers_seen: float) -> bool:
        """Whether it is gone and so are the producers, last heard of at a monotonic time."""
        return self._gone_at < float("inf") and mono - max(self._gone_at, producers_seen) > ORPHAN_SECONDS
