"""The band around the reference: window means, their spread over seeds, and how wide the band has to be. Pure.

Formulas and assumptions: the docstring of `console.parity`. Everything here is on the scale of the metric's rule, and
arrays run over the common steps of all runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from console.parity.rules import Rule, Rules
from driftline.t_quantile import upper_quantile

Floats = npt.NDArray[np.float64]

_LARGEST = 700.0
"""Largest logarithm whose exponential is a finite double."""
_TRIM = 5
"""One in so many values is left out at either end of a window."""
_MANY = 1000.0
"""Degrees of freedom from which on Student's t is the normal distribution for every purpose here."""
_STIFF = 0.9
"""Largest correlation of neighbouring windows that is used; more cannot be estimated from so few."""


@dataclass(frozen=True)
class Band:
    """`centre` at each window's last step (n - window + 1 of them); the band is centre +- `half`.

    `spread`: standard deviation of (run - centre) for a healthy run, `freedom` its degrees of freedom.
    """

    centre: Floats
    half: float
    spread: float
    freedom: float


def scaled(values: Floats, rule: Rule) -> Floats:
    """Plain values on the rule's scale; values that are not finite stay so."""
    if rule.scale == "linear" or rule.floor is None:
        return values
    return np.log(np.maximum(values, 0.0) + rule.floor)


def plain(values: Floats, rule: Rule) -> Floats:
    """Back from the rule's scale to units."""
    if rule.scale == "linear" or rule.floor is None:
        return values
    units: Floats = np.maximum(np.exp(np.minimum(values, _LARGEST)) - rule.floor, 0.0)
    return units


def window_means(values: Floats, window: int) -> Floats:
    """Trimmed means of `window` values in a row, (..., n) -> (..., n - window + 1); NaN where half are not finite.

    The highest and the lowest fifth of a window are left out: one outlier must not move all windows that it is in.
    """
    views = np.lib.stride_tricks.sliding_window_view(values, window, axis=-1)
    # Numbers first, in order; values that are not finite last.
    views = np.sort(np.where(np.isfinite(views), views, np.nan), axis=-1)
    count = np.isfinite(views).sum(axis=-1)
    cut = count // _TRIM
    at = np.arange(window)
    kept = (at >= cut[..., None]) & (at < (count - cut)[..., None])
    total = np.where(kept, views, 0.0).sum(axis=-1)
    means: Floats = np.where(2 * count > window, total / np.maximum(count - 2 * cut, 1), np.nan)
    return means


def band(references: Floats, rule: Rule, rules: Rules) -> Band:
    """The band from references of shape (k, n), k >= 1 and n >= window, for a verdict over all metrics of `rules`."""
    means = window_means(references, rules.window)
    k, _ = references.shape
    known = np.isfinite(means).sum(axis=0)
    centre: Floats = np.where(known > 0, np.nansum(means, axis=0) / np.maximum(known, 1), np.nan)
    if k > 1:
        measured, worth = _over_seeds(means[:, :: rules.window])
        freedom = rules.weight + worth
        variance = (rules.weight * rule.spread**2 + worth * measured) / freedom
    else:
        freedom = rules.weight
        variance = rule.spread**2 + _bootstrap(references[0], rules.window)
    spread = math.sqrt(variance * (1 + 1 / k))
    windows = max(1, references.shape[1] // rules.window)
    tail = rules.alpha / len(rules.metrics) / windows / (2 if rule.side == "both" else 1)
    half = max(spread * upper_quantile(tail, round(min(freedom, _MANY), 1)), rule.tolerance)
    return Band(centre, half, spread, freedom)


def _over_seeds(grid: Floats) -> tuple[float, float]:
    """Variance between seeds of window means (k, windows), pooled over windows, and its degrees of freedom."""
    grid = grid[:, np.isfinite(grid).all(axis=0)]
    k, windows = grid.shape
    if not windows:
        return 0.0, 0.0
    residuals = grid - grid.mean(axis=0)
    squares = float((residuals**2).sum())
    variance = squares / ((k - 1) * windows)
    if windows == 1 or not squares:
        return variance, float(k - 1)
    correlation = float((residuals[:, 1:] * residuals[:, :-1]).sum()) / squares * windows / (windows - 1)
    correlation = min(max(correlation, 0.0), _STIFF)
    # Bartlett: the mean of n squares of an AR(1) series is worth n (1 - r^2) / (1 + r^2) independent ones.
    worth = max(1.0, windows * (1 - correlation**2) / (1 + correlation**2))
    return variance, (k - 1) * worth


def _bootstrap(values: Floats, window: int) -> float:
    """Variance of a window's mean under the moving-block bootstrap of the residuals around a running mean."""
    values = values[np.isfinite(values)]
    if len(values) < 2 * window:
        return 0.0
    # The running mean is four windows wide: it follows the trend, and leaves in what noise is correlated over a window.
    # What it cannot follow of the trend makes the band wider, never narrower.
    reach = min(2 * window, (len(values) - 1) // 2)
    residuals = values - _running_line(values, reach)
    return float(window_means(residuals, window).var(ddof=1))


def _running_line(values: Floats, reach: int) -> Floats:
    """Local straight lines by least squares over 2 reach + 1 steps, at the ends over what there is (one-sided)."""
    n = len(values)
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    means = np.convolve(values, np.full(len(x), 1 / len(x)), "valid")
    slopes = np.correlate(values, x / float((x * x).sum()), "valid")
    at = np.arange(n)
    nearest = np.clip(at - reach, 0, n - len(x))
    fitted: Floats = means[nearest] + slopes[nearest] * (at - nearest - reach)
    return fitted
