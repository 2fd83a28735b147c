"""Metrics frames as arrays, many at once. Numpy alone: used by the tables and by a console that opens a run.

Frames of one producer that carry the same names have the same bytes but for the numbers in them. So the layout of
one is found by walking through it, the others of its length are compared with it, and the numbers of those that agree
are read column by column: 30 numbers a frame cost less than the frame's checksum.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from console.recorded.blocks import Block, Rows
from driftline.catalog.metrics import resolve
from driftline.frames import MAX_INT, MAX_TIME
from driftline.text import sanitize

ALIKE: Final = 8
"""Smallest number of frames of one length for which a layout is searched; also the most layouts of one length, so that
a producer with many of them does not make it slow."""

Places = npt.NDArray[np.int64]

_WIDTHS: Final = {
    0xCC: ">u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">u8", 0xD0: ">i1", 0xD1: ">i2", 0xD2: ">i4", 0xD3: ">i8",
}  # fmt: skip
_FLOAT: Final = 0xCB


class Number(msgspec.Struct, frozen=True):
    """Offset of a number's bytes in a frame, and their numpy type."""

    at: int
    dtype: str

    def column(self, rows: Rows) -> npt.NDArray[np.generic]:
        """This number of each row, a view of shape (n,) in the byte order of the wire."""
        return rows[:, self.at : self.at + int(self.dtype[2:])].view(self.dtype)[:, 0]

    def ints(self, rows: Rows) -> npt.NDArray[np.int64]:
        """This number of each row, int64 of shape (n,)."""
        return self.column(rows).astype(np.int64)

    def floats(self, rows: Rows) -> npt.NDArray[np.float64]:
        """This number of each row, float64 of shape (n,)."""
        return self.column(rows).astype(np.float64)


class Layout(msgspec.Struct, frozen=True, eq=False):
    """One layout of encoded Metrics frames. Names are canonical and safe to show.

    `values` are its numbers by name, in the order in which the names come; `sample` is one frame, and `fixed` masks
    the bits that all frames of the layout share with it (both uint8, as long as a frame).
    """

    producer: str
    seq: Number
    hub_time: Number
    step: Number
    version: Number
    time: Number
    values: dict[str, Number]
    labels: dict[str, str]
    sample: npt.NDArray[np.uint8]
    fixed: npt.NDArray[np.uint8]


class Alike(NamedTuple):
    """Frames of one layout: their indices in a block, ascending, and their bodies (n, length)."""

    layout: Layout
    places: Places
    rows: Rows


class Layouts:
    """The layouts found so far, by the length of their frames."""

    def __init__(self) -> None:
        self._known: dict[int, list[Layout]] = defaultdict(list)

    def sort(self, block: Block) -> tuple[list[Alike], Places]:
        """The Metrics frames of a block by their layouts, and the indices of the others."""
        found: list[Alike] = []
        others: list[Places] = []
        done = 0
        for run in block.runs:
            places = np.arange(done, done + run.n)
            done += run.n
            layout = self._common_layout(block.rows(run)) if run.n >= ALIKE else None
            if layout is None:
                others.append(places)
            else:
                found.append(Alike(layout, places, block.rows(run)))
        if not others:
            return _in_range(found, np.empty(0, np.int64))
        rest = np.concatenate(others)
        rest = rest[block.tags[rest] == ord("m")]
        lengths = (block.ends - block.starts)[rest]
        single: list[Places] = []
        for length in np.unique(lengths).tolist():
            places = rest[lengths == length]
            left = places
            if len(places) >= ALIKE:
                rows = np.frombuffer(b"".join(block.bodies(places)), np.uint8).reshape(len(places), -1)
                parts, at = self._split(rows)
                found += [Alike(layout, places[which], rows[which]) for layout, which in parts]
                left = places[at]
            single.append(left)
        return _in_range(found, np.sort(np.concatenate(single)) if single else rest)

    def _common_layout(self, rows: Rows) -> Layout | None:
        """The one layout of all these frames; None if they differ."""
        known = self._known[rows.shape[1]]
        # The bits that differ between any two of them, without anything that is as large as the rows.
        some, every = np.bitwise_or.reduce(rows, axis=0), np.bitwise_and.reduce(rows, axis=0)
        differing = some ^ every
        for layout in known:
            if not ((differing | (every ^ layout.sample)) & layout.fixed).any():
                return layout
        met = self._add_layout(rows[0])
        return met if met is not None and not (differing & met.fixed).any() else None

    def _split(self, rows: Rows) -> tuple[list[tuple[Layout, Places]], Places]:
        """Indices of frames of one length by their layout, and the indices of those without one."""
        found: list[tuple[Layout, Places]] = []
        left = np.arange(len(rows))
        known = self._known[rows.shape[1]]
        tried = 0
        while len(left):
            if tried == len(known) and self._add_layout(rows[left[0]]) is None:
                break
            layout = known[tried]
            tried += 1
            fits = ~((rows[left] ^ layout.sample) & layout.fixed).any(axis=1)
            if fits.any():
                found.append((layout, left[fits]))
                left = left[~fits]
        return found, left

    def _add_layout(self, row: npt.NDArray[np.uint8]) -> Layout | None:
        """Find and remember a new layout; None if the frame has none, or if too many are known."""
        known = self._known[len(row)]
        layout = find_layout(row.tobytes()) if len(known) < ALIKE else None
        if layout is not None:
            known.append(layout)
        return layout


