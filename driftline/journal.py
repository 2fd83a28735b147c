"""The journal: an append-only log of everything the hub has stamped, readable while it grows and after any crash.

What it promises, with the hub: a frame the producer saw acknowledged is in the journal after any kill -9, and a
console that comes back sees every sequence number once. (After a crash of the whole machine, what was written
since the last fdatasync, 100 ms as a rule, may be gone; commands are synced before anybody acts on them.)

A journal is a folder of segments `000001.rlj`, `000002.rlj`, ...; every start of the hub opens a new one, and its
number is the epoch. A segment is a 64-byte header and records:

    header  magic 8 | format u32 | schema u32 | epoch u64 | first seq u64 | created f64 | zeros | crc32c u32
    record  magic 4 | length u32 | seq u64 | crc32c u32 | body          (crc over the rest of the record)

A body is a `Record`: the `Stamped` frame that clients see, then where it came from. Integers are little-endian. A
reader that meets damage searches for the next magic with a record that checks out, and counts what it skipped. An
end that a crash tore off is moved to `<segment>.torn` by the next hub, never silently cut.
"""

from __future__ import annotations

import array
import bisect
import contextlib
import errno
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import google_crc32c
import msgspec

from driftline import disk
from driftline.frames import DECODE_ERRORS, MAX_BODY, SCHEMA, Stamped

FORMAT: Final = 1
SUFFIX: Final = ".rlj"
SEGMENT_BYTES: Final = 256 * 1024 * 1024
MAX_RECORD: Final = MAX_BODY + 4096

_HEADER_MAGIC: Final = b"\xd7DRIFTJ\n"
_HEADER: Final = struct.Struct("<8sIIQQd20xI")
_MAGIC: Final = b"\xd7DRL"
_HEAD: Final = struct.Struct("<4sIQ")
_CRC: Final = struct.Struct("<I")
_PREFIX: Final = _HEAD.size + _CRC.size
_CHUNK: Final = 1024 * 1024
_PAGE_LOOK: Final = 20_000


class JournalError(OSError):
    """The journal cannot be written; the message is a clause that says why."""


class Record(Stamped, frozen=True, array_like=True, gc=False):
    """A stamped frame and its origin: the producer's incarnation and that incarnation's own sequence number."""

    incarnation: int = 0
    pseq: int = 0


class Damage:
    """What a reader had to skip: bytes that are no record, and sequence numbers that no record had."""

    def __init__(self) -> None:
        self.bytes = 0
        self.torn = 0

    def __repr__(self) -> str:
        return f"Damage(bytes={self.bytes}, torn={self.torn})"


def kind(body: bytes | msgspec.Raw) -> bytes:
    """The one-letter tag of an encoded frame, without decoding the frame."""
    head = bytes(memoryview(body)[:5])
    return head[2:3] if head[:1] < b"\xdc" else head[4:5]


record_encoder: Final = msgspec.msgpack.Encoder()
record_decoder: Final[msgspec.msgpack.Decoder[Record]] = msgspec.msgpack.Decoder(Record)
_stamped_decoder: Final[msgspec.msgpack.Decoder[Stamped]] = msgspec.msgpack.Decoder(Stamped)


