"""Index of the records of a segment, and the sidecar files that spare a restarting hub a scan.

Beside a closed segment `000001.rlj` lies `000001.rli`, its index: for each number its offset, its size and whether
it is not a Tokens frame. Beside the newest closed ones lies `000001.rlc`, a checkpoint: the state of the hub at the
segment's end. Both carry a checksum, and the segment's size and its header's; one that is missing, wrong or of
another segment is made again from the segment itself, which alone counts.

    index       magic 8 | segment size u64 | its header's crc u32 | count u32 | first seq u64 | crc32c of the body u32 |
                crc32c of the above u32 | offsets u32 * count | sizes u32 * count | plain u8 * count
    checkpoint  magic 8 | segment size u64 | its header's crc u32 | head u64 | crc32c of the rest u32 | body
"""

from __future__ import annotations

import array
import contextlib
import os
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import google_crc32c

from driftline import bounded_file
from driftline.frames import DECODE_ERRORS
from driftline.journal import disk
from driftline.journal.records import HEADER, PREFIX, Damage, Record, kind, record_at, record_decoder, scan

INDEX: Final = ".rli"
CHECKPOINT: Final = ".rlc"
_MOST_INDEX: Final = 64 << 20
"""Most bytes of an index: nine a record, of which a segment has at most some ten thousand."""
_MOST_CHECKPOINT: Final = 1 << 30
OPEN_SEGMENTS: Final = 8
"""Closed segments whose index and descriptor are kept at hand; paging rarely looks at more than two."""

_INDEX_MAGIC: Final = b"\xd7DRIFTI\1"
_CHECKPOINT_MAGIC: Final = b"\xd7DRIFTC\1"
_INDEX: Final = struct.Struct("<8sQ4sIQI")
_CHECKPOINT: Final = struct.Struct("<8sQ4sQ")
_CRC: Final = struct.Struct("<I")


class Index:
    """Places of the records of one segment; entry i belongs to number `first + i`, offset 0 to one that is lost."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.offsets = array.array("I")
        self.sizes = array.array("I")
        self.plain = bytearray()

    def __len__(self) -> int:
        return len(self.plain)

    def add(self, seq: int, offset: int, size: int, plain: bool) -> None:
        """Remember a record; numbers that were skipped are lost."""
        count = len(self.plain)
        if not count:
            self.first = seq
        elif gap := seq - self.first - count:
            self.offsets.extend([0] * gap)
            self.sizes.extend([0] * gap)
            self.plain.extend(b"\1" * gap)
        self.offsets.append(offset)
        self.sizes.append(size)
        self.plain.append(plain)

    def save(self, segment: Path) -> None:
        """Write the sidecar of a closed segment. Raises OSError."""
        body = _little(self.offsets) + _little(self.sizes) + bytes(self.plain)
        head = _INDEX.pack(_INDEX_MAGIC, *_mark(segment), len(self), self.first, _crc(body))
        disk.replace(segment.with_suffix(INDEX), head + _CRC.pack(_crc(head)) + body)


class Extent(NamedTuple):
    """Extent of a segment by its sidecar: `size` bytes, numbers from `first` to before `end`."""

    first: int
    end: int
    size: int


def read_extent(segment: Path) -> Extent | None:
    """The head of a segment's sidecar; None unless it is intact and fits the segment as it is now."""
    try:
        with segment.with_suffix(INDEX).open("rb") as file:
            return _extent(file.read(_INDEX.size + _CRC.size), _mark(segment))
    except OSError:
        return None


def _extent(head: bytes, mark: tuple[int, bytes]) -> Extent | None:
    if len(head) < _INDEX.size + _CRC.size or _crc(head[: _INDEX.size]) != _CRC.unpack_from(head, _INDEX.size)[0]:
        return None
    magic, size, header, count, first, _ = _INDEX.unpack_from(head)
    return Extent(first, first + count, size) if magic == _INDEX_MAGIC and (size, header) == mark else None


def _mark(segment: Path) -> tuple[int, bytes]:
    """What distinguishes a segment from others, and from itself at another length: size and checksum of the header."""
    with segment.open("rb") as file:
        return os.fstat(file.fileno()).st_size, file.read(HEADER)[-_CRC.size :].ljust(_CRC.size, b"\0")