def _in_range(found: list[Alike], others: Places) -> tuple[list[Alike], Places]:
    """Move frames whose step, version or time is outside of `driftline.frames`' ranges to the others.

    A hub of before these ranges has journaled them. Decoded one by one they are refused, and counted by who reads.
    """
    kept, moved = [], [others]
    for layout, places, rows in found:
        fine = np.ones(len(rows), np.bool_)
        for number, low, high in (
            (layout.step, -1, MAX_INT), (layout.version, -1, MAX_INT), (layout.time, 0.0, MAX_TIME),
        ):  # fmt: skip
            numbers = number.floats(rows)
            fine &= (numbers >= low) & (numbers <= high)  # a NaN is neither
        if fine.all():
            kept.append(Alike(layout, places, rows))
            continue
        moved.append(places[~fine])
        if fine.any():
            kept.append(Alike(layout, places[fine], rows[fine]))
    return (kept, others) if len(moved) == 1 else (kept, np.sort(np.concatenate(moved)))


def find_layout(body: bytes) -> Layout | None:
    """The layout of an encoded Metrics frame; None where it is not of the usual kind."""
    try:
        return _Walk(body).layout()
    except (_UnusualError, IndexError, struct.error, UnicodeDecodeError):
        return None


class _UnusualError(Exception):
    """Bytes that a Metrics frame of this version usually does not have."""


class _Walk:
    """Parses an encoded frame once and records which bits may differ between frames of its layout."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0
        self.fixed = np.full(len(body), 0xFF, dtype=np.uint8)

    def layout(self) -> Layout:
        if self.body[0] & 0xF0 != 0x90:
            raise _UnusualError
        self.at = 1
        seq = self._int()
        hub_time = self._float()
        producer = self._text()
        if self.body[self.at] & 0xF0 != 0x90:
            raise _UnusualError
        self.at += 1
        if self._text() != "m":
            raise _UnusualError
        step, version, time = self._int(), self._int(), self._float()
        values: dict[str, Number] = {}
        for _ in range(self._map()):
            name = self._text()
            values[resolve(sanitize(name))] = self._float()
        labels: dict[str, str] = {}
        for _ in range(self._map()):
            name = self._text()
            labels[resolve(sanitize(name))] = sanitize(self._text())
        # The two numbers behind the frame are not used here.
        self.fixed[self.at :] = 0
        sample = np.frombuffer(self.body, np.uint8)
        return Layout(sanitize(producer), seq, hub_time, step, version, time, values, labels, sample, self.fixed)

    def _int(self) -> Number:
        marker = self.body[self.at]
        if marker < 0x80:
            # Its one byte is the number; the highest bit, which says so, must not differ.
            number = Number(self.at, ">u1")
            self.fixed[self.at] = 0x80
            self.at += 1
            return number
        if marker not in _WIDTHS or marker == 0xCF:
            raise _UnusualError
        number = Number(self.at + 1, _WIDTHS[marker])
        size = int(_WIDTHS[marker][2:])
        self.fixed[number.at : number.at + size] = 0
        self.at = number.at + size
        return number

    def _float(self) -> Number:
        if self.body[self.at] != _FLOAT:
            raise _UnusualError
        number = Number(self.at + 1, ">f8")
        self.fixed[number.at : number.at + 8] = 0
        self.at = number.at + 8
        return number

    def _text(self) -> str:
        marker = self.body[self.at]
        if 0xA0 <= marker < 0xC0:
            start, size = self.at + 1, marker - 0xA0
        elif marker == 0xD9:
            start, size = self.at + 2, self.body[self.at + 1]
        elif marker == 0xDA:
            start, size = self.at + 3, int.from_bytes(self.body[self.at + 1 : self.at + 3], "big")
        else:
            raise _UnusualError
        self.at = start + size
        if self.at > len(self.body):
            raise _UnusualError
        return self.body[start : self.at].decode()

    def _map(self) -> int:
        marker = self.body[self.at]
        if 0x80 <= marker < 0x90:
            self.at += 1
            return marker - 0x80
        if marker == 0xDE:
            self.at += 3
            return int.from_bytes(self.body[self.at - 2 : self.at], "big")
        raise _UnusualError
