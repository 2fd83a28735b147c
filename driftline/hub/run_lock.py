"""The lock on `hub.lock` by which a run has one hub, and by which others see that it is live."""

from __future__ import annotations

import fcntl
import os
import time
from typing import Final

from driftline.rundir import RunDir, RunError, lock_refusal

# `driftline status` and others try the lock for a moment to see whether a hub holds it.
_TRIES: Final = 10
_PAUSE: Final = 0.03


class HeldError(RunError):
    """Another hub has the run."""


def take(run: RunDir, tries: int = _TRIES) -> int:
    """Take the lock for as long as the returned descriptor is open. Raises HeldError, RunError."""
    try:
        fd = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RunError(f"{run.path}: cannot be used as a run directory: {error.strerror}") from error
    try:
        for at in range(tries):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if at + 1 < tries:
                    time.sleep(_PAUSE)
            else:
                os.ftruncate(fd, 0)
                os.write(fd, f"{os.getpid()}\n".encode())
                return fd
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    except OSError as error:
        os.close(fd)
        raise RunError(lock_refusal(run.lock, error)) from error
    os.close(fd)
    raise HeldError(f"run {run.id} already has a hub (process {holder or 'unknown'})")
