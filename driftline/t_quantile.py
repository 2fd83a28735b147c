"""The quantile of Student's t distribution, which neither numpy nor the standard library has."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

_PANELS = 2000


def upper_tail(t: float, freedom: float) -> float:
    """P(T > t) for t >= 0 and `freedom` degrees of freedom (> 0, not necessarily whole).

    With t = sqrt(freedom) tan(x) the density becomes cos(x)^(freedom - 1) up to a constant, on a bounded interval: the
    tail is integrated itself (Simpson), so that small ones keep their digits.
    """
    low = math.atan(t / math.sqrt(freedom))
    # From the far end, x = pi/2 - y: sin(y)^(freedom - 1), smooth down to y = 0 for freedom >= 2.
    y = np.linspace(0.0, math.pi / 2 - low, 2 * _PANELS + 1)
    density = np.sin(y) ** (freedom - 1)
    weights = np.ones_like(y)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    integral = float((density * weights).sum()) * (y[1] - y[0]) / 3
    constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(math.pi)
    return float(math.exp(constant) * integral)


@lru_cache(maxsize=1024)
def upper_quantile(tail: float, freedom: float) -> float:
    """The t with P(T > t) = tail, for 0 < tail < 0.5, to nine digits."""
    low, high = 0.0, 1.0
    while upper_tail(high, freedom) > tail:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(middle, freedom) > tail else (low, middle)
    return high