def load_index(segment: Path) -> Index | None:
    """The sidecar of a segment; None unless it is intact and fits the segment as it is now."""
    try:
        data = bounded_file.read(segment.with_suffix(INDEX), _MOST_INDEX)
        extent = _extent(data[: _INDEX.size + _CRC.size], _mark(segment))
    except OSError:
        return None
    body = memoryview(data)[_INDEX.size + _CRC.size :]
    n = extent.end - extent.first if extent is not None else 0
    if extent is None or len(body) != 9 * n or _crc(bytes(body)) != _INDEX.unpack_from(data)[5]:
        return None
    index = Index(extent.first)
    index.offsets = _array(body[: 4 * n])
    index.sizes = _array(body[4 * n : 8 * n])
    index.plain = bytearray(body[8 * n :])
    return index


def build_index(
    segment: Path, after: int, damage: Damage, on_record: Callable[[Record], None] | None = None
) -> tuple[Index, int]:
    """The index of a segment from its records with numbers above `after`, and where the last intact record ends.

    Each of those records goes to `on_record`. Raises OSError.
    """
    index, end = Index(after + 1), HEADER
    with segment.open("rb") as file:
        for offset, seq, body in scan(file, damage):
            end = offset + PREFIX + len(body)
            if seq <= after:
                continue
            try:
                record = record_decoder.decode(body)
            except DECODE_ERRORS:
                damage.bytes += len(body)  # intact, but no record of this version
                continue
            index.add(seq, offset, len(body), kind(record.body) != b"t")
            after = seq
            if on_record is not None:
                on_record(record)
    return index, end


def save_checkpoint(segment: Path, head: int, body: bytes) -> None:
    """Write the checkpoint of a closed segment. Raises OSError."""
    rest = _CHECKPOINT.pack(_CHECKPOINT_MAGIC, *_mark(segment), head) + body
    disk.replace(segment.with_suffix(CHECKPOINT), rest[: _CHECKPOINT.size] + _CRC.pack(_crc(rest)) + body)


def load_checkpoint(segment: Path) -> tuple[int, bytes] | None:
    """Head and body of a segment's checkpoint; None unless it is intact and fits the segment as it is now.

    Retention may have taken the segment away: then there is nothing left that it must fit.
    """
    try:
        data = bounded_file.read(segment.with_suffix(CHECKPOINT), _MOST_CHECKPOINT)
        mark = _mark(segment) if segment.exists() else None
    except OSError:
        return None
    if len(data) < _CHECKPOINT.size + _CRC.size:
        return None
    magic, size, header, head = _CHECKPOINT.unpack_from(data)
    body = data[_CHECKPOINT.size + _CRC.size :]
    crc = _crc(data[: _CHECKPOINT.size] + body)
    if (
        magic != _CHECKPOINT_MAGIC
        or mark not in (None, (size, header))
        or crc != _CRC.unpack_from(data, _CHECKPOINT.size)[0]
    ):
        return None
    return head, body


class SegmentCache:
    """Indexes and descriptors of closed segments, read on demand; the OPEN_SEGMENTS last used are kept."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, tuple[int, Index]] = OrderedDict()

    def open_segment(self, path: Path, after: int) -> tuple[int, Index]:
        """Descriptor and index of a closed segment; an index that is missing or wrong is made again.

        Raises OSError for a segment that cannot be read.
        """
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        index = load_index(path)
        if index is None:
            index, _ = build_index(path, after, Damage())
            with contextlib.suppress(OSError):  # a full disk: then the next one makes it again
                index.save(path)
        return self._hold(path, index)

    def add(self, path: Path, index: Index) -> None:
        """Keep the index of a segment that was just left at hand: its sidecar may not be there yet."""
        with contextlib.suppress(OSError):  # then it is read on demand
            self._hold(path, index)

    def _hold(self, path: Path, index: Index) -> tuple[int, Index]:
        self._open[path] = os.open(path, os.O_RDONLY), index
        if len(self._open) > OPEN_SEGMENTS:
            os.close(self._open.popitem(last=False)[1][0])
        return self._open[path]

    def drop(self, path: Path) -> None:
        """Close a segment."""
        if path in self._open:
            os.close(self._open.pop(path)[0])

    def close(self) -> None:
        """Close all of them."""
        for path in list(self._open):
            self.drop(path)


def read_one(fd: int, offset: int, size: int, seq: int) -> bytes | None:
    """The body of one record; None if it is not intact."""
    found, body = record_at(os.pread(fd, PREFIX + size, offset), 0, seq - 1)
    return body if found == seq else None


def _crc(data: bytes) -> int:
    return int(google_crc32c.value(data))


def _little(items: array.array[int]) -> bytes:
    if sys.byteorder == "big":
        items = array.array("I", items)
        items.byteswap()
    return items.tobytes()


def _array(data: memoryview) -> array.array[int]:
    items = array.array("I")
    items.frombytes(data)
    if sys.byteorder == "big":
        items.byteswap()
    return items
