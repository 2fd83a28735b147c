"""From a series of any length to one envelope per dot column, in one vectorised pass.

A chart has a few hundred dot columns; a run has as many steps as it likes. For each column we keep the lowest and
the highest finite value, so no spike is lost, and the first and last, so that neighbouring columns can be joined
as a line through all points would be. Cost: one pass over the values in view (measured by tests/bench/bench_chart.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


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


def envelope(steps: npt.NDArray[np.int64], values: Floats, start: float, stop: float, columns: int) -> Envelope:
    """Decimate the points with start <= step <= stop into `columns` equal columns.

    `steps` must ascend. One point more on either side is not taken: see `joined` for what happens at the edges.
    Raises ValueError for an empty interval or no columns.
    """
    if columns < 1 or not stop > start:
        raise ValueError(f"cannot decimate [{start}, {stop}] into {columns} columns")
    edges = start + np.arange(columns + 1) * ((stop - start) / columns)
    edges[-1] = np.nextafter(stop, np.inf)
    bounds = np.searchsorted(steps, edges)
    left, right = bounds[:-1], bounds[1:]
    filled = right > left
    low, high, first, last = (np.full(columns, np.nan) for _ in range(4))
    broken = np.zeros(columns, np.bool_)
    if not filled.any():
        return Envelope(low, high, first, last, broken)
    begin, end = int(bounds[0]), int(bounds[-1])
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
        y = last[p] + (first[q] - last[p]) * ((column - p) / (q - p))
        low[column] = high[column] = first[column] = last[column] = y
    # The step from one column to the next is drawn half in each.
    a, b = slice(first_column, last_column), slice(first_column + 1, last_column + 1)
    middle = (last[a] + first[b]) / 2
    # A NaN column beside a filled one ends the line; fmin and fmax ignore it.
    low_a, high_a = np.fmin(low[a], middle), np.fmax(high[a], middle)
    low_b, high_b = np.fmin(low[b], middle), np.fmax(high[b], middle)
    low[a], high[a] = low_a, high_a
    low[b], high[b] = np.fmin(low[b], low_b), np.fmax(high[b], high_b)
    return Envelope(low, high, first, last, broken)


def smoothed(values: Floats, window: int) -> Floats:
    """Trailing mean of the last `window` finite values at each point; NaN where the value itself is not finite.

    float64 of shape (n,). Trailing and not centred: a live line must not change where it has been drawn.
    """
    if window <= 1 or len(values) == 0:
        return values
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - window, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (total[stop] - total[start]) / (count[stop] - count[start])
    return np.asarray(np.where(finite, mean, np.nan))
