"""Columns of equal length whose oldest rows are dropped as new ones come: contiguous at any time, and bounded.

The live rows lie in a row in arrays half as large again as they may be; when the end is reached they are moved to the
front, which costs a copy of each row about twice in its life and spares every reader the seam of a ring.

A copy costs nothing: it has the same arrays, of which only what is behind its last row is written from then on. The
one that has to write before that allocates arrays of its own first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[Any]

_SMALLEST: Final = 1024


class Window:
    """At most `capacity` rows of typed columns. Rows are numbered from 0 on, for ever: `first` is the oldest kept."""

    def __init__(self, columns: Mapping[str, npt.DTypeLike], capacity: int) -> None:
        self.capacity = capacity
        self.first = 0
        self._dtypes = dict(columns)
        self._start = self._stop = 0
        self._shared = 0
        """Index in the arrays before which nothing may be written any more, because a copy shares them."""
        self._arrays = self._made(0)

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def end(self) -> int:
        """The number of the next row."""
        return self.first + len(self)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, of those of rows to come too."""
        return sum(array.nbytes for array in self._arrays.values())

    def __getitem__(self, name: str) -> Column:
        """The live rows of a column: a view, true until the next change."""
        return self._arrays[name][self._start : self._stop]

    def append(self, count: int, values: Mapping[str, npt.ArrayLike]) -> None:
        """Add `count` rows of every column. Raises ValueError where there is no room for them."""
        if len(self) + count > self.capacity:
            raise ValueError(f"no room for {count} rows beside {len(self)} of {self.capacity}")
        self._make_room(count)
        stop = self._stop + count
        for name, array in self._arrays.items():
            array[self._stop : stop] = values[name]
        self._stop = stop

    def drop_oldest(self, count: int) -> None:
        """Drop the oldest rows."""
        count = min(count, len(self))
        self._start += count
        self.first += count

    def drop_newest(self, count: int) -> None:
        """Take back the newest rows; their numbers are given again."""
        self._stop -= min(count, len(self))

    def copy(self) -> Window:
        """The live rows as they are now; they stay so while the original goes on, and the other way round."""
        twin = Window(self._dtypes, self.capacity)
        twin.first, twin._start, twin._stop = self.first, self._start, self._stop
        twin._arrays = self._arrays
        self._shared = max(self._shared, self._stop)
        twin._shared = self._stop + 1  # what is behind is the original's to write
        return twin

    def _made(self, rows: int) -> dict[str, Column]:
        return {name: np.empty(rows, dtype) for name, dtype in self._dtypes.items()}

    def _make_room(self, count: int) -> None:
        size = len(next(iter(self._arrays.values())))
        if self._stop + count <= size and self._stop >= self._shared:
            return
        need = len(self) + count
        most = self.capacity + self.capacity // 2
        wanted = size if need <= size * 2 // 3 else min(max(2 * size, 2 * need, _SMALLEST), most)
        wanted = max(wanted, need)
        old = {name: self[name] for name in self._dtypes}
        kept = len(self)
        target = self._arrays if wanted == size and not self._shared else self._made(wanted)
        for name, rows in old.items():
            target[name][:kept] = rows.copy() if target is self._arrays else rows
        self._arrays, self._start, self._stop, self._shared = target, 0, kept, 0
