"""The level of a noisy positive series at a moment, with its log-linear trend and the autocorrelation of its noise.

Pure numpy. The model of a series y_s at steps t_s, with weights w_s (tokens): E y_s = exp(x_s b), where x_s has a
constant and, mostly, the distance of t_s to the moment; the noise is multiplicative with the same relative scale at
every step, and its autocorrelation at a distance of k steps is r^k. `b` is estimated by quasi-likelihood (Fisher
scoring for a constant coefficient of variation and the logarithm as link, McCullagh and Nelder 1989, chapter 9): zeros
are allowed, a level is never negative, and without a trend exp(b) is the weighted mean.

The variance of b takes r into account exactly, given r. With R the correlations, P = (X'WX)^-1 X'W and M = 1 - XP,
var b = P R P' s^2, where s^2 = e'We / tr Q for the relative residuals e and Q = M'WMR, because that is unbiased; the
degrees of freedom are Satterthwaite's, (tr Q)^2 / tr QQ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_SCORINGS: Final = 60
_CONVERGED: Final = 1e-9
_LARGEST_STEP: Final = 1.0
"""Of the logarithm of a level, in one scoring: more overshoots."""
_STEEPEST: Final = 5.0
"""Logarithms over the length of a series: a trend beyond it (a factor of 150) is not one but zeros at an end."""

LARGEST_CORRELATION: Final = 0.9
"""Of neighbouring steps. Closer to 1 the level of so few steps has no finite interval."""
_SHRINK: Final = 1.0
"""Standard errors of the correlation, 1 / sqrt(steps), that are taken off an estimate of less than _CLEAR of them,
because a negative one counts as none: without it series without correlation get intervals a tenth too wide."""
_CLEAR: Final = 0.8
_STRETCH: Final = 2.0
"""Standard errors that are added, at most, to an estimate that is clearly above 0: an interval that is too narrow by an
estimate that is too low is worse than one that is too wide by one that is too high. So many are added for each that the
estimate is above _CLEAR. Chosen by the tables of docs/fixes-and-syncs.md."""
_MOST_ADDED: Final = 1.2


@dataclass(frozen=True)
class Fit:
    """`beta` [p]; relative residuals `error` [N] and the weights `weight` [N] with mean 1; `solution` [p, N] takes
    values to coefficients and `rest` [N, N] values to residuals (P and M above)."""

    steps: Array
    beta: Array
    error: Array
    weight: Array
    solution: Array
    rest: Array


@dataclass(frozen=True)
class Variance:
    """Covariance of `beta` [p, p] and its degrees of freedom; zeros where the steps show no scatter."""

    beta: Array
    freedom: float


def fit(values: Array, weights: Array, steps: Array, levels: Array, at: float | None) -> Fit | None:
    """Fit the model. `values`, `weights`, `steps` [N], `levels` [N, q] a column for each level, one of which a row has.

    With `at` there is a trend, and the levels are those at that step; without, they are means. `beta` has the levels
    first. None where the trend has no fit: too few steps, or zeros at an end. No level may be of zeros alone.
    """
    design = levels if at is None else np.column_stack([levels, steps - at])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    weight = weights / weights.mean()
    solution = np.linalg.solve(design.T @ (weight[:, None] * design), design.T * weight)
    means = levels * weight[:, None] / (levels * weight[:, None]).sum(axis=0)
    beta = np.zeros(design.shape[1])
    beta[: levels.shape[1]] = np.log(values @ means)
    for _ in range(_SCORINGS):
        change = np.clip(solution @ (values / np.exp(design @ beta) - 1.0), -_LARGEST_STEP, _LARGEST_STEP)
        beta = beta + change
        if np.abs(change).max() < _CONVERGED:
            break
    else:
        return None
    if at is not None and abs(beta[-1]) * np.ptp(steps) > _STEEPEST:
        return None
    return Fit(
        steps, beta, values / np.exp(design @ beta) - 1.0, weight, solution, np.eye(len(values)) - design @ solution
    )


def correlation(fits: list[Fit], parts: list[npt.NDArray[np.int64]]) -> float:
    """The correlation of neighbouring steps over some fits, from 0 to LARGEST_CORRELATION.

    `parts` [N] a fit: residuals of different parts (the two sides of a change) are no neighbours. The estimate from
    residuals of N steps and p coefficients is too low by about (p + (p + 2) r) / N (Kendall 1954 for the mean, 1 + 3 r,
    and the same reasoning for a line, 2 + 4 r), which is taken into account.
    """
    over = under = 0.0
    steps = coefficients = 0
    for one, part in zip(fits, parts, strict=True):
        scaled = one.error * np.sqrt(one.weight)
        neighbours = (np.diff(one.steps) == 1) & (np.diff(part) == 0)
        over += float((scaled[1:] * scaled[:-1])[neighbours].sum())
        under += float((scaled**2).sum())
        steps, coefficients = steps + len(scaled), coefficients + len(one.beta)
    if under == 0.0:
        return 0.0
    room = 1.0 - (coefficients + 2 * len(fits)) / steps
    estimate = (over / under + coefficients / steps) / room if room > 0 else 0.0
    error = 1.0 / np.sqrt(steps)
    added = np.clip(_STRETCH * (estimate / error - _CLEAR) - _SHRINK, -_SHRINK, _MOST_ADDED)
    return float(np.clip(estimate + added * error, 0.0, LARGEST_CORRELATION))


def variance(one: Fit, correlation: float) -> Variance:
    """The covariance of the coefficients under a correlation of neighbouring steps."""
    scale = 1.0 / np.sqrt(one.weight)
    distance = np.abs(np.subtract.outer(one.steps, one.steps))
    # A correlation of 0 to the power of a distance of 0 is 1, as it must be.
    correlations = correlation**distance * np.outer(scale, scale)
    form = one.rest.T @ (one.weight[:, None] * one.rest) @ correlations
    trace = float(np.trace(form))
    if trace < _CONVERGED:
        # As many coefficients as steps: nothing is left to see a scatter in.
        return Variance(np.zeros((len(one.beta),) * 2), 1.0)
    spread = float((one.weight * one.error**2).sum()) / trace
    freedom = trace**2 / float((form * form.T).sum())
    return Variance(one.solution @ correlations @ one.solution.T * spread, freedom)


def robust(one: Fit) -> Array:
    """The covariance of the coefficients [p, p] without correlation, each step with the scatter that it has itself
    (HC2, MacKinnon and White 1985): where the two sides scatter differently, one scatter for all is wrong."""
    own = one.error**2 / np.clip(np.diag(one.rest), _CONVERGED, None)
    return np.asarray((one.solution * own) @ one.solution.T)


def tail_freedom(squares: Array) -> float:
    """The degrees of freedom of a mean of squared errors, from the weight of their tail: 2 n / (kurtosis - 1).

    It is n for a normal distribution and few where some of the errors have most of the sum: what has not met any of
    them must not be taken for another level.
    """
    count, total = len(squares), float(squares.sum())
    if total == 0.0:
        return math.inf
    kurtosis = count * float((squares**2).sum()) / total**2
    return 2 * count / (kurtosis - 1) if kurtosis > 1 else math.inf
