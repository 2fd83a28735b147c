"""Metrics frames into columns, many at once.

Frames of one producer that carry the same names have the same bytes but for the numbers in them. So the layout of
one is found by walking through it, the others of its length are held against it as one array of bytes, and the
numbers of those that agree are cut out column by column: 30 numbers a frame cost less than the frame's checksum.
Whatever does not fit that picture is decoded by itself.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from console.snapshot.records import decoder
from console.snapshot.series import schema, series, times
from console.tables import STORED
from driftline.frames import DECODE_ERRORS, FrameError, Metrics, Stamped
from driftline.metrics import resolve
from driftline.text import sanitize

KEYS: Final = tuple(STORED["reports"].columns)
_ALIKE: Final = 8
"""Frames of one layout from which on it pays to look for the layout."""

_WIDTHS: Final = {
    0xCC: ">u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">u8", 0xD0: ">i1", 0xD1: ">i2", 0xD2: ">i4", 0xD3: ">i8",
}  # fmt: skip
_FLOAT: Final = 0xCB


class Number(msgspec.Struct, frozen=True):
    """Where a number's bytes are in a frame and of which numpy type they are."""

    at: int
    dtype: str


class Layout(msgspec.Struct, frozen=True):
    """One layout of encoded Metrics frames: its numbers, the names of its values, and a mask of what never differs."""

    producer: str
    seq: Number
    step: Number
    version: Number
    time: Number
    values: dict[str, Number]
    fixed: npt.NDArray[np.uint8]


class Reports:
    """Collects Metrics frames and gives them as the stored table `reports`."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []
        self._layouts: dict[int, list[tuple[bytes, Layout]]] = defaultdict(list)
        self.rows = 0

    def take(self, encoded: Sequence[bytes]) -> None:
        """Take over encoded Metrics frames, in the order of their numbers; what is no such frame is left out."""
        parts: list[pl.DataFrame] = []
        by_length: dict[int, list[bytes]] = defaultdict(list)
        for one in encoded:
            by_length[len(one)].append(one)
        single: list[bytes] = []
        for alike in by_length.values():
            if len(alike) >= _ALIKE:
                single += self._alike(alike, parts)
            else:
                single += alike
        parts += _singly(single)
        if not parts:
            return
        part = parts[0] if len(parts) == 1 else pl.concat(parts, how="diagonal")
        if len(parts) > 1 or single:  # what is of one layout is in order
            part = part.sort("seq")
        self.rows += part.height
        self._parts.append(part)

    def frame(self) -> pl.DataFrame:
        """What was taken since the last time."""
        parts, self._parts, self.rows = self._parts, [], 0
        if not parts:
            return pl.DataFrame(schema=schema(STORED["reports"].columns))
        return pl.concat(parts, how="diagonal")

    def _alike(self, bodies: list[bytes], parts: list[pl.DataFrame]) -> list[bytes]:
        """Cut the numbers out of frames of one length; return those of no layout that is worth it."""
        array = np.frombuffer(b"".join(bodies), np.uint8).reshape(len(bodies), -1)
        left = np.arange(len(bodies))
        known = self._layouts[array.shape[1]]
        tried = 0
        while len(left):
            if tried == len(known):
                sample = array[left[0]].tobytes()
                layout = find_layout(sample)
                if layout is None or tried >= _ALIKE:
                    break
                known.append((sample, layout))
            sample, layout = known[tried]
            tried += 1
            rows = array[left] if len(left) < len(bodies) else array
            fits = ~((rows ^ np.frombuffer(sample, np.uint8)) & layout.fixed).any(axis=1)
            if fits.all():
                parts.append(_cut(rows, layout))
                left = left[:0]
            elif fits.any():
                parts.append(_cut(rows[fits], layout))
                left = left[~fits]
        return [bodies[at] for at in left]


def _cut(rows: npt.NDArray[np.uint8], layout: Layout) -> pl.DataFrame:
    def numbers(number: Number) -> npt.NDArray[np.generic]:
        return np.ndarray((len(rows),), number.dtype, rows, number.at, (rows.strides[0],))

    def ints(number: Number) -> npt.NDArray[np.int64]:
        return numbers(number).astype(np.int64)

    columns: dict[str, pl.Series] = {
        "seq": pl.Series("seq", ints(layout.seq)),
        "producer": pl.repeat(layout.producer, len(rows), dtype=pl.String(), eager=True),
        "step": pl.Series("step", ints(layout.step)),
        "time": times("time", numbers(layout.time).astype(np.float64)),
        "version": pl.Series("version", ints(layout.version)),
    }
    for name, number in layout.values.items():
        columns[name] = pl.Series(name, numbers(number).astype(np.float64))
    return pl.DataFrame(columns)


def _singly(bodies: list[bytes]) -> list[pl.DataFrame]:
    """Frames decoded one by one, as one table for each set of names."""
    groups: dict[tuple[str, ...], list[tuple[Stamped, Metrics, dict[str, float]]]] = defaultdict(list)
    for body in bodies:
        try:
            stamped = decoder.decode(body)
            frame = stamped.frame()
        except (FrameError, *DECODE_ERRORS):
            continue  # of a newer producer
        if isinstance(frame, Metrics):
            values = {resolve(name): value for name, value in frame.values.items()}
            # The keys win: a trainer's own metric of such a name cannot take their place.
            kept = {name: value for name, value in values.items() if name not in KEYS}
            groups[tuple(kept)].append((stamped, frame, kept))
    parts = []
    for names, rows in groups.items():
        columns = {
            "seq": series("seq", "int", [stamped.seq for stamped, _, _ in rows]),
            "producer": series("producer", "str", [sanitize(stamped.producer) for stamped, _, _ in rows]),
            "step": series("step", "int", [frame.step for _, frame, _ in rows]),
            "time": series("time", "time", [frame.time for _, frame, _ in rows]),
            "version": series("version", "int", [frame.version for _, frame, _ in rows]),
        }
        for name in names:
            columns[name] = series(name, "float", [values[name] for _, _, values in rows])
        parts.append(pl.DataFrame(columns))
    return parts


def find_layout(body: bytes) -> Layout | None:
    """The layout of an encoded Metrics frame; None where it is not of the usual kind."""
    try:
        return _Walk(body).layout()
    except (_UnusualError, IndexError, struct.error, UnicodeDecodeError):
        return None


class _UnusualError(Exception):
    """Bytes that a Metrics frame of this version usually does not have."""


class _Walk:
    """Walks once through an encoded frame, noting what may differ in its like."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0
        self.fixed = np.full(len(body), 0xFF, dtype=np.uint8)

    def layout(self) -> Layout:
        if self.body[0] & 0xF0 != 0x90:
            raise _UnusualError
        self.at = 1
        seq = self._int()
        self._float()
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
        # Labels and what else a frame has stay as they are; behind it are two numbers of no interest here.
        end = len(self.body)
        self._skip_labels()
        self.fixed[self.at : end] = 0
        kept = {name: number for name, number in values.items() if name not in KEYS}
        return Layout(sanitize(producer), seq, step, version, time, kept, self.fixed)

    def _skip_labels(self) -> None:
        for _ in range(self._map()):
            self._text()
            self._text()

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
