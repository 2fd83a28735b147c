"""Metrics frames into the stored table `reports`: as arrays where many have one layout, else frame by frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from console.export.polars_columns import schema, series, stacked, times
from console.export.projection import EVERYTHING, Projection
from console.export.schema import STORED
from console.recorded.blocks import Block, Rows, decoder
from console.recorded.compaction.read_wide import nulls
from console.recorded.metric_arrays import Layout, Layouts
from driftline.catalog.metrics import resolve
from driftline.frames import DECODE_ERRORS, FrameError, Metrics, Stamped
from driftline.text import sanitize

KEYS: Final = tuple(STORED["reports"].columns)
_ROOM: Final = 49_152
"""Rows that a batch rarely exceeds. What is not written yet costs no memory: the system maps pages when touched."""


class Reports:
    """Collects Metrics frames and builds the stored table `reports`."""

    def __init__(self, projection: Projection = EVERYTHING) -> None:
        self._projection = projection
        self._layouts = Layouts()
        self._sheets: dict[Layout, _Sheet] = {}
        self._singles: list[bytes] = []

    @property
    def rows(self) -> int:
        return sum(len(sheet) for sheet in self._sheets.values()) + len(self._singles)

    def add(self, block: Block) -> None:
        """Add the Metrics frames of a block; other frames are left out."""
        found, left = self._layouts.sort(block)
        for alike in found:
            if alike.layout not in self._sheets:
                self._sheets[alike.layout] = _Sheet(alike.layout, self._projection)
            self._sheets[alike.layout].add(alike.rows)
        self._singles += block.bodies(left)

    def frame(self) -> pl.DataFrame:
        """The rows added since the last call, in the order of the frames' numbers."""
        parts = [sheet.frame() for sheet in self._sheets.values() if len(sheet)] + _singly(self._singles)
        self._singles = []
        if not parts:
            return pl.DataFrame(schema=schema(STORED["reports"].columns))
        return parts[0] if len(parts) == 1 else stacked(parts).sort("seq")


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
        self._clear()

    def __len__(self) -> int:
        return self._n

    def _clear(self) -> None:
        self._n = 0
        self._whole: npt.NDArray[np.int64] = np.empty((len(self._ints), _ROOM), np.int64)
        self._real: npt.NDArray[np.float64] = np.empty((len(self._numbers), _ROOM))

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


def _singly(bodies: Sequence[bytes]) -> list[pl.DataFrame]:
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
