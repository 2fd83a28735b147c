"""A robust baseline of a series: median and median absolute deviation of its own past.

On the rule's scale, y = x (linear) or y = log(max(x, 0) + floor) (log):

    centre   = median(y over the window)
    sigma    = 1.4826 * the larger of median(|y - centre|) over all values and over the half on the rule's side;
               the normal law's standard deviation, whatever the tails, and where one side's are longer that side's
    few      = 1 + (z^2 + 1) / (4 n)         n: what the window's values are worth if independent, by their correlation
    distance = max(z * few * sigma, log(factor) or change)   how far from the centre a value must be to count
    limit    = centre + distance (side high), centre - distance (side low)
    easier   = centre + ease * distance, or centre - ease * distance

The window is the `window` steps that end `gap` steps ago, so that a rise does not lift its own measure while it is
young. It is renewed every window/10 steps, counted by the place of a step in its series: the same steps give the same
limits, however they were batched. Not finite values are left out of it.

The centre stands up to half of the window being wrong, sigma a quarter: a jump that lasts becomes the new usual after a
quarter to a half of the window and the gap, and the alarm clears itself then. A steady trend is no alarm at any pace
where the gap is short: over a window of n steps that fall by r a step, sigma is 0.37 n r and the newest value
(n/2 + gap) r from the centre, which is 1.6 to 1.9 sigma with gap = n/10, and z is 4. With a gap as long as the window
it is one: that finds what is slow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from console.sentinels.kinds import Baseline

Floats = npt.NDArray[np.float64]

MAD_TO_SIGMA: Final = 1.4826
"""1 / the normal law's 75 % quantile."""


class Usual(msgspec.Struct, frozen=True):
    """Centre and limits on the scale of the values themselves; NaN while there are too few values."""

    centre: float
    limit: float
    easier: float


MOST: Final = 0.9
"""Largest correlation from step to step that is reckoned with; a trend looks like a larger one."""
WIDEST: Final = 1.2
"""Largest factor for few independent values: with a larger one a clip fraction that rises sixfold is noise."""
AT_ONCE: Final = 2_000
"""Windows that are judged together."""

UNKNOWN: Final = Usual(math.nan, math.nan, math.nan)


