"""Metrics frames of the same names side by side: a row for each frame, a column for each name. Pure.

A trainer reports the same names step after step. A row for each number (the table `metrics`) then says each name a
million times, and has to be transposed before any use; so the first shapes of frames in a segment are
kept here, and `metrics` has the other frames. A frame's shape, the order of its names and its labels, is stored with
the first frame that has it (`layout`), so that it lies in a page with a checksum like everything else.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from driftline.frames import Metrics

TABLE: Final = "reports"
COLUMNS: Final = {
    "seq": "int64", "hub_time": "float64", "producer": "string", "step": "int64", "version": "int64",
    "time": "float64", "shape": "int32", "layout": "string",
}  # fmt: skip
"""Columns that every file has, by the names of pyarrow's types; behind them one float64 column for each name."""
VALUE: Final = "value/"
"""Prefix of a metric's column, so that a trainer's own `time` cannot be taken for the frame's."""

MAX_SHAPES: Final = 16
MAX_COLUMNS: Final = 512
"""Bound of a segment's columns for a producer of ever new names; its other frames go to `metrics`."""
_ROWS: Final = 32_768
"""Rows of a row group: an export reads one while it writes the one before."""


class Layout(msgspec.Struct, frozen=True):
    """The shape of a frame: names of its numbers and its labels, both in the order in which they were sent."""

    names: tuple[str, ...]
    labels: dict[str, str]

    @property
    def key(self) -> tuple[object, ...]:
        """Key of the shape, with the order of the labels: dicts that differ only in order would be equal."""
        return self.names, tuple(self.labels.items())


class Part(NamedTuple):
    """Some rows; `columns` are arrays or lists of one length, `missing` masks of those that are not in every row."""

    columns: dict[str, Any]
    missing: dict[str, npt.NDArray[np.bool_]]


class Wide:
    """Collects the Metrics frames of a segment: 8 bytes for each number until they are written."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[object, ...], int] = {}
        self._layouts: list[Layout] = []
        self._values: list[array[float]] = []
        self._names: dict[str, None] = {}
        self._seq, self._step, self._version = array("q"), array("q"), array("q")
        self._hub_time, self._time = array("d"), array("d")
        self._shape = array("i")
        self._producers: list[str] = []
        self._layout_texts: list[str | None] = []

    def __len__(self) -> int:
        return len(self._seq)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the added frames, in the order in which they first came."""
        return tuple(self._names)

    def add(self, seq: int, hub_time: float, producer: str, frame: Metrics) -> bool:
        """Add the next frame in order, whose integers fit 64 bits; False, and nothing added, for one shape too many."""
        layout = Layout(tuple(frame.values), frame.labels)
        shape = self._shapes.get(layout.key)
        if shape is None:
            more = sum(name not in self._names for name in layout.names)
            if len(self._layouts) >= MAX_SHAPES or len(self._names) + more > MAX_COLUMNS:
                return False
            self._names |= dict.fromkeys(layout.names)
            shape = self._shapes[layout.key] = len(self._layouts)
            self._layouts.append(layout)
            self._values.append(array("d"))
            self._layout_texts.append(msgspec.json.encode(layout).decode())
        else:
            self._layout_texts.append(None)
        self._values[shape].extend(frame.values.values())
        for column, item in ((self._seq, seq), (self._step, frame.step), (self._version, frame.version)):
            column.append(item)
        self._hub_time.append(hub_time)
        self._time.append(frame.time)
        self._shape.append(shape)
        self._producers.append(producer)
        return True

    def parts(self) -> Iterator[Part]:
        """The rows in the order in which they came."""
        shapes = np.array(self._shape, np.int32)
        tables = [
            np.array(values, np.float64).reshape(-1, len(layout.names))
            for values, layout in zip(self._values, self._layouts, strict=True)
        ]
        done = [0] * len(tables)
        for begin in range(0, len(shapes), _ROWS):
            part = slice(begin, begin + _ROWS)
            mine = shapes[part]
            columns: dict[str, Any] = {
                "seq": np.array(self._seq[part]), "hub_time": np.array(self._hub_time[part]),
                "producer": self._producers[part], "step": np.array(self._step[part]),
                "version": np.array(self._version[part]), "time": np.array(self._time[part]),
                "shape": mine, "layout": self._layout_texts[part],
            }  # fmt: skip
            missing: dict[str, npt.NDArray[np.bool_]] = {}
            for name in self._names:
                columns[VALUE + name] = np.zeros(len(mine))
                missing[VALUE + name] = np.ones(len(mine), np.bool_)
            for shape, (table, layout) in enumerate(zip(tables, self._layouts, strict=True)):
                rows = np.flatnonzero(mine == shape)
                values = table[done[shape] : done[shape] + len(rows)]
                done[shape] += len(rows)
                for at, name in enumerate(layout.names):
                    columns[VALUE + name][rows] = values[:, at]
                    missing[VALUE + name][rows] = False
            yield Part(columns, missing)
