"""Shared-memory files of this process, lent to one publication of weights at a time and kept for the next.

Fresh shared memory costs several times the copy that goes into it, because the kernel first hands out and clears every
page. A segment that is written again has its pages already (`make bench` prints the ratio); it costs one model of
memory for as long as the run lasts.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engine.types import EngineError

FOLDER: Final = Path("/dev/shm")
PREFIX: Final = "driftline-"
NAME: Final = re.compile(PREFIX + "[0-9a-f]{16}")
STALE_S: Final = 60.0
"""Age, in seconds, below which an unlocked segment may be about to be locked by the process that made it."""


class Segment:
    """A file of mode 0600 in FOLDER, mapped and locked by this process."""

    def __init__(self, size: int) -> None:
        """Raises EngineError when there is no shared memory, or too little of it."""
        self.size = max(1, size)
        self.name = PREFIX + secrets.token_hex(8)
        path = FOLDER / self.name
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise EngineError(f"{FOLDER}: no shared memory for the weights: {error.strerror}") from error
        try:
            # Held as long as the segment exists, against a sweep by another run.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Reserve the pages now: a full /dev/shm is an error here and would be a SIGBUS in the copy.
            os.posix_fallocate(self._fd, 0, self.size)
            self.memory = mmap.mmap(self._fd, self.size)
        except OSError as error:
            path.unlink(missing_ok=True)
            os.close(self._fd)
            room = self.size / 2**20
            raise EngineError(f"{FOLDER}: no room for {room:.0f} MiB of weights: {error.strerror}") from error

    @property
    def gone(self) -> bool:
        """Whether the file was removed, so that it cannot be opened by its name any more.

        systemd does so with all that a user has in FOLDER, by default, when their last session ends: in tmux a run
        outlives that.
        """
        return os.fstat(self._fd).st_nlink == 0

    def close(self) -> None:
        """Remove the file; readers that have it mapped keep it until they let go."""
        (FOLDER / self.name).unlink(missing_ok=True)
        self.memory.close()
        os.close(self._fd)


class Segments:
    """Lends segments; keeps the one given back last. Thread-safe.

    A reader's view of a segment changes when the segment is lent again: it must have copied the content, or detect
    the change by the digest.
    """

    def __init__(self) -> None:
        self._kept: Segment | None = None
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def lend(self, size: int) -> Iterator[Segment]:
        """A segment of at least `size` bytes, for the caller alone while the block runs."""
        with self._lock:
            segment, self._kept = self._kept, None
        if segment is not None and (segment.size < size or segment.gone):
            segment.close()
            segment = None
        segment = segment or Segment(size)
        try:
            yield segment
        finally:
            with self._lock:
                spare, self._kept = self._kept, None if self._closed else segment
            if self._kept is not segment:
                segment.close()
            if spare is not None:
                spare.close()

    def close(self) -> None:
        """Remove the kept segment; one that is lent goes when it comes back. Idempotent."""
        with self._lock:
            self._closed = True
            segment, self._kept = self._kept, None
        if segment is not None:
            segment.close()


def left_behind() -> bool:
    """Whether there are segments of any run's, in use or not."""
    return any(FOLDER.glob(f"{PREFIX}*"))


def sweep(stale: float = STALE_S) -> int:
    """Remove segments older than `stale` s that a killed trainer of this user left behind; returns how many."""
    removed = 0
    for path in FOLDER.glob(f"{PREFIX}*"):
        try:
            status = path.lstat()
            # The age leaves out a segment in the moment between its creation and its lock.
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < stale:
                continue
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            removed += 1
        except BlockingIOError:
            pass  # in use
        finally:
            os.close(fd)
    return removed