def block(rule: Baseline) -> int:
    """Steps for which one baseline holds."""
    return max(rule.window // 10, 1)


def past(rule: Baseline, number: int) -> tuple[int, int]:
    """The indices low to high of the values that the baseline of a block is made of."""
    if rule.reference == "start":
        return 0, rule.window
    high = max(number * block(rule) - rule.gap, 0)
    return max(high - rule.window, 0), high


def step_sigma(values: Floats) -> float:
    """The standard deviation of the noise from step to step, whatever the trend; finite values of shape (n,), n > 1."""
    return float(MAD_TO_SIGMA * medians(np.abs(np.diff(values))) / math.sqrt(2))


def usual(rule: Baseline, values: Floats) -> Usual:
    """The baseline of a window of values, shape (n,); UNKNOWN below `warmup` of them."""
    values = values[np.isfinite(values)]
    if len(values) < rule.warmup:
        return UNKNOWN
    return Usual(*(float(row[0]) for row in _judge(rule, values[np.newaxis])))


def usuals(rule: Baseline, values: Floats, numbers: Sequence[int]) -> Floats:
    """Centre, limit and easier limit of some blocks over all `values` of a series, shape (3, len(numbers))."""
    found = np.full((3, len(numbers)), np.nan)
    if rule.reference == "start":
        later = np.asarray(numbers) * block(rule) >= rule.window + rule.gap
        if later.any():
            found[:, later] = np.array([_row(usual(rule, values[: rule.window]))]).T
        return found
    ends = np.asarray(numbers) * block(rule) - rule.gap
    whole = np.flatnonzero(ends >= rule.window)
    for part in np.array_split(whole, math.ceil(len(whole) / AT_ONCE)) if len(whole) else []:
        # All windows of a long history in a few calls: one by one they would take as long as reading it.
        windows = np.lib.stride_tricks.sliding_window_view(values, rule.window)[ends[part] - rule.window]
        good = np.isfinite(windows).all(axis=1)
        found[:, part[good]] = _judge(rule, windows[good])
        for i in part[~good]:
            found[:, i] = _row(usual(rule, values[ends[i] - rule.window : ends[i]]))
    for i in np.flatnonzero((ends > 0) & (ends < rule.window)):
        found[:, i] = _row(usual(rule, values[: ends[i]]))
    return found


def _row(known: Usual) -> tuple[float, float, float]:
    return known.centre, known.limit, known.easier


def _judge(rule: Baseline, windows: Floats) -> Floats:
    """The three of each row of finite values, shape (3, rows)."""
    rough = _scaled(rule, windows)
    scaled = np.sort(rough, axis=1)
    centre = _middle(scaled)
    # A window with more than half of zeros has a centre of -inf on a log scale without a floor, which gives no limit.
    centre[~np.isfinite(centre)] = np.nan
    with np.errstate(invalid="ignore"):
        away = np.abs(scaled - centre[:, np.newaxis])
        # Of all values, or of the half on the rule's side: a tail that is long on that side is the usual noise there.
        half = away.shape[1] // 2
        outer = away[:, half:] if rule.side == "high" else away[:, : away.shape[1] - half][:, ::-1]
        sigma = MAD_TO_SIGMA * np.maximum(_middle(np.sort(away, axis=1)), _middle(outer))
        sigma *= _few(rule.z, _correlation(rough, sigma), rough.shape[1])
    least = math.log(rule.factor) if rule.factor is not None else rule.change or 0.0
    distance = np.maximum(rule.z * sigma, least) * (1.0 if rule.side == "high" else -1.0)
    ends = np.array([centre, centre + distance, centre + rule.ease * distance])
    return ends if rule.scale == "linear" else np.exp(np.minimum(ends, 700.0)) - rule.floor


def _correlation(values: Floats, sigma: Floats) -> Floats:
    """The correlation of neighbouring steps of each row, from 0 to MOST, by the noise from step to step; (rows,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = np.sort(np.abs(np.diff(values, axis=1)), axis=1)
        found = 1.0 - (MAD_TO_SIGMA * _middle(steps) / sigma) ** 2 / 2
    return np.asarray(np.clip(np.nan_to_num(found, nan=0.0, neginf=0.0), 0.0, MOST), np.float64)


def _few(z: float, correlation: Floats, count: int) -> Floats:
    """What a quantile of `z` is to be multiplied with, because sigma comes from few values that are independent.

    Student's quantile over the normal one, to the first order: 1 + (z^2 + 1) / (4 n), with the n of independent values
    that `count` correlated ones are worth, count (1 - r) / (1 + r).
    """
    worth = count * (1 - correlation) / (1 + correlation)
    return np.minimum(1.0 + (z**2 + 1) / (4 * worth), WIDEST)


def _scaled(rule: Baseline, values: Floats) -> Floats:
    if rule.scale == "linear":
        return values
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(values, 0.0) + rule.floor), np.float64)


def medians(values: Floats) -> Floats:
    """The median along the last axis, which has one value at least; NaN where one of them is.

    As numpy's own, which imports numpy.ma: a fiftieth of a console's start, before its first figures.
    """
    ascending = np.sort(values, axis=-1)
    return np.where(np.isnan(ascending[..., -1]), np.nan, _middle(ascending))


def _middle(ascending: Floats) -> Floats:
    """The median of each ascending row, shape (rows,)."""
    n = ascending.shape[-1]
    with np.errstate(invalid="ignore"):  # between minus and plus infinity: NaN
        # Halved first: the sum of two values of 1e308 is infinite.
        return np.asarray(ascending[..., (n - 1) // 2] / 2 + ascending[..., n // 2] / 2, np.float64)