def segments(folder: Path) -> list[Path]:
    """The segments of a journal, oldest first."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.stem.isdigit())
    except OSError:
        return []


def next_epoch(folder: Path) -> int:
    """The epoch of the next hub: the number of the segment that it will begin with."""
    existing = segments(folder)
    return int(existing[-1].stem) + 1 if existing else 1


def read(folder: Path, start: int = 1, damage: Damage | None = None) -> Iterator[Stamped]:
    """Yield every intact frame with seq >= `start`, in order; `damage`, if given, counts what was skipped."""
    damage = damage if damage is not None else Damage()
    for segment in segments(folder):
        with contextlib.suppress(FileNotFoundError), segment.open("rb") as file:
            for _, seq, body in scan(file, damage):
                if seq < start:
                    continue
                try:
                    yield _stamped_decoder.decode(body)
                except DECODE_ERRORS:
                    damage.bytes += len(body)  # intact, but no record of this version


def scan(file: BinaryIO, damage: Damage) -> Iterator[tuple[int, int, bytes]]:
    """Yield (offset, seq, body) of every intact record of an open segment.

    `damage.torn` is left at the number of bytes after the last intact record: an end that is still being written,
    or was torn off.
    """
    file.seek(_HEADER.size)
    buffer, base, at, last, lost_from = b"", _HEADER.size, 0, 0, -1
    ended = False
    damage.torn = 0
    while True:
        size, body = _record_at(buffer, at, last)
        if size > 0:
            if lost_from >= 0:
                damage.bytes += base + at - lost_from
                lost_from = -1
            _, _, seq = _HEAD.unpack_from(buffer, at)
            last = seq
            yield base + at, seq, body
            at += size
        elif not ended and len(buffer) - at < _PREFIX + MAX_RECORD:
            more = file.read(_CHUNK)
            ended = not more
            buffer, base, at = buffer[at:] + more, base + at, 0
        elif at >= len(buffer):
            break
        else:
            # Damage, or the torn end: go on from the next place that could begin a record.
            lost_from = base + at if lost_from < 0 else lost_from
            following = buffer.find(_MAGIC, at + 1)
            at = following if following >= 0 else (len(buffer) if ended else max(at + 1, len(buffer) - len(_MAGIC) + 1))
    if lost_from >= 0:
        damage.torn = base + at - lost_from


def _record_at(buffer: bytes, at: int, last: int) -> tuple[int, bytes]:
    """Size and body of the intact record at `at`, or (0, b"") if none is (or it is not all there yet)."""
    if len(buffer) - at < _PREFIX:
        return 0, b""
    magic, length, seq = _HEAD.unpack_from(buffer, at)
    if magic != _MAGIC or length > MAX_RECORD or seq <= last or len(buffer) - at < _PREFIX + length:
        return 0, b""
    body = buffer[at + _PREFIX : at + _PREFIX + length]
    if _crc(buffer[at : at + _HEAD.size], body) != _CRC.unpack_from(buffer, at + _HEAD.size)[0]:
        return 0, b""
    return _PREFIX + length, body


def _crc(head: bytes, body: bytes) -> int:
    return int(google_crc32c.extend(google_crc32c.value(head), body))


class _Segment:
    """One open segment and where its records are; `offsets[i]` belongs to sequence number `first + i`, 0 if lost."""

    def __init__(self, path: Path, fd: int, first: int) -> None:
        self.path, self.fd, self.first = path, fd, first
        self.offsets = array.array("Q")
        self.sizes = array.array("I")
        self.plain = bytearray()

    def add(self, seq: int, offset: int, size: int, plain: bool) -> None:
        """Remember a record; numbers that were skipped are lost."""
        if not self.offsets:
            self.first = seq
        for _ in range(seq - self.first - len(self.offsets)):
            self.offsets.append(0)
            self.sizes.append(0)
            self.plain.append(1)
        self.offsets.append(offset)
        self.sizes.append(size)
        self.plain.append(plain)

    @property
    def end(self) -> int:
        """First sequence number after this segment."""
        return self.first + len(self.offsets)


class Journal:
    """The one writer of a journal; whoever makes one must hold the run's `hub.lock`.

    Opening it moves a torn end aside, gives every record that is there to `on_record` and starts a new segment.
    Attributes: `epoch`, `head` (newest seq), `damage`. Raises JournalError.
    """

    def __init__(self, folder: Path, on_record: Callable[[Record], None] | None = None) -> None:
        self.folder = folder
        self.head = 0
        self.damage = Damage()
        self._segments: list[_Segment] = []
        self._size = 0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            existing = segments(folder)
            for path in existing:
                self._load(path, on_record)
            if existing:
                self.sync()  # a hub that was killed may not have come to it
            self.epoch = next_epoch(folder)
            self._start_segment(self.epoch)
        except OSError as error:
            raise JournalError(f"{folder}: {error.strerror or error}") from error

    @property
    def fd(self) -> int:
        """Descriptor of the segment being written."""
        return self._segments[-1].fd

    def append(self, record: bytes, seq: int, plain: bool) -> None:
        """Write one record, the next in sequence, whole or not at all. Raises JournalError.

        `plain` is false for Tokens frames, which pages can leave out.
        """
        if self._size >= SEGMENT_BYTES:
            self._rotate()
        head = _HEAD.pack(_MAGIC, len(record), seq)
        data = head + _CRC.pack(_crc(head, record)) + record
        self._write(data)
        self._segments[-1].add(seq, self._size, len(record), plain)
        self._size += len(data)
        self.head = seq

    def sync(self) -> None:
        """Force what was written to the disk. Raises JournalError."""
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            raise JournalError(f"{self._segments[-1].path}: {error.strerror}") from error

    def page(self, start: int, limit: int, max_bytes: int, tokens: bool) -> tuple[list[bytes], int]:
        """Records from `start` on, at most `limit` and (but for one) `max_bytes`; and where to go on.

        It looks at no more than _PAGE_LOOK numbers, so that passing over many Tokens frames holds up nobody.
        """
        records: list[bytes] = []
        seq, taken = max(1, start), 0
        index = max(0, bisect.bisect_right(self._segments, seq, key=lambda s: s.first) - 1)
        for segment in self._segments[index:]:
            for at in range(max(0, seq - segment.first), len(segment.offsets)):
                seq = segment.first + at
                if seq - start >= _PAGE_LOOK:
                    return records, seq
                if segment.offsets[at] == 0 or not (tokens or segment.plain[at]):
                    continue
                size = segment.sizes[at]
                if len(records) == limit or (records and taken + size > max_bytes):
                    return records, seq
                body = self._read(segment, seq, segment.offsets[at], size)
                if body is not None:
                    records.append(body)
                    taken += size
            seq = max(seq, segment.end)
        return records, max(start, self.head + 1)

    def close(self) -> None:
        """Sync and close."""
        try:
            self.sync()
        finally:
            for segment in self._segments:
                os.close(segment.fd)
            self._segments = []

    def _load(self, path: Path, on_record: Callable[[Record], None] | None) -> None:
        segment = _Segment(path, os.open(path, os.O_RDWR), self.head + 1)
        self._segments.append(segment)
        end = _HEADER.size
        with path.open("rb") as file:
            for offset, seq, body in scan(file, self.damage):
                end = offset + _PREFIX + len(body)
                if seq <= self.head:
                    continue
                try:
                    record = record_decoder.decode(body)
                except DECODE_ERRORS:
                    self.damage.bytes += len(body)
                    continue
                segment.add(seq, offset, len(body), kind(record.body) != b"t")
                self.head = seq
                if on_record is not None:
                    on_record(record)
        if self.damage.torn:
            self._move_aside(segment, end)

    def _move_aside(self, segment: _Segment, end: int) -> None:
        side = segment.path.with_name(f"{segment.path.name}.torn")
        torn = os.pread(segment.fd, os.fstat(segment.fd).st_size - end, end)
        with side.open("ab") as file:
            file.write(torn)
            file.flush()
            os.fsync(file.fileno())
        os.ftruncate(segment.fd, end)

    def _start_segment(self, number: int) -> None:
        path = self.folder / f"{number:06d}{SUFFIX}"
        fields = (_HEADER_MAGIC, FORMAT, SCHEMA, self.epoch, self.head + 1, time.time())
        crc = int(google_crc32c.value(_HEADER.pack(*fields, 0)[: -_CRC.size]))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if os.write(fd, _HEADER.pack(*fields, crc)) != _HEADER.size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        self._segments.append(_Segment(path, fd, self.head + 1))
        self._size = _HEADER.size

    def _rotate(self) -> None:
        self.sync()
        try:
            self._start_segment(int(self._segments[-1].path.stem) + 1)
        except OSError as error:
            raise JournalError(f"{self.folder}: {error.strerror or error}") from error

    def _write(self, data: bytes) -> None:
        segment = self._segments[-1]
        if reason := disk.put(segment.fd, data, self._size):
            raise JournalError(f"{segment.path}: {reason}")

    def _read(self, segment: _Segment, seq: int, offset: int, size: int) -> bytes | None:
        data = os.pread(segment.fd, _PREFIX + size, offset)
        found, body = _record_at(data, 0, seq - 1)
        return body if found else None
