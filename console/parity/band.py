"""The band around the reference: window means, their spread over seeds, and how wide the band has to be. Pure.

Formulas and assumptions: the docstring of `console.parity`. Everything here is on the scale of the metric's rule, and
arrays run over the steps of a comparison (`console.parity.alignment`), NaN where a run has no number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from console.parity import width
from console.parity.change import SHARE
from console.parity.rules import Rule, Rules
from console.parity.windows import lowest, windows

Floats = npt.NDArray[np.float64]

FEWEST = 4
"""Numbers that a window needs at least; with 30 % missing at random one window in ninety has fewer."""
SLOW = 100
"""Steps over which the deviation of a seed is one draw."""
_LARGEST = 700.0
"""Largest logarithm whose exponential is a finite double."""
_TRIM = 5
"""One in so many values is left out at either end of a window."""


@dataclass(frozen=True)
class Band:
    """Of each window (n - window + 1 of them): the reference's `centre`, and what the run may be, `low` to `high`.

    `low` and `high` are the lowest and the highest centre within the rule's lag, less and plus `half`.
    `spread`: the spread over seeds that `half` rests on, assumed or measured; `noise`: the standard deviation of a
    window's mean by the noise of the steps; `single`: that of one step. `apart`: the measured spread over seeds in
    units of the rule's; NaN with one reference.
    """

    centre: Floats
    low: Floats
    high: Floats
    half: float
    spread: float
    noise: float
    single: float
    apart: float


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


def window_means(values: Floats, window: int, fewest: int | None = None) -> Floats:
    """Trimmed means of `window` values in a row, (..., n) -> (..., n - window + 1).

    NaN where fewer than `fewest` are finite, by default where half are not. The highest and the lowest fifth of a
    window are left out: one outlier must not move all windows that it is in.
    """
    known = np.isfinite(values)
    whole = bool(known.all())
    # Numbers first, in order; values that are not finite last.
    ordered = np.sort(windows(values if whole else np.where(known, values, np.nan), window), axis=-1)
    if whole:
        cut = window // _TRIM
        ordered[..., :cut] = 0.0
        ordered[..., window - cut :] = 0.0
        return np.asarray(ordered.sum(axis=-1) / max(window - 2 * cut, 1))
    count = windows(known, window).sum(axis=-1)
    cuts = count // _TRIM
    at = np.arange(window)
    kept = (at >= cuts[..., None]) & (at < (count - cuts)[..., None])
    total = np.where(kept, ordered, 0.0).sum(axis=-1)
    enough = 2 * count > window if fewest is None else count >= min(fewest, window)
    means: Floats = np.where(enough, total / np.maximum(count - 2 * cuts, 1), np.nan)
    return means


def band(references: Floats, rule: Rule, rules: Rules, *, metrics: int, missing: float = 0.0) -> Band:
    """The band from references of shape (k, n), k >= 1 and n >= window, for a verdict over so many metrics.

    `missing`: the share of its steps at which the run has no number; its means are that much noisier.
    """
    means = window_means(references, rules.window, FEWEST)
    k, n = references.shape
    centre = _mean(means)
    sides = 1 if rule.side == "both" else 2
    share = sides * (1 - SHARE) * rules.alpha / metrics
    tail, slow = share / max(1, n // rules.window), share / max(1, n // SLOW)
    noise, single = _noise(references, rules.window)
    noise /= 1 - min(missing, 0.9)
    measured = max(_between(means) - noise, 0.0) if k > 1 else math.nan
    spread = max(rule.spread, math.sqrt(measured)) if k > 1 else rule.spread
    seeds = width.spreads(slow, k, rules.reach) * spread
    half = math.sqrt((1 + 1 / k) * (seeds**2 + width.deviations(tail) ** 2 * noise))
    half = max(half, rule.tolerance)
    return Band(
        centre, -_highest(-centre, rule.lag) - half, _highest(centre, rule.lag) + half, half, spread, math.sqrt(noise),
        math.sqrt(single), math.sqrt(measured) / rule.spread,
    )  # fmt: skip


def _mean(means: Floats) -> Floats:
    """The mean over runs of what each has, (k, n) -> (n); NaN where none has."""
    finite = np.isfinite(means)
    if finite.all():
        return np.asarray(means.sum(axis=0) / len(means))
    known = finite.sum(axis=0)
    mean: Floats = np.where(known > 0, np.nansum(means, axis=0) / np.maximum(known, 1), np.nan)
    return mean


def _highest(centre: Floats, lag: int) -> Floats:
    """The largest centre within `lag` windows before and after."""
    if not lag:
        return centre
    padded = np.pad(np.where(np.isfinite(centre), centre, -np.inf), lag, constant_values=-np.inf)
    highest = -lowest(-padded, 2 * lag + 1)
    return np.where(np.isfinite(highest), highest, np.nan)


def _between(means: Floats) -> float:
    """Variance between seeds of their window means (k, n), pooled over the windows; it is worth k - 1 degrees."""
    known = np.isfinite(means)
    count = known.sum(axis=0)
    squares = np.where(known, means - _mean(means), 0.0) ** 2
    degrees = np.maximum(count - 1, 0).sum()
    return float(squares[:, count > 1].sum() / degrees) if degrees else 0.0


def _noise(references: Floats, window: int) -> tuple[float, float]:
    """Variances by the noise of the steps, of a window's mean and of one step, pooled over the references.

    The variance of a mean is that of the moving-block bootstrap of the residuals around a running line (Kuensch 1989,
    Ann. Stat. 17:1217; block = window, one block a window, so that the ideal bootstrap variance is that of all moving
    windows and needs no drawing).
    """
    of_means, of_steps = [], []
    for values in references:
        known = np.isfinite(values)
        count = int(known.sum())
        if count < 2 * window:
            continue
        # As wide as the run allows: what is correlated over a window is noise, what a line follows is trend. What it
        # cannot follow of the trend makes the band wider, never narrower.
        reach = min(max(2 * window, min(count // 8, 6 * window)), (count - 1) // 2)
        own = values[known]
        residuals = own - _running_line(own, reach)
        of_steps.append(float(residuals.var()))
        if count < len(values):
            placed = np.full(len(values), np.nan)
            placed[known] = residuals
            residuals = placed
        means = window_means(residuals, window, FEWEST)
        means = means[np.isfinite(means)]
        of_means.append(float(means.var()) if len(means) else 0.0)
    return (float(np.mean(of_means)), float(np.mean(of_steps))) if of_means else (0.0, 0.0)


def _running_line(values: Floats, reach: int) -> Floats:
    """Local straight lines by least squares over 2 reach + 1 steps, at the ends over what there is (one-sided)."""
    n = len(values)
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    means = np.convolve(values, np.full(len(x), 1 / len(x)), "valid")
    slopes = np.correlate(values, x / float((x * x).sum()), "valid")
    at = np.arange(n)
    nearest = np.minimum(np.maximum(at - reach, 0), n - len(x))
    fitted: Floats = means[nearest] + slopes[nearest] * (at - nearest - reach)
    return fitted
