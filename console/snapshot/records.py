"""Encoded frames of a run in batches: a segment of the journal block by block, checked as `driftline.records` does.

A million records of half a kilobyte take seconds when each is looked at for itself. Here their places are walked
first, then heads and checksums of a whole block are checked together; at anything unexpected the careful reader,
which knows how to go on after damage, takes over the segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import google_crc32c
import msgspec
import numpy as np
import numpy.typing as npt

from driftline.frames import Stamped
from driftline.records import HEADER, MAGIC, MAX_RECORD, PREFIX, Damage, scan

BLOCK: Final = 4 * 1024 * 1024
"""Bytes that are looked at together; what is made of them still fits the processor's cache."""

_extend = google_crc32c.extend
_MAGIC: Final = int.from_bytes(MAGIC, "little")
_HEAD_BYTES: Final = PREFIX - 4

encoder: Final = msgspec.msgpack.Encoder()
decoder: Final[msgspec.msgpack.Decoder[Stamped]] = msgspec.msgpack.Decoder(Stamped)

_SIZES: Final = bytes(0 if b < 0x80 else {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.get(b, 0) for b in range(256))
_TIME: Final = 9


def encode(stamped: Stamped) -> bytes:
    """A stamped frame as the batches hold it."""
    return encoder.encode(stamped)


def tag(encoded: bytes) -> int:
    """The one-letter tag (as a byte) of the frame in an encoded record; 0 for what has none where it is expected."""
    at = 2 + _SIZES[encoded[1]] + _TIME
    length = encoded[at]
    if 0xA0 <= length < 0xC0:
        at += 1 + length - 0xA0
    elif length == 0xD9:
        at += 2 + encoded[at + 1]
    else:
        at += 3 + int.from_bytes(encoded[at + 1 : at + 3], "big")
    at += 1 if encoded[at] < 0xDC else 3
    return encoded[at + 1] if encoded[at] == 0xA1 else 0


def segment(path: Path, damage: Damage) -> Iterator[list[bytes]]:
    """The encoded records of a segment in blocks; `damage` counts what was skipped. None if the file has gone."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(HEADER)
        rest, last, clean = b"", 0, True
        while clean and (more := file.read(BLOCK)):
            buffer = rest + more
            places, end, clean = _walk(buffer)
            bodies = [buffer[at + PREFIX : till] for at, till in zip(places, [*places[1:], end], strict=False)]
            sound = _sound(buffer, places, bodies, last)
            clean = clean and sound == len(places)
            if sound:
                yield bodies[:sound]
                last = int.from_bytes(buffer[places[sound - 1] + 8 : places[sound - 1] + 16], "little")
            rest = buffer[end:]
        if rest or not clean:
            yield from _careful(file, last, damage)


def _walk(buffer: bytes) -> tuple[list[int], int, bool]:
    """Where records begin by what each says of its length, where the last of them ends, and false for nonsense."""
    places: list[int] = []
    at, size = 0, len(buffer)
    from_bytes = int.from_bytes
    while at + PREFIX <= size:
        length = from_bytes(buffer[at + 4 : at + 8], "little")
        if length > MAX_RECORD:
            return places, at, False
        end = at + PREFIX + length
        if end > size:
            break
        places.append(at)
        at = end
    return places, at, True


def _sound(buffer: bytes, places: list[int], bodies: list[bytes], last: int) -> int:
    """How many of the records, from the first on, are intact and numbered upwards from above `last`."""
    if not places:
        return 0
    starts = np.array(places, dtype=np.int64)
    heads = np.frombuffer(buffer, np.uint8)[starts[:, None] + np.arange(PREFIX)]
    words = heads.view("<u4")
    seqs = np.ascontiguousarray(heads[:, 8:16]).view("<u8")[:, 0]
    before = np.concatenate(([np.uint64(last)], seqs[:-1]))
    wrong = (words[:, 0] != _MAGIC) | (seqs <= before)
    crcs = _crc(heads[:, :_HEAD_BYTES])
    found = np.fromiter(map(_extend, crcs, bodies), np.uint32, len(crcs))
    wrong |= found != words[:, 4]
    return int(wrong.argmax()) if wrong.any() else len(places)


def _table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(0x82F63B78), table >> np.uint32(1))
    return table


_CRC32C: Final = _table()


def _crc(rows: npt.NDArray[np.uint8]) -> list[int]:
    """CRC-32C of each row."""
    crc = np.full(len(rows), 0xFFFFFFFF, dtype=np.uint32)
    for column in rows.T:
        crc = _CRC32C[(crc ^ column) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return (crc ^ np.uint32(0xFFFFFFFF)).tolist()  # type: ignore[no-any-return]  # numpy types tolist() as Any


def _careful(file: BinaryIO, last: int, damage: Damage) -> Iterator[list[bytes]]:
    """What is left after number `last`, record by record."""
    block, size = [], 0
    for _, seq, body in scan(file, damage):
        if seq <= last:
            continue
        block.append(body)
        size += len(body)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block
