"""A journal's segments as its writer knows them: those that are complete, and the one with a descriptor."""

from __future__ import annotations

from pathlib import Path

from driftline.journal.index import Index
from driftline.journal.records import HEADER


class Segment:
    """A closed segment: numbers from `first` to before `end` in `size` bytes, complete since Unix time `closed`."""

    def __init__(self, path: Path, first: int, end: int, size: int, closed: float) -> None:
        self.path, self.first, self.end, self.size, self.closed = path, first, end, size, closed

    @property
    def number(self) -> int:
        return int(self.path.stem)


class OpenSegment:
    """A segment with its descriptor: the one being written, or one that was left and is not closed yet."""

    def __init__(self, fd: int, path: Path, first: int) -> None:
        self.fd, self.path, self.index = fd, path, Index(first)
        self.size, self.synced = HEADER, 0
        self.failed = False
        self.linked = False
        """Whether the folder, with its name in it, is known to be on the disk."""
        self.head, self.saved = 0, b""
        """For the checkpoint, once it is left."""
