"""Growable time series, one for each canonical metric name.

A series is two parallel numpy arrays, `steps` (int64, strictly ascending) and `values` (float64, NaN and Inf
kept as they came, because they show divergence). The newest writer of a step wins, which is also what
makes a run that was resumed from a checkpoint overwrite the steps it repeats.

One thread writes, another reads: an append never touches what was read before. Only rewritten values are
reported to the reader, under a lock, so that it can derive its results from them anew.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from console.recorded.metric_columns import Stretch, ascents, columns, in_turn, moments
from console.store.series.clock import Clock
from console.store.series.decimate import DIRECT, Envelope, Floats, envelope
from console.store.series.pyramid import Pyramid, Values
from console.store.series.smooth import Average
from console.store.series.steps import FIRST, StepBuffer, StepPool, Steps
from driftline.catalog.metrics import NAMES_KEPT, resolve

__all__ = ["Points", "Series", "SeriesStore", "Steps", "Values"]

_RATE: Final = "engine/tokens_per_s"
_END: Final = 2**62
"""Behind every index."""
_SPARE: Final = 10
"""One part in so many more names than are kept may come before the old ones are dropped."""


class Series:
    """One metric over the steps. Reads are views of the live buffer: cheap, and never written behind their end."""

    __slots__ = ("_buffer", "_changed", "_derived", "_lock", "_n", "_pool", "_values", "revision", "seen")

    def __init__(self, pool: StepPool | None = None) -> None:
        """`pool` has the steps of all series that may share them."""
        self._pool = StepPool() if pool is None else pool
        self._buffer: StepBuffer | None = None
        self._n = 0
        self._values: Values = np.empty(FIRST, np.float64)
        self._lock = threading.Lock()
        self._changed: tuple[int, int] | None = None
        self._derived: _Derived | None = None
        self.revision = 0
        """Counts the writes, so that a reader can check cheaply for changes."""
        self.seen = 0
        """In which turn of its store it got its newest value."""

    @classmethod
    def from_arrays(cls, steps: Steps, values: Values) -> Series:
        """A series of existing arrays, for example of a reference run. The arrays are kept, not copied.

        Raises ValueError unless the steps ascend strictly and there is a value for each.
        """
        steps, values = np.asarray(steps, np.int64), np.asarray(values, np.float64)
        if steps.shape != values.shape or steps.ndim != 1 or not bool((steps[1:] > steps[:-1]).all()):
            raise ValueError(f"steps must ascend and have a value each: {steps.shape} steps, {values.shape} values")
        series = cls()
        series._buffer, series._values, series._n, series.revision = StepBuffer(steps), values, len(steps), 1
        series._buffer.users = 1
        return series

    def close(self) -> None:
        """Nothing more will be written: its steps need not be kept for it. What was read before stays."""
        if self._buffer is not None:
            self._pool.release(self._buffer)

    def __len__(self) -> int:
        return self._n

    @property
    def steps(self) -> Steps:
        return np.empty(0, np.int64) if self._buffer is None else self._buffer.data[: self._n]

    @property
    def values(self) -> Values:
        return self._values[: self._n]

    def points(self) -> Points:
        """The points as of now; later ones do not appear in it."""
        # The length first: the arrays only ever grow behind it.
        n, revision = self._n, self.revision
        steps = np.empty(0, np.int64) if self._buffer is None else self._buffer.data[:n]
        return Points(self, steps, self._values[:n], revision)

    def put(self, step: int, value: float) -> None:
        """Record `value` at `step`: appended, replaced where the step is known, inserted where it came late."""
        n, buffer = self._n, self._buffer
        if buffer is None:
            self._buffer = self._pool.start(step)
        elif n == buffer.n - 1 and buffer.last == step:
            pass  # the usual case: another metric of the same frame was first
        elif step <= buffer.data[n - 1]:
            self._rewrite(buffer, step, value)
            return
        else:
            self._buffer = self._pool.extend(buffer, n, step)
        if n == len(self._values):
            self._reserve(n + 1)
        self._values[n] = value
        self._n = n + 1
        self.revision += 1

    def extend(self, steps: Steps, values: Values) -> None:
        """Record many values, as `put` would one by one. Shapes (n,) both; cheap where the steps ascend strictly."""
        n, buffer = self._n, self._buffer
        ascend = bool((steps[1:] > steps[:-1]).all())
        if not ascend or (buffer is not None and len(steps) and int(steps[0]) <= buffer.data[n - 1]):
            for step, value in zip(steps.tolist(), values.tolist(), strict=True):
                self.put(step, value)
            return
        if len(steps):
            self._buffer = self._pool.follow(buffer, n, steps)
            self._reserve(n + len(steps))
            self._values[n : n + len(steps)] = values
            self._n = n + len(steps)
            self.revision += len(steps)

    def _rewrite(self, buffer: StepBuffer, step: int, value: float) -> None:
        n = self._n
        at = int(np.searchsorted(buffer.data[:n], step))
        with self._lock:
            if buffer.data[at] == step:
                self._values[at] = value
                stop = at + 1
            else:
                values = self._values
                if n == len(values):
                    values = np.empty(2 * n)
                    values[:at] = self._values[:at]
                # A copy on the right-hand side: the two slices may overlap.
                values[at + 1 : n + 1] = self._values[at:n].copy()
                values[at] = value
                self._values, self._buffer = values, self._pool.insert(buffer, n, at, step)
                self._n = stop = n + 1
            before = self._changed
            # Set at the end, so that values derived during the rewrite are made anew as well.
            self._changed = (at, stop) if before is None else (min(at, before[0]), max(stop, before[1]))
            self.revision += 1

    def _reserve(self, n: int) -> None:
        if n > len(self._values):
            # A new buffer instead of a resize in place: a view handed out earlier keeps what it saw.
            values = np.empty(max(n, 2 * len(self._values)))
            values[: self._n] = self._values[: self._n]
            self._values = values

    def smoothed(self, weight: float) -> Values:
        """The debiased moving average of all values there are now. For one reading thread, as all below."""
        derived, values = self._derive()
        return derived.smoothed(values, weight)

    def pyramid(self, weight: float = 0.0, *, positive: bool = False) -> Pyramid:
        """The pyramid over all values there are now, or over their average with `weight`."""
        derived, values = self._derive()
        if weight:
            values = derived.smoothed(values, weight)
        return derived.pyramid(values, weight, positive=positive)

    def envelope(self, points: Points, edges: Floats, *, positive: bool) -> Envelope:
        """`points` of this series, or of its average, decimated into the columns between `edges`."""
        pyramid = self.pyramid(points.weight, positive=positive)
        assert self._derived is not None, "a pyramid is derived"
        # A view of what has been rewritten since must not be taken for what is there now.
        return self._derived.envelope(points, edges, pyramid, keep=points.revision == self.revision)

    def _derive(self) -> tuple[_Derived, Values]:
        if self._derived is None:
            self._derived = _Derived()
        with self._lock:
            changed, self._changed = self._changed, None
            values = self._values[: self._n]
        if changed is not None:
            self._derived.rewritten(changed)
        return self._derived, values


class _Derived:
    """Pyramids and the average of a series, each made when first asked for, then kept up to date.

    The weight 0 stands for the values as they are.
    """

    def __init__(self) -> None:
        self._pyramids: dict[tuple[float, bool], tuple[Pyramid, list[tuple[int, int]]]] = {}
        self._average: tuple[Average, list[int]] | None = None
        self._drawn: dict[tuple[float, bool], tuple[Floats, int, Envelope]] = {}
        """Columns as they were asked for last: their edges, and of how many points they are."""

    def rewritten(self, changed: tuple[int, int]) -> None:
        """Remember for each derived result which part has to be made anew."""
        self._drawn.clear()
        for (weight, _), (_, waiting) in self._pyramids.items():
            # A rewritten value changes the average up to its end.
            waiting.append(changed if weight == 0 else (changed[0], _END))
        if self._average is not None:
            self._average[1].append(changed[0])

    def smoothed(self, values: Values, weight: float) -> Values:
        """The debiased moving average of `values`; that of the last weight asked for is kept."""
        if self._average is None or self._average[0].weight != weight:
            self._average = (Average(weight), [])
            self._pyramids = {key: kept for key, kept in self._pyramids.items() if key[0] == 0}
        average, waiting = self._average
        changed = min(waiting, default=None)
        waiting.clear()
        return average.update(values, changed)

    def pyramid(self, values: Values, weight: float, *, positive: bool) -> Pyramid:
        """The pyramid over `values`, which are those of the series or their average with `weight`."""
        pyramid, waiting = self._pyramids.setdefault((weight, positive), (Pyramid(positive=positive), []))
        changed = (min(low for low, _ in waiting), max(high for _, high in waiting)) if waiting else None
        waiting.clear()
        pyramid.sync(values, changed)
        return pyramid

    def envelope(self, points: Points, edges: Floats, pyramid: Pyramid, *, keep: bool) -> Envelope:
        """The columns of `points`: those that are as they were the last time are not made anew."""
        key = points.weight, pyramid.positive
        before = self._drawn.get(key)
        at = 0
        if before is not None and 0 < before[1] <= len(points) and np.array_equal(before[0], edges):
            # New points are behind the newest point of that time: in its column, or after it.
            at = int(np.searchsorted(edges, points.steps[before[1] - 1], side="right")) - 1
            at = min(max(at, 0), len(edges) - 2)
        made = envelope(points.steps, points.values, edges[at:], pyramid)
        if before is not None and at > 0:
            made = Envelope(*(np.concatenate([old[:at], new]) for old, new in zip(before[2], made, strict=True)))
        if keep and len(edges) > 2:
            self._drawn[key] = edges, len(points), made
        return made


class Points(msgspec.Struct, frozen=True, eq=False):
    """The points of a series as of one moment: int64 and float64 of shape (n,), float32 where they are an average."""

    series: Series
    steps: Steps
    values: Values
    revision: int
    weight: float = 0.0
    """Of the moving average that `values` are; 0 for the values themselves."""

    def __len__(self) -> int:
        return len(self.steps)

    def smoothed(self, weight: float) -> Points:
        """The same points as a debiased moving average (`console.store.series.smooth`)."""
        if weight == 0:
            return self
        values = self.series.smoothed(weight)[: len(self.steps)]
        return Points(self.series, self.steps, values, self.revision, weight)

    def pyramid(self, *, positive: bool = False) -> Pyramid:
        """The pyramid over these points, and over all that came behind them since."""
        return self.series.pyramid(self.weight, positive=positive)

    def envelope(self, edges: Floats, *, positive: bool = False) -> Envelope:
        """The points decimated into the columns between `edges`; with `positive` only values above 0 count."""
        if positive or len(self) > DIRECT:
            return self.series.envelope(self, edges, positive=positive)
        return envelope(self.steps, self.values, edges)

    def at(self, step: int) -> float | None:
        """The value at `step` or the newest before it, None before the first."""
        index = int(np.searchsorted(self.steps, step, side="right")) - 1
        return float(self.values[index]) if index >= 0 else None


class SeriesStore:
    """All series of one run, by canonical name; every method takes names and aliases alike.

    At most `kept` of them, and a tenth more for a moment: where names go on coming, those that were unseen for longest
    are dropped (`gone` counts them). One that comes again begins anew; the journal has all of it.
    """

    def __init__(self, kept: int = NAMES_KEPT) -> None:
        self._series: dict[str, Series] = {}
        self._pool = StepPool()
        self._turn = 0
        self.kept, self.gone = kept, 0
        self.clock = Clock()
        """The time of each step, in seconds and in tokens."""

    def put(self, name: str, step: int, value: float) -> None:
        """Record one value."""
        self._named(resolve(name)).put(step, value)

    def record(self, step: int, time: float, values: Mapping[str, float]) -> None:
        """Record the numbers of one step, reported at `time` (seconds since the epoch, the producer's clock)."""
        self._turn += 1
        known, turn = self._series, self._turn
        for name, value in values.items():
            # All but the first time it is a canonical name that is known: a console that opens takes in 10^4 at once.
            series = known.get(name)
            if series is None:
                series = self._named(resolve(name))
            else:
                series.seen = turn
            series.put(step, value)
        rate = self._series.get(_RATE)
        if rate is not None and len(rate) and rate.steps[-1] == step:
            self.clock.put(step, time, float(rate.values[-1]))
        else:
            self.clock.put(step, time)

    def extend(self, stretches: Sequence[Stretch]) -> None:
        """Record the numbers of many steps, as `record` would frame by frame."""
        stretches = in_turn(stretches)
        for part in ascents(stretches) if stretches else ():
            steps, times, rates, rated = moments(part, _RATE)
            known = self._series.get(_RATE)
            newest = (int(known.steps[-1]), float(known.values[-1])) if known is not None and len(known) else None
            self._turn += 1
            for name, column in columns(part).items():
                self._named(name).extend(column.steps, column.values)
            self.clock.extend(steps, times, _newest_rates(steps, rates, rated, newest))

    def _named(self, name: str) -> Series:
        """The series to write to."""
        series = self._series.get(name)
        if series is None:
            if len(self._series) >= self.kept + self.kept // _SPARE:
                self._drop_unseen()
            series = self._series[name] = Series(self._pool)
        series.seen = self._turn
        return series

    def _drop_unseen(self) -> None:
        # Many at once: finding the one that was unseen for longest costs a look at each.
        oldest = sorted(self._series, key=lambda name: self._series[name].seen)[: len(self._series) - self.kept]
        for name in oldest:
            self._series.pop(name).close()
        self.gone += len(oldest)

    def names(self) -> tuple[str, ...]:
        """Canonical names, in the order in which they first came."""
        return tuple(self._series)

    def __contains__(self, name: str) -> bool:
        return resolve(name) in self._series

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._series))

    def points(self, name: str) -> Points:
        """The points of a metric as of now; none for a name that never came."""
        return (self._series.get(resolve(name)) or Series()).points()

    def steps(self, name: str) -> Steps:
        """Steps of a metric, ascending; empty for a name that never came. int64 of shape (n,)."""
        return self.points(name).steps

    def values(self, name: str) -> Values:
        """Values of a metric, one for each of `steps`. float64 of shape (n,)."""
        return self.points(name).values

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
        return max((int(series.steps[-1]) for series in tuple(self._series.values()) if len(series)), default=-1)


def _newest_rates(
    steps: Steps, rates: Floats, rated: npt.NDArray[np.bool_], before: tuple[int, float] | None
) -> Floats:
    """The rate that `record` would give the clock with each frame: the newest one if it is of the frame's own step.

    `before` is step and value of the newest rate until then. In a run that went back it lies ahead of the steps.
    """
    last = np.maximum.accumulate(np.where(rated, np.arange(len(steps)), -1))
    own = (last >= 0) & (steps[last] == steps)
    found = np.where(own, rates[last], np.nan)
    if before is not None:
        found = np.where(steps < before[0], np.nan, found)
        found = np.where(~own & (steps == before[0]), before[1], found)
    return found
