"""The journal's format on disk, and how to read it, also while it grows and after any damage.

A journal is a folder of segments `000001.rlj`, `000002.rlj`, ... A segment is a 64-byte header and records:

    header  magic 8 | format u32 | schema u32 | epoch u64 | first seq u64 | created f64 | zeros | crc32c u32
    record  magic 4 | length u32 | seq u64 | crc32c u32 | body          (crc over the rest of the record)

A body is a `Record`: the `Stamped` frame that clients see, then where it came from. Integers are little-endian. A
reader that meets damage searches for the next magic with a record that checks out, and counts what it skipped.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import google_crc32c
import msgspec

from driftline.frames import DECODE_ERRORS, MAX_BODY, SCHEMA, Stamped

FORMAT: Final = 1
SUFFIX: Final = ".rlj"
MAX_RECORD: Final = MAX_BODY + 4096
MAX_NUMBER: Final = 10**9 - 1
"""Of a segment. A hub that starts every second does not come to it in 30 years; a name beyond is another file's."""
_NAME: Final = re.compile(r"(0[0-9]{5}|[1-9][0-9]{5,8})\.rlj", re.ASCII)

MAGIC: Final = b"\xd7DRL"
_HEADER_MAGIC: Final = b"\xd7DRIFTJ\n"
_HEADER: Final = struct.Struct("<8sIIQQd20xI")
_HEAD: Final = struct.Struct("<4sIQ")
_PREFIX: Final = struct.Struct("<4sIQI")
_CRC: Final = struct.Struct("<I")
_CHUNK: Final = 1024 * 1024

HEADER: Final = _HEADER.size
"""Bytes before the first record of a segment."""
PREFIX: Final = _PREFIX.size
"""Bytes of a record before its body."""

_value, _extend = google_crc32c.value, google_crc32c.extend


class Record(Stamped, frozen=True, array_like=True, gc=False):
    """A stamped frame and its origin: the producer's incarnation and that incarnation's own sequence number."""

    incarnation: int = 0
    pseq: int = 0


class Damage:
    """Counts of skipped bytes: bytes that are not a record, and bytes after the last record of a segment."""

    def __init__(self) -> None:
        self.bytes = 0
        self.torn = 0

    def __repr__(self) -> str:
        return f"Damage(bytes={self.bytes}, torn={self.torn})"


record_encoder: Final = msgspec.msgpack.Encoder()
record_decoder: Final[msgspec.msgpack.Decoder[Record]] = msgspec.msgpack.Decoder(Record)
_stamped_decoder: Final[msgspec.msgpack.Decoder[Stamped]] = msgspec.msgpack.Decoder(Stamped)


def kind(body: bytes | msgspec.Raw) -> bytes:
    """The one-letter tag of an encoded frame, without decoding the frame."""
    head = bytes(memoryview(body)[:5])
    return head[2:3] if head[:1] < b"\xdc" else head[4:5]


def segments(folder: Path) -> list[Path]:
    """The segments of a journal, oldest first: files named by six digits or, above 999,999, as many as it takes."""
    return [path for path, regular in _numbered(folder) if regular]


def next_epoch(folder: Path) -> int:
    """The epoch of the next hub: the number of the segment that it will begin with."""
    taken = _numbered(folder)
    return int(taken[-1][0].stem) + 1 if taken else 1


def _numbered(folder: Path) -> list[tuple[Path, bool]]:
    """Paths with the name of a segment, by number, and whether there is a file."""
    try:
        with os.scandir(folder) as entries:
            found = [(folder / entry.name, entry.is_file()) for entry in entries if _NAME.fullmatch(entry.name)]
    except OSError:
        return []
    return sorted(found, key=lambda one: int(one[0].stem))


def pack_header(epoch: int, first: int, created: float) -> bytes:
    """The header of a segment whose first record will be number `first`."""
    fields = (_HEADER_MAGIC, FORMAT, SCHEMA, epoch, first, created)
    return _HEADER.pack(*fields, _value(_HEADER.pack(*fields, 0)[: -_CRC.size]))


def first_seq(path: Path) -> int:
    """The number that a segment's header says it begins with; 0 if the header cannot be believed."""
    try:
        with path.open("rb") as file:
            header = file.read(HEADER)
    except OSError:
        return 0
    if len(header) < HEADER or _value(header[: -_CRC.size]) != _CRC.unpack(header[-_CRC.size :])[0]:
        return 0
    return int(_HEADER.unpack(header)[4])


def pack_head(record: bytes, seq: int) -> bytes:
    """The bytes before an encoded record in a segment."""
    head = _HEAD.pack(MAGIC, len(record), seq)
    return head + _CRC.pack(_extend(_value(head), record))


def read(folder: Path, start: int = 1, damage: Damage | None = None) -> Iterator[Stamped]:
    """Yield every intact frame with seq >= `start`, in order; `damage`, if given, counts what was skipped.

    Segments that end before `start` are not looked at.
    """
    damage = damage if damage is not None else Damage()
    paths = segments(folder)
    for at, path in enumerate(paths):
        if start > 1 and at + 1 < len(paths) and 0 < first_seq(paths[at + 1]) <= start:
            continue
        yield from read_segment(path, start, damage)


def read_segment(path: Path, start: int, damage: Damage) -> Iterator[Stamped]:
    """Yield the intact frames of one segment with seq >= `start`; none if the file has gone."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for _, seq, body in scan(file, damage):
            if seq < start:
                continue
            try:
                yield _stamped_decoder.decode(body)
            except DECODE_ERRORS:
                damage.bytes += len(body)  # intact, but not a record of this version


def scan(file: BinaryIO, damage: Damage) -> Iterator[tuple[int, int, bytes]]:
    """Yield (offset, seq, body) of every intact record of an open segment.

    `damage.torn` is left at the number of bytes after the last intact record: an end that is still being written,
    or was torn off.
    """
    file.seek(HEADER)
    buffer, base, at, last, lost_from = b"", HEADER, 0, 0, -1
    ended = False
    damage.torn = 0
    while True:
        seq, body = record_at(buffer, at, last)
        if seq:
            if lost_from >= 0:
                damage.bytes += base + at - lost_from
                lost_from = -1
            last = seq
            yield base + at, seq, body
            at += PREFIX + len(body)
        elif not ended and len(buffer) - at < PREFIX + MAX_RECORD:
            more = file.read(_CHUNK)
            ended = not more
            buffer, base, at = buffer[at:] + more, base + at, 0
        elif at >= len(buffer):
            break
        else:
            # Damage, or the torn end: go on from the next place that could begin a record.
            lost_from = base + at if lost_from < 0 else lost_from
            following = buffer.find(MAGIC, at + 1)
            at = following if following >= 0 else (len(buffer) if ended else max(at + 1, len(buffer) - len(MAGIC) + 1))
    if lost_from >= 0:
        damage.torn = base + at - lost_from


def record_at(buffer: bytes, at: int, last: int) -> tuple[int, bytes]:
    """Number and body of the intact record at `at` with a number above `last`, or (0, b"") if none is there."""
    body_at = at + PREFIX
    if len(buffer) < body_at:
        return 0, b""
    magic, length, seq, crc = _PREFIX.unpack_from(buffer, at)
    end = body_at + length
    if magic != MAGIC or length > MAX_RECORD or seq <= last or len(buffer) < end:
        return 0, b""
    body = buffer[body_at:end]
    if _extend(_value(buffer[at : at + _HEAD.size]), body) != crc:
        return 0, b""
    return seq, body
