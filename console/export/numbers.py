"""Metrics frames as flat arrays: one entry a number, however many names there are.

A table with a column for each name costs names times steps, which a producer of ever new names makes as large as it
likes. Here a number costs 12 bytes and a report 56, whatever their names; the tables `metrics` are made from that.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from console.export.schema import STORED
from console.recorded.blocks import Block, decoder
from console.recorded.metric_arrays import Alike, Layout, Layouts
from driftline.catalog.metrics import resolve
from driftline.frames import DECODE_ERRORS, FrameError, Metrics, decode
from driftline.text import sanitize

KEYS: Final = tuple(STORED["reports"].columns)
NUMBERS: Final = 1_000_000
"""Numbers of a batch, or little more: bounds the memory of a streamed table."""

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


class Names(dict[str, int]):
    """Codes of metric names, by any of their spellings as sent: the place of the canonical one in `canonical`.

    -1 for the names of KEYS: a trainer's own metric of such a name cannot take their place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.canonical: list[str] = []
        self._codes: dict[str, int] = dict.fromkeys(KEYS, -1)

    def __missing__(self, sent: str) -> int:
        name = resolve(sanitize(sent))
        code = self._codes.setdefault(name, len(self.canonical))
        if code == len(self.canonical):
            self.canonical.append(name)
        self[sent] = code
        return code

    def codes(self, names: Iterable[str]) -> Codes:
        """The code of each name."""
        return np.fromiter(map(self.__getitem__, names), np.int32)


class Numbers(NamedTuple):
    """Reports in the order of their numbers `seq`: `step`, `version`, `time` (Unix s), code of the `producer`.

    Report i has the numbers [begin[i], begin[i] + size[i]) of `codes` (of their names) and `values`. Where a name comes
    twice in a report the later one counts. Shapes (n,), of `codes` and `values` (m,).
    """

    seq: Ints
    step: Ints
    version: Ints
    time: Floats
    producer: Ints
    begin: Ints
    size: Ints
    codes: Codes
    values: Floats

    @property
    def reports(self) -> int:
        """How many reports there are."""
        return len(self.seq)

    def flat(self, which: Ints) -> tuple[Codes, Floats, Ints]:
        """Codes and values of some reports, one after the other, and for each its report's place in `which`."""
        begin, size = self.begin[which], self.size[which]
        place = np.repeat(np.arange(len(which)), size)
        if len(which) and (begin[1:] == begin[:-1] + size[:-1]).all():
            part = slice(int(begin[0]), int(begin[-1] + size[-1]))
            return self.codes[part], self.values[part], place
        at = np.repeat(begin - (np.cumsum(size) - size), size) + np.arange(len(place))
        return self.codes[at], self.values[at], place


def joined(parts: list[Numbers]) -> Numbers:
    """Reports of several parts, whose codes are those of the same Names, in the order of their numbers.

    The list is emptied: the parts and what is made of them need not be in memory together.
    """
    if not parts:
        empty = np.empty(0, np.int64)
        return Numbers(empty, empty, empty, np.empty(0), empty, empty, empty, np.empty(0, np.int32), np.empty(0))
    if len(parts) == 1:
        found = parts.pop()
    else:
        shift = 0
        columns: list[list[Any]] = [[] for _ in Numbers._fields]
        while parts:
            part = parts.pop(0)
            for column, array_ in zip(columns, part._replace(begin=part.begin + shift), strict=True):
                column.append(array_)
            shift += len(part.values)
        del part
        whole = []
        for column in columns:
            whole.append(np.concatenate(column))
            column.clear()
        found = Numbers(*whole)
    if (found.seq[1:] >= found.seq[:-1]).all():
        return found
    order = np.argsort(found.seq, kind="stable")
    return found._replace(
        seq=found.seq[order],
        step=found.step[order],
        version=found.version[order],
        time=found.time[order],
        producer=found.producer[order],
        begin=found.begin[order],
        size=found.size[order],
    )


