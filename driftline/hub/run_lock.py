"""The lock on `hub.lock` by which a run has one hub, and by which others see that it is live."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import Final

from driftline.rundir import RunDir

# `driftline status` and others try the lock for a moment to see whether a hub holds it.
_TRIES: Final = 10
_PAUSE: Final = 0.03
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def take(run: RunDir, tries: int = _TRIES) -> int | str:
    """Take the lock for as long as the descriptor is open; return the descriptor, or why not."""
    try:
        fd = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return f"{run.path}: cannot be used as a run directory: {error.strerror}"
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
        refusal = f"run {run.id} already has a hub (process {holder or 'unknown'})"
    except OSError as error:
        refusal = f"{run.lock}: cannot be locked: {error.strerror}"
        if error.errno in _NO_LOCKS:
            refusal += (
                "; its filesystem has no locks: put runs on a disk of this machine, DRIFTLINE_RUNS=/that/disk/runs"
            )
    os.close(fd)
    return refusal
