"""From a series of any length to one envelope per dot column.

A chart has a few hundred dot columns; a run has as many steps as it likes. For each column we keep the lowest and
the highest finite value, so no spike is lost, and the first and last, so that neighbouring columns can be joined
as a line through all points would be. Where a column holds many points they are read from a pyramid
(`console.store.series.pyramid`), so that a million cost what ten thousand do (measured by tests/bench/bench_chart.py).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from console.store.series.pyramid import Pyramid, Values

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DIRECT: Final = 40_000
"""Points up to which one pass over all of them is faster than the pyramid."""
_FAR: Final = float(2**62)


class Envelope(NamedTuple):
    """Per dot column, each of shape (columns,): float64, NaN where no finite value fell into the column.

    `low`/`high` bound the values, `first`/`last` are in order of the steps, `broken` is True where a NaN or Inf fell
    into the column.
    """

    low: Floats
    high: Floats
    first: Floats
    last: Floats
    broken: Bools


def columns(start: float, stop: float, count: int) -> Floats:
    """Edges of `count` equal columns over [start, stop], both ends included: float64 of shape (count + 1,).

    Raises ValueError for an empty interval or no columns.
    """
    if count < 1 or not stop > start:
        raise ValueError(f"cannot decimate [{start}, {stop}] into {count} columns")
    edges = start + np.arange(count + 1) * ((stop - start) / count)
    edges[-1] = np.nextafter(stop, np.inf)
    return np.asarray(edges)


def spans(steps: npt.NDArray[np.int64], edges: Floats) -> npt.NDArray[np.int64]:
    """Index of the first step at or above each edge, shape as `edges`."""
    # As integers: numpy would copy all of the steps to compare them with floats.
    limits = np.clip(np.ceil(edges), -_FAR, _FAR).astype(np.int64)
    return np.asarray(np.searchsorted(steps, limits), np.int64)


def envelope(steps: npt.NDArray[np.int64], values: Values, edges: Floats, pyramid: Pyramid | None = None) -> Envelope:
    """Decimate the points into columns: column i takes the steps in [edges[i], edges[i + 1]).

    `steps` must ascend, `edges` must not fall. With a pyramid that is in sync with `values` the cost does not depend on
    how many points there are, and what counts is what counts for it; without one, only finite values do.
    """
    bounds = spans(steps, edges)
    left, right = bounds[:-1], bounds[1:]
    if pyramid is None or (not pyramid.positive and int(bounds[-1] - bounds[0]) <= DIRECT):
        return _direct(values, left, right)
    low, high, broken = pyramid.bounds(values, left, right)
    empty = np.isinf(low)
    low[empty] = high[empty] = np.nan
    first, last = low.copy(), high.copy()
    filled = np.flatnonzero(~empty)
    first[filled], last[filled] = values[left[filled]], values[right[filled] - 1]
    # Only a column that has values which do not count can begin or end with one.
    for column in np.flatnonzero(broken & ~empty).tolist():
        begin, stop = int(left[column]), int(right[column])
        if not pyramid.counts(values[begin : begin + 1])[0]:
            first[column] = values[pyramid.find(values, begin, stop)]
        if not pyramid.counts(values[stop - 1 : stop])[0]:
            last[column] = values[pyramid.find(values, begin, stop, forward=False)]
    return Envelope(low, high, first, last, broken)


def _direct(values: Values, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> Envelope:
    """One pass over the values: the fastest way where there are few."""
    count = len(left)
    filled = right > left
    low, high, first, last = (np.full(count, np.nan) for _ in range(4))
    broken = np.zeros(count, np.bool_)
    if not filled.any():
        return Envelope(low, high, first, last, broken)
    begin, end = int(left[0]), int(right[-1])
    part = values[begin:end]
    finite = np.isfinite(part)
    starts = left[filled] - begin
    if finite.all():
        low[filled] = np.minimum.reduceat(part, starts)
        high[filled] = np.maximum.reduceat(part, starts)
        first[filled] = part[starts]
        last[filled] = part[right[filled] - begin - 1]
        return Envelope(low, high, first, last, broken)
    part = np.where(finite, part, np.nan)
    low[filled] = np.fmin.reduceat(part, starts)
    high[filled] = np.fmax.reduceat(part, starts)
    broken[filled] = np.bitwise_or.reduceat(~finite, starts)
    # First and last finite point of each column: the smallest and largest index among the finite ones.
    index = np.arange(len(part))
    first_at = np.minimum.reduceat(np.where(finite, index, len(part)), starts)
    last_at = np.maximum.reduceat(np.where(finite, index, -1), starts)
    has = last_at >= 0
    where = np.flatnonzero(filled)[has]
    first[where] = part[first_at[has]]
    last[where] = part[last_at[has]]
    return Envelope(low, high, first, last, broken)


def joined(env: Envelope) -> Envelope:
    """Fill the empty columns between two points by straight lines and let neighbours touch.

    A gap stays a gap where a NaN or Inf lies in it; nothing is drawn before the first and after the last point.
    """
    has = np.flatnonzero(~np.isnan(env.first))
    if len(has) == 0:
        return env
    low, high, first, last = env.low.copy(), env.high.copy(), env.first.copy(), env.last.copy()
    broken = env.broken
    first_column, last_column = int(has[0]), int(has[-1])
    inner = np.arange(first_column, last_column + 1)
    # Each column's neighbours with points: at or before it, and at or after it.
    before = has[np.searchsorted(has, inner, side="right") - 1]
    after = has[np.searchsorted(has, inner, side="left")]
    empty = before != after
    breaks = np.concatenate([[0], np.cumsum(broken)])
    whole = breaks[after] == breaks[np.minimum(before + 1, after)]
    fill = empty & whole
    if fill.any():
        column, p, q = inner[fill], before[fill], after[fill]
        with np.errstate(over="ignore"):  # between the largest and the smallest number: infinite, and drawn as that
            y = last[p] + (first[q] - last[p]) * ((column - p) / (q - p))
        low[column] = high[column] = first[column] = last[column] = y
    # The step from one column to the next is drawn half in each.
    a, b = slice(first_column, last_column), slice(first_column + 1, last_column + 1)
    middle = last[a] / 2 + first[b] / 2  # each half first: a sum of two large values is infinite
    # A NaN column beside a filled one ends the line; fmin and fmax ignore it.
    low_a, high_a = np.fmin(low[a], middle), np.fmax(high[a], middle)
    low_b, high_b = np.fmin(low[b], middle), np.fmax(high[b], middle)
    low[a], high[a] = low_a, high_a
    low[b], high[b] = np.fmin(low[b], low_b), np.fmax(high[b], high_b)
    return Envelope(low, high, first, last, broken)
