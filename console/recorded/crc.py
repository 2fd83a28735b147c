"""CRC-32C of many records of one length by one pass over their bytes. Pure.

A checksum for each of a million records costs more than everything else about them, because each has to be sliced
out first. But a CRC is linear: over the field of two elements that of a row of records follows from those of the
records, and those follow from the checksum stored in each record. So the records of a row are checked by the one
CRC of all its bytes, at the speed of the memory. A single wrong record is always found, as it is alone; several wrong
ones in a row escape with a probability of 2^-32, as damage to any one of them does.

A register is a CRC that was started with 0 and is not inverted, uint32. The linear map that takes a register to what
it is `n` zero bytes later is kept as its values for each byte of the register, shape (4, 256).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from driftline.journal.records import MAGIC, PREFIX

Registers = npt.NDArray[np.uint32]
Map = npt.NDArray[np.uint32]

_POLYNOMIAL: Final = np.uint32(0x82F63B78)
_ONES: Final = np.uint32(0xFFFFFFFF)
_HEAD_BYTES: Final = PREFIX - 4


def _byte_table() -> Registers:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ _POLYNOMIAL, table >> np.uint32(1))
    return table


_TABLE: Final = _byte_table()


def row_checksums(rows: npt.NDArray[np.uint8]) -> list[int]:
    """CRC-32C of each row; for short ones."""
    crc = np.full(len(rows), _ONES, dtype=np.uint32)
    for column in rows.T:
        crc = _TABLE[(crc ^ column) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return (crc ^ _ONES).tolist()  # type: ignore[no-any-return]  # numpy types tolist() as Any


def records_checksum(seqs: npt.NDArray[np.uint64], stored: Registers, length: int) -> int:
    """CRC-32C of all the bytes of consecutive records, if each is intact.

    `seqs` and `stored` (their checksums) are read from their heads, shape (n,); `length` is that of each body in bytes.
    """
    stored_map, low_map, high_map, constant = _records(length)
    record = _zeros(PREFIX + length)
    registers = _through(stored_map, stored) ^ _through(low_map, seqs.astype(np.uint32)) ^ constant
    high = seqs >> np.uint64(32)
    if high.any():
        registers ^= _through(high_map, high.astype(np.uint32))
    count = len(registers)
    while len(registers) > 1:
        if len(registers) % 2:
            registers = np.concatenate((np.zeros(1, np.uint32), registers))
        registers = _through(record, registers[0::2]) ^ registers[1::2]
        record = _through(record, record)
    return int(registers[0] ^ _constant(count * (PREFIX + length)))


@lru_cache(maxsize=64)
def _records(length: int) -> tuple[Map, Map, Map, np.uint32]:
    """The register of an intact record as a sum of maps: of its checksum, of both halves of its number, a constant."""
    # A word behind a message is added to the register and goes four bytes through it: the register of a head is
    # four(four(four(four(magic) + length) + low) + high). What the body adds follows from the checksum, which is
    # body(head) + of body + inverted, and in the record the checksum stands between the two:
    # body(four(head + stored)) + of body = stored + inverted + body(four(head + stored) + head).
    four, body = _zeros(4), _zeros(length)
    unchanged = _zeros(0)
    high = _through(body, _through(four, four) ^ four)
    low = _through(high, four)
    stored = unchanged ^ _through(body, four)
    start = np.zeros(1, np.uint32)
    for word in (int.from_bytes(MAGIC, "little"), length):
        start = _through(four, start ^ np.uint32(word))
    return stored, low, high, np.uint32(_through(low, start)[0] ^ _constant(_HEAD_BYTES + length))


def _through(linear: Map, registers: Registers) -> Registers:
    """The map applied to each register; to the values of another map, which gives the map of both after each other."""
    parts = np.ascontiguousarray(registers, "<u4").view(np.uint8).reshape(*registers.shape, 4)
    result: Registers = linear[0][parts[..., 0]]
    for at in (1, 2, 3):
        result ^= linear[at][parts[..., at]]
    return result


@lru_cache(maxsize=512)
def _zeros(count: int) -> Map:
    """The map of `count` zero bytes, by squaring."""
    if count == 0:
        return np.arange(256, dtype=np.uint32)[None, :] << np.array([[0], [8], [16], [24]], dtype=np.uint32)
    if count == 1:
        each = _zeros(0)
        return np.asarray(_TABLE[each & np.uint32(0xFF)] ^ (each >> np.uint32(8)))
    half = _zeros(count // 2)
    whole = _through(half, half)
    return _through(_zeros(1), whole) if count % 2 else whole


def _constant(count: int) -> np.uint32:
    """Contribution of the initial value and the final inversion to the CRC of `count` bytes: the CRC of zeros."""
    return np.uint32(_through(_zeros(count), np.array([_ONES]))[0] ^ _ONES)
