"""CRC-32C of many records of one length by two passes over as many bytes. Pure.

A checksum for each of a million records costs more than everything else about them, because each has to be sliced
out first. But a CRC is linear: over the field of two elements that of a row of records follows from those of the
records, and those follow from the checksum stored in each record. So the records of a row are checked by the one
CRC of all its bytes, at the speed of the memory. A single wrong record is always found, as it is alone; several wrong
ones in a row escape with a probability of 2^-32, as damage to any one of them does.

What the CRC must be is found by the same instruction: as the CRC of bytes of the same length that are zero but for
five words a record, which depend on the record's head alone.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Final

import google_crc32c
import numpy as np
import numpy.typing as npt

from driftline.journal.records import MAGIC, PREFIX

Registers = npt.NDArray[np.uint32]

_POLYNOMIAL: Final = np.uint32(0x82F63B78)
_ONES: Final = np.uint32(0xFFFFFFFF)
_HEAD_BYTES: Final = PREFIX - 4
_WORDS: Final = PREFIX // 4
_MAGIC: Final = np.uint32(int.from_bytes(MAGIC, "little"))
_LEAST: Final = 1 << 22
"""Bytes of zeros that are kept, so that a block needs no new memory."""


def _byte_table() -> Registers:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ _POLYNOMIAL, table >> np.uint32(1))
    return table


_TABLE: Final = _byte_table()


class _Zeros(threading.local):
    """Zero bytes, of each thread its own; who writes into them makes them zero again."""

    def __init__(self) -> None:
        self._bytes = np.zeros(0, np.uint8)

    def take(self, count: int) -> npt.NDArray[np.uint8]:
        """So many of them."""
        if count > len(self._bytes):
            if count > _LEAST:
                return np.zeros(count, np.uint8)
            self._bytes = np.zeros(_LEAST, np.uint8)
        return self._bytes[:count]


_zeros: Final = _Zeros()


def row_checksums(rows: npt.NDArray[np.uint8]) -> list[int]:
    """CRC-32C of each row; for short ones."""
    crc = np.full(len(rows), _ONES, dtype=np.uint32)
    for column in rows.T:
        crc = _TABLE[(crc ^ column) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return (crc ^ _ONES).tolist()  # type: ignore[no-any-return]  # numpy types tolist() as Any


def records_checksum(seqs: npt.NDArray[np.uint64], stored: Registers, length: int) -> int:
    """CRC-32C of all the bytes of consecutive records, if each is intact.

    `seqs` and `stored` (their checksums) are read from their heads, shape (n,) with n > 0; `length` is that of each
    body in bytes.
    """
    # Write R(x) for the register (a CRC that was started with 0 and is not inverted) of bytes x, and 0.. for zero bytes
    # in place of those that follow. The record's register is R(head, stored, body) = R(head, stored, 0..) + R(body),
    # and its checksum, over head and body without itself, stored + inverted = R(head, 0..) + R(body). So the record has
    # R(head, stored, 0..) + R(head, 0..) + stored + inverted: the bytes of head and checksum, the head once more
    # four bytes later, and behind the record, where a register is added to the bytes that come next, a word.
    count, stride = len(seqs), PREFIX + length
    zeros = _zeros.take(count * stride)
    words = np.ndarray((count, _WORDS), "<u4", zeros, 0, (stride, 4))
    low, high = seqs.astype(np.uint32), (seqs >> np.uint64(32)).astype(np.uint32)
    behind = stored ^ _inverted(length)
    words[0, 0] = _MAGIC
    np.bitwise_xor(behind[:-1], _MAGIC, out=words[1:, 0])
    words[:, 1] = _MAGIC ^ np.uint32(length)
    np.bitwise_xor(low, np.uint32(length), out=words[:, 2])
    np.bitwise_xor(low, high, out=words[:, 3])
    np.bitwise_xor(stored, high, out=words[:, 4])
    found = int(google_crc32c.value(zeros)) ^ int(behind[-1])
    words[:] = 0
    return found


@lru_cache(maxsize=512)
def _inverted(length: int) -> np.uint32:
    """What initial value and final inversion add to a record's checksum: the CRC of so many zeros."""
    return np.uint32(google_crc32c.value(bytes(_HEAD_BYTES + length)))
