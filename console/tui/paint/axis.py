"""Axes that hold still: ranges grow from one round number to the next, so that a new point changes few cells."""

from __future__ import annotations

import math
import sys
from typing import Final

from console.tui.paint.units import number

_NICE: Final = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_HEADROOM: Final = 0.06
_HUGE: Final = 300.0
"""Decades from 1 at which a linear axis ends, up and down: the next round number must be a number, too."""
_LARGEST: Final = math.log10(sys.float_info.max)
_DAY: Final = 86_400.0
_TIMES: Final = tuple(
    float(span)
    for span in (
        *(10, 15, 20, 30, 45),
        *(60 * minutes for minutes in (1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 45)),
        *(3600 * hours for hours in (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 36, 48)),
    )
)


def nice_max(value: float) -> float:
    """The smallest round number not below `value`, at most a third above it; at least 10."""
    if value <= 10:
        return 10.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * nice for nice in _NICE if power * nice >= value)


def nice_step(span: float, count: int) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides `span` into about `count` parts."""
    rough = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    return next((power * nice for nice in (1.0, 2.0, 5.0) if power * nice >= rough), power * 10.0)


def nice_time(seconds: float) -> float:
    """The smallest round span not below `seconds`, at most half above it; at least 10 seconds."""
    if seconds > _TIMES[-1]:
        return nice_max(seconds / _DAY) * _DAY if seconds > 10 * _DAY else math.ceil(seconds / _DAY) * _DAY
    return next(span for span in _TIMES if span >= seconds)


def y_range(low: float, high: float, *, log: bool = False) -> tuple[float, float]:
    """Round bounds around [low, high], in log space (decades) when `log`: the y range of a chart.

    A function of what is in view and of nothing else, so that two consoles that look at the same see the same, whenever
    they were opened. That it holds still from redraw to redraw comes from what is put in: the window moves in chunks,
    and while it stands, bounds can only grow, from one round number to the next.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return (-1.0, 0.0) if log else (0.0, 1.0)
    if log:
        return _log_bounds(low, high)
    return _linear_bounds(*(min(max(bound, -(10.0**_HUGE)), 10.0**_HUGE) for bound in (low, high)))


def ticks(low: float, high: float, rows: int, *, log: bool = False) -> list[tuple[int, str]]:
    """Rows of a plot (0 is the top) with their labels, top first; only round values, and both ends where there is room.

    With `log` the range is in decades and the labels are the values themselves.
    """
    places = {0: high} | ({rows - 1: low} if rows > 1 else {})
    if rows >= 4:
        if log:
            between = [float(y) for y in range(math.ceil(low), math.floor(high) + 1)]
        else:
            step = nice_step(high - low, max(rows // 4, 1))
            first = math.ceil(low / step - 1e-9)
            between = [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]
        for y in between:
            row = round((high - y) / (high - low) * (rows - 1))
            if all(abs(row - taken) >= 2 for taken in places):
                places[row] = 0.0 if not log and abs(y) < (high - low) * 1e-9 else y
    # The decade above the largest number has no number.
    return [
        (row, number(places[row] if not log else 10.0 ** places[row] if places[row] <= _LARGEST else math.inf))
        for row in sorted(places)
    ]


def _linear_bounds(low: float, high: float) -> tuple[float, float]:
    span = high - low
    if span <= max(abs(high) * 1e-9, 10.0**-_HUGE):
        # A flat line: show it inside a range of its own size, not as noise over all of the chart.
        span = abs(high) if abs(high) > 10.0**-_HUGE else 1.0
    pad = span * _HEADROOM
    step = nice_step(span + 2 * pad, 4)
    floor = 0.0 if 0 <= low <= 0.7 * span else math.floor((low - pad) / step) * step
    ceiling = 0.0 if 0 >= high >= -0.7 * span else math.ceil((high + pad) / step) * step
    return (floor, ceiling) if ceiling > floor else (floor, floor + step)


def _log_bounds(low: float, high: float) -> tuple[float, float]:
    floor, ceiling = _log_grid(low, -1), _log_grid(high, 1)
    return (floor, ceiling) if ceiling - floor > 0.25 else (_log_grid(floor - 0.3, -1), _log_grid(ceiling + 0.3, 1))


def _log_grid(value: float, direction: int) -> float:
    """The next of log10(1, 2, 5, 10, ...) at or beyond `value`."""
    decade = math.floor(value + 1e-12)
    grid = [decade + step for step in (0.0, math.log10(2), math.log10(5), 1.0)]
    if direction < 0:
        return max(point for point in grid if point <= value + 1e-12)
    return min(point for point in grid if point >= value - 1e-12)
