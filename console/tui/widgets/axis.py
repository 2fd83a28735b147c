"""Axes that hold still: ranges grow in steps and shrink late, so that a new point changes a few cells and not all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_NICE: Final = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_HEADROOM: Final = 0.06
_SHRINK_BELOW: Final = 0.3
"""A range is drawn tighter only once the data uses less than this much of it."""


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


def number(value: float) -> str:
    """A number in at most six characters, for axes and headers: three digits that matter, k, M and G above."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    size = abs(value)
    if size == 0:
        return "0"
    for limit, unit, factor in ((999.5e9, "", 0.0), (999.5e6, "G", 1e-9), (999.5e3, "M", 1e-6), (999.5, "k", 1e-3)):
        if size >= limit:
            return f"{value:.0e}".replace("e+", "e") if not unit else _digits(value * factor, 2) + unit
    if size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return _digits(value, 3)


def _digits(value: float, digits: int) -> str:
    size = abs(value)
    whole = max(math.floor(math.log10(size)) + 1, 0) if size >= 1 else 0
    # Below one the zeros after the point are no digits that matter, but two places always are enough room.
    places = max(digits - whole, 0) if size >= 1 else min(digits - 1 - math.floor(math.log10(size)), 4)
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass
class Range:
    """The y range of one chart, kept from redraw to redraw. In log space when `log`, then in decades."""

    log: bool = False
    low: float = 0.0
    high: float = 1.0
    _set: bool = False

    def fit(self, low: float, high: float) -> tuple[float, float]:
        """Make room for [low, high] (already in log space when `log`); returns the range to draw."""
        if not (math.isfinite(low) and math.isfinite(high)):
            return (self.low, self.high) if self._set else (-1.0, 0.0) if self.log else (0.0, 1.0)
        inside = self._set and self.low <= low and high <= self.high
        if inside and (high - low) >= _SHRINK_BELOW * (self.high - self.low):
            return self.low, self.high
        fitted = _log_bounds(low, high) if self.log else _linear_bounds(low, high)
        if not inside or fitted[1] - fitted[0] < 0.7 * (self.high - self.low):
            self.low, self.high = fitted
            self._set = True
        return self.low, self.high

    def reset(self, log: bool) -> None:
        """Forget the range, because the axis changed its kind."""
        self.log, self._set = log, False


def _linear_bounds(low: float, high: float) -> tuple[float, float]:
    span = high - low
    if span <= abs(high) * 1e-9:
        # A flat line: show it inside a range of its own size, not as noise over all of the chart.
        span = abs(high) or 1.0
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
