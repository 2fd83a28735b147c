"""How many spreads wide a band has to be, when the spread over seeds is known from few seeds or only assumed. Pure."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

_POINTS = 4001
_FAR = 8.0
"""Standard deviations up to which the density of a measured spread is integrated."""


def outside(width: float, seeds: int, reach: float) -> float:
    """P(|D| > width * max(s0, S)) in the worst case of a true spread of at most `reach` * s0.

    D is normal with the true spread; S is the spread that `seeds` (>= 1) reference runs measured, with seeds - 1
    degrees of freedom. The probability rises with the true spread, so the worst case is `reach` * s0, and there
    P = E[erfc(width * max(1 / reach, X) / sqrt 2)], X = chi / sqrt(seeds - 1); with one seed X is 0.
    """
    if seeds == 1:
        return math.erfc(width / reach / math.sqrt(2))
    x, mass = _measured(seeds - 1)
    tails = _normal_tails(width * np.maximum(1 / reach, x))
    return float((tails * mass).sum())


@lru_cache(maxsize=1024)
def spreads(tail: float, seeds: int, reach: float) -> float:
    """The width with `outside` = tail, for 0 < tail < 1, to six digits."""
    low, high = 0.0, 1.0
    while outside(high, seeds, reach) > tail:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if outside(middle, seeds, reach) > tail else (low, middle)
    return high


def deviations(tail: float) -> float:
    """The z with P(|Z| > z) = tail of a standard normal Z."""
    return -NormalDist().inv_cdf(tail / 2)


@lru_cache(maxsize=32)
def _measured(freedom: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The measured spread over the true one, chi / sqrt(freedom): points and the probability that each stands for."""
    x = np.linspace(0.0, 1 + _FAR / math.sqrt(2 * freedom), _POINTS)
    with np.errstate(divide="ignore"):
        logs = (freedom - 1) * np.log(x) if freedom > 1 else np.zeros(_POINTS)
    density = np.exp(logs - freedom * x**2 / 2 - (logs - freedom * x**2 / 2).max())
    density[[0, -1]] /= 2
    return x, density / density.sum()


def _normal_tails(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """P(|Z| > z) for an array; numpy has no erfc."""
    return np.fromiter((math.erfc(one) for one in (z / math.sqrt(2)).tolist()), np.float64, len(z))
