"""Metrics frames into the stored table `reports`: as arrays where many have one layout, else frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from console.export.numbers import KEYS, Codes, Collector, Names, Numbers
from console.export.polars_columns import stacked, times
from console.export.projection import EVERYTHING, Projection
from console.export.steps import CELLS, MANY_NAMES, dense
from console.recorded.blocks import Block, Rows
from console.recorded.compaction.read_wide import nulls
from console.recorded.metric_arrays import Layout, Layouts

_SHEETS: Final = 16
"""Layouts whose frames are collected in memory of their own; those of further ones are collected number by number."""
_ROOM: Final = 49_152
"""Rows that a batch rarely exceeds. What is not written yet costs no memory: the system maps pages when touched."""


class Reports:
    """Collects Metrics frames and builds the stored table `reports`."""

    def __init__(self, projection: Projection = EVERYTHING) -> None:
        self._projection = projection
        self._layouts = Layouts()
        self._sheets: dict[Layout, _Sheet] = {}
        self._names = Names()
        self._producers: dict[str, int] = {}
        self._others = Collector(self._names, self._producers)

    @property
    def rows(self) -> int:
        """Rows that were added since the last `frames`."""
        return sum(len(sheet) for sheet in self._sheets.values()) + self._others.reports

    def is_full(self, rows: int) -> bool:
        """Whether there are so many rows, or numbers in them as in a part of bounded size."""
        numbers = sum(sheet.cells for sheet in self._sheets.values()) + self._others.numbers
        # With many names a part shows soon that this form of the table is not the one to take.
        return self.rows >= rows or numbers >= CELLS or len(self._names.canonical) > MANY_NAMES

    def add(self, block: Block) -> None:
        """Add the Metrics frames of a block; other frames are left out."""
        found, left = self._layouts.sort(block)
        for alike in found:
            if alike.layout not in self._sheets and len(self._sheets) < _SHEETS:
                self._sheets[alike.layout] = _Sheet(alike.layout, self._projection)
            if alike.layout in self._sheets:
                self._sheets[alike.layout].add(alike.rows)
            else:
                self._others.add_alike(alike)
        self._others.add_singly(block.bodies(left))

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows added since the last call, in the order of the frames' numbers; in parts, where names are many."""
        sheets = [sheet.frame() for sheet in self._sheets.values() if len(sheet)]
        others = list(parts(self._others.take(), self._names, self._producers, self._projection))
        if not sheets or not others:
            yield from others if len(sheets) == 0 else [sheets[0] if len(sheets) == 1 else stacked(sheets).sort("seq")]
            return
        # Cut where the other frames are.
        rows = sheets[0] if len(sheets) == 1 else stacked(sheets).sort("seq")
        limits = np.searchsorted(rows["seq"].to_numpy(), [part["seq"][0] for part in others[1:]])
        for part, begin, end in zip(others, [0, *limits.tolist()], [*limits.tolist(), rows.height], strict=True):
            yield stacked([rows[begin:end], part]).sort("seq") if end > begin else part


def parts(
    numbers: Numbers, names: Names, producers: dict[str, int], projection: Projection = EVERYTHING
) -> Iterator[pl.DataFrame]:
    """Reports as the stored table `reports`, in parts of at most CELLS names times rows."""
    sent_by = pl.Series("producer", list(producers), pl.String())
    begin, end = 0, numbers.reports
    while begin < numbers.reports:
        # Where a part had to be small, the next one will hardly be much larger.
        end = _fitting(numbers, begin, min(numbers.reports, end))
        which = np.arange(begin, end)
        codes, values, row = numbers.flat(which)
        present = {names.canonical[code]: code for code in _distinct(codes) if code >= 0}
        wanted = {name: code for name, code in present.items() if projection.has(name)}
        found = dense(row, codes, values, end - begin, wanted)
        columns = {
            "seq": pl.Series("seq", numbers.seq[begin:end]),
            "producer": sent_by.gather(numbers.producer[begin:end]),
            "step": pl.Series("step", numbers.step[begin:end]),
            "time": times("time", numbers.time[begin:end]),
            "version": pl.Series("version", numbers.version[begin:end]),
        }
        absent = nulls("", pl.Null(), end - begin)
        for name in present:
            columns[name] = found[name] if name in found else absent.alias(name)
        yield pl.DataFrame(columns)
        begin, end = end, end + 2 * (end - begin)


def _distinct(codes: Codes) -> list[int]:
    """The distinct codes in the order in which they first come."""
    found, first = np.unique(codes, return_index=True)
    return found[np.argsort(first)].tolist()  # type: ignore[no-any-return]  # numpy types tolist() as Any


def _fitting(numbers: Numbers, begin: int, end: int) -> int:
    """Where a part that begins at a report has to end, at most at `end`; reports of ever new names fill it sooner."""
    while end > begin + 1:
        first = int(numbers.begin[begin:end].min())
        last = int((numbers.begin[begin:end] + numbers.size[begin:end]).max())
        names = min(len(np.unique(numbers.codes[first:last])), int(numbers.size[begin:end].sum()))
        if names * (end - begin) <= CELLS:
            break
        end = begin + (end - begin) // 2
    return end


class _Sheet:
    """Numbers of frames of one layout, a row of memory for each name.

    The memory belongs to the batch that is made of it: Polars uses the arrays without a copy.
    """

    def __init__(self, layout: Layout, projection: Projection) -> None:
        self._layout = layout
        # The keys win: a trainer's own metric of such a name cannot take their place.
        self._names = [name for name in layout.values if name not in KEYS]
        self._places = {name: at for at, name in enumerate(filter(projection.has, self._names), 1)}
        self._numbers = [layout.time, *(layout.values[name] for name in self._places)]
        self._ints = [layout.seq, layout.step, layout.version]
        self._room = min(_ROOM, max(CELLS // len(self._numbers), 64))
        self._clear()

    def __len__(self) -> int:
        return self._n

    @property
    def cells(self) -> int:
        return self._n * len(self._numbers)

    def _clear(self) -> None:
        self._n = 0
        self._whole: npt.NDArray[np.int64] = np.empty((len(self._ints), self._room), np.int64)
        self._real: npt.NDArray[np.float64] = np.empty((len(self._numbers), self._room))

    def add(self, rows: Rows) -> None:
        """Copy the numbers from frames of this layout."""
        end = self._n + len(rows)
        if end > self._whole.shape[1]:
            self._whole, self._real = _wider(self._whole, self._n, end), _wider(self._real, self._n, end)
        for array, numbers in ((self._whole, self._ints), (self._real, self._numbers)):
            for at, number in enumerate(numbers):
                array[at, self._n : end] = number.column(rows)
        self._n = end

    def frame(self) -> pl.DataFrame:
        """The rows added since the last call."""
        n, real = self._n, self._real
        seq, step, version = self._whole[:, :n]
        self._clear()
        columns = {
            "seq": pl.Series("seq", seq),
            "producer": pl.Series("producer", [self._layout.producer]).new_from_index(0, n),
            "step": pl.Series("step", step),
            "time": times("time", real[0, :n]),
            "version": pl.Series("version", version),
        }
        for name in self._names:
            at = self._places.get(name)
            columns[name] = nulls(name, pl.Null(), n) if at is None else pl.Series(name, real[at, :n])
        return pl.DataFrame(columns)


def _wider(array: np.ndarray, n: int, end: int) -> np.ndarray:
    wider = np.empty((array.shape[0], max(end, 2 * array.shape[1])), array.dtype)
    wider[:, :n] = array[:, :n]
    return wider
