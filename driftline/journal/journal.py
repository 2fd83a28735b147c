"""The journal: an append-only log of everything the hub has stamped, readable while it grows and after any crash.

What it promises, with the hub: a frame the producer saw acknowledged is in the journal after any kill -9, and a
console that comes back sees every sequence number once. (After a crash of the whole machine, what was written
since the last fdatasync, 100 ms as a rule, may be gone, also from before a seam of two segments; commands are synced
before they take effect.)

Its folder holds segments (`records.py` has their format), closed ones with an index and the newest with a checkpoint
(`index.py`). Every start of the hub opens a new segment, and its number is the epoch; a segment that has grown too
large or too old is followed by the next. An end that a crash tore off is moved to `<segment>.torn`, never silently
cut. Retention, where it is asked for, takes away whole closed segments, the oldest first.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from driftline.journal.checkpoints import Checkpoints
from driftline.journal.disk import DISK, Disk, sync_path
from driftline.journal.index import (
    CHECKPOINT,
    INDEX,
    SegmentCache,
)
from driftline.journal.lost import LOST
from driftline.journal.opening import open_existing
from driftline.journal.paging import page_of
from driftline.journal.records import (
    MAX_NUMBER,
    SUFFIX,
    Damage,
    Record,
    kind,
    next_epoch,
    pack_head,
    pack_header,
    read,
    read_segment,
    record_decoder,
    record_encoder,
    scan,
    segments,
)
from driftline.journal.replayed import FullReplay, ReplayedState
from driftline.journal.rescue import (
    absence,
    copy_segment,
    open_folder,
    read_existing,
    usable,
)
from driftline.journal.segment import OpenSegment, Segment

SEGMENT_BYTES: Final = 64 * 1024 * 1024
SEGMENT_RECORDS: Final = 65_536
SEGMENT_SECONDS: Final = 600.0
"""A segment is followed by the next at the first of these: what a restart has to read stays a fraction of a second,
the index in memory under a megabyte, and what retention takes away at once, little."""

_LEFT_KEPT: Final = 4
"""Segments that may wait for a slow disk to be closed; then the writer waits too, so that this has an end."""

log = logging.getLogger("driftline.hub")


class JournalError(OSError):
    """The journal cannot be written; the message is a clause that says why."""


class Journal:
    """The only writer of a journal; the process that makes one must hold the run's `hub.lock`.

    With `deferred`, another thread calls `sync` a few times a second, and what closing a segment costs the disk is
    left to it: the writer never waits for more than a write.

    Opening it moves a torn end aside, gives `state` the newest checkpoint and the records since (or, with
    `on_record`, every record there is), and starts a new segment. Attributes: `epoch`, `head` (newest seq),
    `damage`, `scanned` (bytes that had to be read at the start), `lost` (why its files are not where they should be, as
    of the last `check`; "" if they are). Raises JournalError.
    """

    def __init__(
        self,
        folder: Path,
        on_record: Callable[[Record], None] | None = None,
        *,
        state: ReplayedState | None = None,
        disk: Disk = DISK,
    ) -> None:
        self.folder = folder
        self.head = 0
        self.scanned = 0
        self.damage = Damage()
        self._state: ReplayedState = state or FullReplay(on_record)
        self._disk = disk
        self._closed: list[Segment] = []
        self._cache = SegmentCache()
        self._checkpoints = Checkpoints(folder)
        self._until = 0.0
        self._zero = time.time() - time.monotonic()
        self.deferred = False
        self.lost = ""
        self._syncing = threading.Lock()
        self._left: deque[OpenSegment] = deque()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            before = open_existing(segments(folder), self._checkpoints, self._state, self.damage)
            self._closed, self.head, self.scanned = before
            self.epoch = next_epoch(folder)
            self._open = self._new_segment(self.epoch)
            self._folder_fd = open_folder(folder)
            self._link(self._open)  # the number of the epoch must not be given away a second time
        except OSError as error:
            raise JournalError(f"{folder}: {error.strerror or error}") from error

    @property
    def first(self) -> int:
        """Oldest sequence number that is still here; those before it were taken away by retention."""
        return self._closed[0].first if self._closed else self._open.index.first

    @property
    def now(self) -> float:
        """Unix time at the start, carried on by the steady clock: a wall clock that jumps makes no segment old."""
        return self._zero + time.monotonic()

    def append(self, record: bytes, seq: int, plain: bool) -> None:
        """Write one record, the next in sequence, whole or not at all. Raises JournalError.

        `plain` is false for Tokens frames, which pages can leave out.
        """
        if self.lost:
            raise JournalError(f"{LOST}: {self.lost}")
        one = self._open
        if one.size >= SEGMENT_BYTES or len(one.index.plain) >= SEGMENT_RECORDS or time.monotonic() >= self._until:
            self._rotate()
            one = self._open
        data = pack_head(record, seq) + record
        size = one.size
        if reason := self._disk.write_at(one.fd, data, size):
            raise JournalError(f"{one.path}: {reason}")
        one.index.add(seq, size, len(record), plain)
        one.size = size + len(data)
        self.head = seq

    def sync(self) -> None:
        """Force all that was written to the disk and close what was left. Any thread's. Raises JournalError."""
        with self._syncing:
            if self.lost:  # what the disk would take is in files that no reader finds
                raise JournalError(f"{LOST}: {self.lost}")
            while True:
                while self._left:
                    self._close_left(self._left[0])
                    self._left.popleft()
                # A segment is put among the left ones before the next takes its place: none there, none forgotten.
                one = self._open
                if not self._left:
                    break
            self._sync(one)

    def _sync(self, one: OpenSegment) -> None:
        end = one.size
        try:
            if not one.linked:
                self._link(one)
            if one.failed:
                self._disk.rewrite(one.fd, one.synced, end)
            self._disk.sync(one.fd)
        except OSError as error:
            one.failed = True
            raise JournalError(f"{one.path}: {error.strerror or error}") from error
        one.synced, one.failed = end, False

    def _link(self, one: OpenSegment) -> None:
        sync_path(self.folder)
        one.linked = True

    def page(self, start: int, limit: int, max_bytes: int, tokens: bool) -> tuple[list[bytes], int]:
        """Records from `start` on, at most `limit` and (but for one) `max_bytes`; and where to go on.

        It looks at no more than PAGE_LOOK numbers, so that passing over many Tokens frames does not block the hub.
        """
        return page_of(self._closed, self._open, self._cache, max(start, self.first), limit, max_bytes, tokens=tokens)

    def expired(self, keep_bytes: float, oldest: float, spared: Callable[[int], bool]) -> list[Path]:
        """Give up the oldest closed segments while the journal is over `keep_bytes` (0: no limit) or they were
        complete before Unix time `oldest`; return their paths, for `delete`.

        One that no checkpoint covers, or whose number is `spared`, stays, and so does everything after it.
        """
        if self.lost:
            return []
        total = sum(segment.size for segment in self._closed) + self._open.size
        gone = []
        while self._closed:
            segment = self._closed[0]
            over = 0 < keep_bytes < total or segment.closed < oldest
            if not over or segment.number > self._checkpoints.newest or spared(segment.number):
                break
            total -= segment.size
            gone.append(segment.path)
            self._cache.drop(segment.path)
            del self._closed[0]
        return gone

    def delete(self, paths: list[Path]) -> None:
        """Delete segments that were given up, once the checkpoint that stands for them is on the disk.

        Safe from another thread. Raises OSError.
        """
        for checkpoint in self.folder.glob(f"*{CHECKPOINT}"):
            sync_path(checkpoint)
        sync_path(self.folder)
        for path in paths:
            # In this order: the index of a deleted segment is never read.
            path.with_suffix(INDEX).unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Sync, leave an index and a checkpoint for the next hub, and close."""
        one = self._open
        if one.fd < 0:
            return
        try:
            self.sync()
            segment = self._count_closed(one)
            one.head, one.saved = self.head, self._state.save()
            self._leave_sidecars(one, segment.number)
        finally:
            for left in [*self._left, one]:
                os.close(left.fd)
            one.fd = -1
            os.close(self._folder_fd)
            self._cache.close()

    # Files taken away

    def check(self) -> bool:
        """Whether folder and open segment are where they should be; sets `lost`. Cheap, for many times a second."""
        self.lost = absence(self.folder, self._folder_fd, self._open.path, self._open.fd)
        return not self.lost

    @property
    def unsafe(self) -> int:
        """While `lost`: records that only this process's descriptors may still have."""
        return sum(len(one.index) for one in [*self._left, self._open])

    def resume(self) -> int:
        """Go on in the folder that stands where the lost one stood; return how many records are gone.

        What the open descriptors still have (the segment being written, and those that are not closed yet) is copied
        into new segments, so that only closed segments can be gone. Raises JournalError, and then it stays `lost`.
        """
        with self._syncing:
            left = [*self._left, self._open]
            try:
                if reason := usable(self.folder):
                    raise OSError(reason)
                ours = {segment.number: segment.first for segment in self._closed}
                ours[int(self._open.path.stem)] = self._open.index.first
                found = read_existing(segments(self.folder), ours)
                if found and found[-1].end - 1 > self.head:
                    raise OSError(
                        f"{self.folder} has records up to {found[-1].end - 1}, this journal only to {self.head}"
                    )
                number = max([*ours, *(one.number for one in found)]) + 1
                copies, following = self._copy_left(left, found, number)
            except OSError as error:
                self.lost = error.strerror or str(error)
                raise JournalError(f"{LOST}: {self.lost}") from error
            before = sum(one.end - one.first for one in self._closed) + len(self._open.index)
            for one in left:
                os.close(one.fd)
            self._cache.close()
            os.close(self._folder_fd)
            self._folder_fd = open_folder(self.folder)
            self._closed, self._open = found, following
            self._left.clear()
            for one in copies:
                self._count_closed(one)
                self._left.append(one)
            gone = max(0, before - sum(one.end - one.first for one in self._closed))
            if gone:
                self._checkpoints.newest = 0  # until the checkpoint of the copy is on the disk, nothing may be deleted
            self.lost = ""
        if not self.deferred:
            self.sync()
        return gone

    def _copy_left(
        self, left: list[OpenSegment], found: list[Segment], number: int
    ) -> tuple[list[OpenSegment], OpenSegment]:
        """Copies of what `found` does not have, and the segment after them. Raises OSError, and then there are none.

        The last is copied even without a record: its checkpoint stands for everything that may be gone.
        """
        left[-1].head, left[-1].saved = self.head, self._state.save()
        start = found[-1].end if found else 0
        made: list[OpenSegment] = []
        try:
            for one in left:
                if one is not left[-1] and one.index.first + len(one.index) <= start:
                    continue
                first = max(start, one.index.first)
                new = self._new_segment(number + len(made), first)
                made.append(new)
                copy_segment(one, start, new, self._disk)
            made.append(self._new_segment(number + len(made)))
        except OSError:
            for new in made:
                os.close(new.fd)
                new.path.unlink(missing_ok=True)
            raise
        return made[:-1], made[-1]

    # Segments

    def _new_segment(self, number: int, first: int = 0) -> OpenSegment:
        """A segment for the records from `first` on, else for the next one. Raises OSError, and then there is none."""
        first = first or self.head + 1
        path = self.folder / f"{number:06d}{SUFFIX}"
        while os.path.lexists(path):  # no file of the journal's, such as a folder of that name
            number += 1
            path = self.folder / f"{number:06d}{SUFFIX}"
        if number > MAX_NUMBER:
            raise OSError(f"no segment can follow number {number - 1}: move away the file with that name")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if reason := self._disk.write_at(fd, pack_header(self.epoch, first, time.time()), 0):
                raise OSError(f"{path.name}: {reason}")
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        self._until = time.monotonic() + SEGMENT_SECONDS
        return OpenSegment(fd, path, first)

    def _rotate(self) -> None:
        """Begin the next segment. Raises JournalError, and then the old one is still the one being written."""
        old = self._open
        if not old.index:
            self._until = time.monotonic() + SEGMENT_SECONDS
            return
        if not self.deferred or len(self._left) >= _LEFT_KEPT:
            self.sync()
        try:
            new = self._new_segment(int(old.path.stem) + 1)
        except OSError as error:
            raise JournalError(f"{self.folder}: {error.strerror or error}") from error
        old.head, old.saved = self.head, self._state.save()
        self._cache.add(old.path, old.index)
        self._count_closed(old)
        self._left.append(old)
        self._open = new
        if not self.deferred:
            self.sync()

    def _count_closed(self, one: OpenSegment) -> Segment:
        first = one.index.first
        segment = Segment(one.path, first, first + len(one.index), one.size, self.now)
        self._closed.append(segment)
        return segment

    def _close_left(self, one: OpenSegment) -> None:
        """Close a segment that was left. Raises JournalError, and then it is left as it was."""
        self._sync(one)
        os.close(one.fd)
        self._leave_sidecars(one, int(one.path.stem))

    def _leave_sidecars(self, one: OpenSegment, number: int) -> None:
        """Index and checkpoint of a segment that is on the disk. They can be made again: a failure is not an error."""
        try:
            one.index.save(one.path)
        except OSError as error:
            log.warning("%s: %s; it will be made again", one.path.with_suffix(INDEX), error.strerror or error)
        self._checkpoints.save(one.path, number, one.head, one.saved)


__all__ = [
    "SUFFIX",
    "Damage",
    "Journal",
    "JournalError",
    "Record",
    "ReplayedState",
    "kind",
    "next_epoch",
    "read",
    "read_segment",
    "record_decoder",
    "record_encoder",
    "scan",
    "segments",
]