class Collector:
    """Collects Metrics frames of blocks, or columns of the same names, and gives them as Numbers."""

    def __init__(self, names: Names, producers: dict[str, int]) -> None:
        self._names = names
        self._producers = producers
        self._layouts = Layouts()
        self._known: dict[Layout, Codes] = {}
        self._parts: list[Numbers] = []
        self.reports = self.numbers = 0

    def add(self, block: Block) -> None:
        """Add the Metrics frames of a block; other frames are left out."""
        found, left = self._layouts.sort(block)
        for alike in found:
            self.add_alike(alike)
        self.add_singly(block.bodies(left))

    def add_alike(self, alike: Alike) -> None:
        """Add frames of one layout."""
        layout, rows = alike.layout, alike.rows
        if layout not in self._known:
            self._known[layout] = self._names.codes(layout.values)
        values = np.empty((len(rows), len(layout.values)))
        for at, number in enumerate(layout.values.values()):
            values[:, at] = number.column(rows)
        keys = layout.seq.ints(rows), layout.step.ints(rows), layout.version.ints(rows), layout.time.floats(rows)
        self.add_columns(*keys, layout.producer, self._known[layout], values)

    def add_columns(
        self, seq: Ints, step: Ints, version: Ints, time: Floats, producer: str | Ints, codes: Codes, values: Floats
    ) -> None:
        """Add reports of the same names: `values` of shape (n, names)."""
        count, width = values.shape
        sent_by = np.full(count, self.producer(producer)) if isinstance(producer, str) else producer
        begin, size = np.arange(count) * width, np.full(count, width)
        flat = values.ravel()
        self.add_part(Numbers(seq, step, version, time, sent_by, begin, size, np.tile(codes, count), flat))

    def add_part(self, part: Numbers) -> None:
        """Add reports whose codes are those of the collector's names."""
        if part.reports:
            self._parts.append(part)
            self.reports += part.reports
            self.numbers += len(part.values)

    def producer(self, name: str) -> int:
        """The code of a producer's name."""
        return self._producers.setdefault(name, len(self._producers))

    def add_singly(self, bodies: Sequence[bytes]) -> None:
        """Add frames that are decoded one by one."""
        ints = [array("q") for _ in range(5)]
        times, codes, values = array("d"), array("i"), array("d")
        for body in bodies:
            try:
                stamped = decoder.decode(body)
                frame = decode(bytes(stamped.body))
            except (FrameError, *DECODE_ERRORS):
                continue  # of a newer producer
            if not isinstance(frame, Metrics):
                continue
            # Not sanitised as a whole: each spelling of a name is, once, by `Names`.
            codes.extend(map(self._names.__getitem__, frame.values))
            values.extend(frame.values.values())
            producer = self.producer(sanitize(stamped.producer))
            for column, number in zip(
                ints, (stamped.seq, frame.step, frame.version, producer, len(frame.values)), strict=True
            ):
                column.append(number)
            times.append(frame.time)
        seq, step, version, sent_by, size = (np.array(column, np.int64) for column in ints)
        begin = np.cumsum(size) - size
        self.add_part(
            Numbers(
                seq, step, version, np.array(times), sent_by, begin, size, np.array(codes, np.int32), np.array(values)
            )
        )

    def take(self) -> Numbers:
        """The reports that were added since the last call, in the order of their numbers."""
        parts, self._parts, self.reports, self.numbers = self._parts, [], 0, 0
        return joined(parts)


def batches(blocks: Iterable[Block], names: Names, producers: dict[str, int]) -> Iterator[Numbers]:
    """The reports in blocks of encoded frames (all kinds), in parts of about NUMBERS numbers."""
    making = Collector(names, producers)
    for block in blocks:
        making.add(block)
        if making.numbers + making.reports >= NUMBERS:
            yield making.take()
    if making.reports:
        yield making.take()
