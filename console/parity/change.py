"""Whether a run has changed against its reference, by a statistic that takes its scale from the run itself. Pure.

What is tested is D, the run less the mean of its references, step by step on the rule's scale. A seed's own level is in
D from the first step to the last, and so says nothing here; the band is for that. With S the sums of D, at a split of
the n steps behind the k-th

    T = (S_k - k/n S_n) / sqrt n                     how far the two parts are apart
    V = (sum over j of (S_j - j/k S_k)^2 of the first part + the same of the second, from its end) / n^2

and the statistic is the largest T^2 / V over all k that leave a tenth of the steps, and a window, on either side
(self-normalisation: Shao and Zhang 2010, J. Am. Stat. Assoc. 105:1228). V holds whatever moves D within a part, at any
pace, so that neither the noise nor its correlation has to be known or estimated: steady drift, the wander of a seed and
a learning jump that comes at another time are in V as well. QUANTILES are those of a D that is a *random walk*, beside
which no stationary correlation comes near: for white noise the same limits are exceeded a hundred times less often.

Only a change *away* from the reference counts, of at least `least`: what comes nearer to it is a return.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SHARE: Final = 0.3
"""Of the rules' alpha, for changes; what is left is the band's."""
EDGE: Final = 0.1
"""Share of the steps that either part has at least."""
QUANTILES: Final[dict[float, float]] = {
    0.5: 37.0, 0.2: 90.0, 0.1: 141.0, 0.05: 205.0, 0.02: 302.0, 0.01: 390.0, 0.005: 480.0, 0.002: 635.0, 0.001: 745.0,
    0.0005: 880.0, 0.0002: 1090.0, 0.0001: 1230.0,
}  # fmt: skip
"""Limit of the statistic by the share of random walks that exceed it, rounded up from 300,000 of them of 300 steps.

`python -m tests.stats parity` checks it, and that noise on top of a walk and any weaker correlation exceed it less."""
_NOTHING: Final = 1e-12
"""Share of the sum of squares below which V is rounding."""


@dataclass(frozen=True)
class Change:
    """The change that is nearest to its limit, or farthest beyond: from step `step` on, by `size` on the rule's scale.

    `of_limit`: its share of the limit, signed as `size`; beyond 1 the run has changed.
    """

    step: int
    size: float
    of_limit: float

    @property
    def found(self) -> bool:
        return abs(self.of_limit) > 1


@dataclass(frozen=True)
class Splits:
    """Of every split: steps before it `count` (k), T, V, and the means of D before and after it."""

    n: int
    count: npt.NDArray[np.int64]
    apart: Floats
    own: Floats
    before: Floats
    after: Floats


@lru_cache(maxsize=64)
def limit(tail: float) -> float:
    """What T^2 / V exceeds with a probability of `tail` at most; between and beyond QUANTILES by the powers of both."""
    tails, values = np.log(list(QUANTILES)), np.log(list(QUANTILES.values()))
    at = math.log(tail)
    if at >= tails[-1]:
        return float(np.exp(np.interp(at, tails[::-1], values[::-1])))
    slope = (values[-1] - values[-4]) / (tails[-1] - tails[-4])
    return float(np.exp(values[-1] + slope * (at - tails[-1])))


def splits(difference: Floats, window: int) -> Splits | None:
    """Every split of D, (n), finite; None where the steps are too few for one."""
    n = len(difference)
    least = max(math.ceil(EDGE * n), window)
    if n < 3 * window or n < 2 * least + 1:
        return None
    values = difference - difference.mean()
    sums, back = np.cumsum(values), np.cumsum(values[::-1])
    inner = _inner(sums)[:-1] + _inner(back)[::-1][1:]
    count = np.arange(1, n)
    total = sums[-1]
    apart = (sums[:-1] - count / n * total) / math.sqrt(n)
    own = np.maximum(inner, _NOTHING * float((sums**2).sum())) / n**2
    before, after = sums[:-1] / count, (total - sums[:-1]) / (n - count)
    part = slice(least - 1, n - least)
    mean = float(difference.mean())
    return Splits(n, count[part], apart[part], own[part], before[part] + mean, after[part] + mean)


def _inner(sums: Floats) -> Floats:
    """sum over j <= k of (S_j - j/k S_k)^2, for every k; (n) -> (n)."""
    j = np.arange(1, len(sums) + 1, dtype=np.float64)
    slope = sums / j
    squares = np.cumsum(sums**2) - 2 * slope * np.cumsum(j * sums) + slope**2 * np.cumsum(j**2)
    return np.maximum(squares, 0.0)


def change(
    found: Splits, steps: npt.NDArray[np.int64], side: Literal["both", "high", "low"], least: float, highest: float
) -> Change:
    """The change nearest to being one, of D at `steps` (n). `highest`: the limit of the statistic."""
    size = found.after - found.before
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.nan_to_num(np.sqrt(found.apart**2 / (highest * found.own)), nan=0.0, posinf=np.inf)
    level = np.minimum(share, np.abs(size) / least)
    counts = (np.abs(found.after) > np.abs(found.before)) & _counts(size, side)
    level = np.where(counts, level, 0.0)
    at = int(level.argmax())
    return Change(int(steps[found.count[at]]), float(size[at]), float(math.copysign(level[at], size[at])))


def needed(found: Splits, least: float, highest: float) -> tuple[float, float]:
    """The smallest shifts up and down of the last half of the steps that would have been a change."""
    at = int(np.abs(found.count - found.n // 2).argmin())
    k, n = int(found.count[at]), found.n
    apart, own = float(found.apart[at]), float(found.own[at])
    before, after = float(found.before[at]), float(found.after[at])
    # A shift of the second part leaves V as it is, and moves T by this much.
    by = k * (n - k) / (n * math.sqrt(n))
    room = math.sqrt(highest * own)

    def up(sign: float) -> float:
        return max((room + sign * apart) / by, least - sign * (after - before), abs(before) - sign * after, 0.0)

    return up(1.0), up(-1.0)


def _counts(size: Floats, side: Literal["both", "high", "low"]) -> npt.NDArray[np.bool_]:
    if side == "both":
        return np.ones(len(size), dtype=bool)
    return size > 0 if side == "high" else size < 0
