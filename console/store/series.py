"""Growable time series, one for each canonical metric name.

A series is two parallel numpy arrays, `steps` (int64, strictly ascending) and `values` (float64, NaN and Inf
kept as they came: divergence is what people look for). The newest writer of a step wins, which is also what
makes a run that was resumed from a checkpoint overwrite the steps it repeats.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from driftline.metrics import resolve

Steps = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

_FIRST = 256


class Series:
    """One metric over the steps. Reads are views of the live buffer: cheap, and never written behind their end."""

    __slots__ = ("_n", "_steps", "_values", "revision")

    def __init__(self) -> None:
        self._n = 0
        self._steps: Steps = np.empty(_FIRST, np.int64)
        self._values: Values = np.empty(_FIRST, np.float64)
        self.revision = 0
        """Counts the writes, so that a reader can tell cheaply that nothing changed."""

    def __len__(self) -> int:
        return self._n

    @property
    def steps(self) -> Steps:
        return self._steps[: self._n]

    @property
    def values(self) -> Values:
        return self._values[: self._n]

    def put(self, step: int, value: float) -> None:
        """Record `value` at `step`: appended, replaced where the step is known, inserted where it came late."""
        n = self._n
        self.revision += 1
        if n and step <= self._steps[n - 1]:
            at = int(np.searchsorted(self._steps[:n], step))
            if self._steps[at] == step:
                self._values[at] = value
                return
            self._grow()
            # Copies on the right-hand side: the two slices overlap.
            self._steps[at + 1 : n + 1] = self._steps[at:n].copy()
            self._values[at + 1 : n + 1] = self._values[at:n].copy()
            self._steps[at], self._values[at] = step, value
        else:
            self._grow()
            self._steps[n], self._values[n] = step, value
        self._n = n + 1

    def _grow(self) -> None:
        if self._n < len(self._steps):
            return
        # New buffers instead of a resize in place: a view handed out earlier keeps what it saw.
        self._steps = np.concatenate([self._steps, np.empty_like(self._steps)])
        self._values = np.concatenate([self._values, np.empty_like(self._values)])


class SeriesStore:
    """All series of one run, by canonical name; every method takes names and aliases alike."""

    def __init__(self) -> None:
        self._series: dict[str, Series] = {}

    def put(self, name: str, step: int, value: float) -> None:
        """Record one value."""
        name = resolve(name)
        series = self._series.get(name)
        if series is None:
            series = self._series[name] = Series()
        series.put(step, value)

    def names(self) -> tuple[str, ...]:
        """Canonical names, in the order in which they first came."""
        return tuple(self._series)

    def __contains__(self, name: str) -> bool:
        return resolve(name) in self._series

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._series))

    def steps(self, name: str) -> Steps:
        """Steps of a metric, ascending; empty for a name that never came. int64 of shape (n,)."""
        series = self._series.get(resolve(name))
        return series.steps if series is not None else np.empty(0, np.int64)

    def values(self, name: str) -> Values:
        """Values of a metric, one for each of `steps`. float64 of shape (n,)."""
        series = self._series.get(resolve(name))
        return series.values if series is not None else np.empty(0, np.float64)

    def last(self, name: str) -> float | None:
        """The value at the highest step, or None for a name that never came."""
        series = self._series.get(resolve(name))
        return float(series.values[-1]) if series is not None and len(series) else None

    def revision(self, name: str) -> int:
        """A number that changes whenever the metric gets a value; 0 for a name that never came."""
        series = self._series.get(resolve(name))
        return series.revision if series is not None else 0

    def last_step(self) -> int:
        """The highest step of any metric, -1 without one."""
        return max((int(series.steps[-1]) for series in self._series.values() if len(series)), default=-1)
