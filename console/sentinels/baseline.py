"""What a series usually is, robustly: median and median absolute deviation of its own past.

On the rule's scale, y = x (linear) or y = log(max(x, 0) + floor) (log):

    centre   = median(y over the window)
    sigma    = 1.4826 * median(|y - centre|)          the normal law's standard deviation, whatever the tails
    distance = max(z * sigma, log(factor) or change)  how far from the centre a value must be to count
    limit    = centre + distance (side high), centre - distance (side low)
    easier   = centre + ease * distance, or centre - ease * distance

The window is the `window` steps that end `gap` steps ago, so that a rise does not lift its own measure while it is
young. It is renewed every window/10 steps, counted by the place of a step in its series: the same steps give the same
limits, however they were batched. Not finite values are left out of it.

Median and MAD stand up to half of the window being wrong: a jump that lasts becomes the new usual after about half of
the window and the gap, and the alarm clears itself then. A steady trend is no alarm at any pace: over a window of n
steps that fall by r a step, sigma is 0.37 n r and the newest value (n/2 + gap) r from the centre, which is 1.6
to 1.9 sigma with gap = n/10, and z is 4.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from console.sentinels.rules import Baseline

Floats = npt.NDArray[np.float64]

MAD_TO_SIGMA: Final = 1.4826
"""1 / the normal law's 75 % quantile."""


class Usual(msgspec.Struct, frozen=True):
    """Centre and limits on the scale of the values themselves; NaN before there is enough to go by."""

    centre: float
    limit: float
    easier: float


UNKNOWN: Final = Usual(math.nan, math.nan, math.nan)


def block(rule: Baseline) -> int:
    """Steps for which one baseline holds."""
    return max(rule.window // 10, 1)


def span(rule: Baseline, at: int) -> tuple[int, int]:
    """First and behind-last index of the window for the block that begins at index `at`."""
    if rule.reference == "start":
        return (0, rule.window) if at >= rule.window + rule.gap else (0, 0)
    end = max(at - rule.gap, 0)
    return max(end - rule.window, 0), end


def usual(rule: Baseline, values: Floats) -> Usual:
    """What the values of a window, shape (n,), say; UNKNOWN below `warmup` of them."""
    values = values[np.isfinite(values)]
    if len(values) < rule.warmup:
        return UNKNOWN
    log = rule.scale == "log"
    scaled = np.sort(_scaled(rule, values))
    centre = _middle(scaled)
    # A window with more than half of zeros has a centre of -inf on a log scale without a floor: nothing to go by.
    if not math.isfinite(centre):
        return UNKNOWN
    sigma = MAD_TO_SIGMA * _middle(np.sort(np.abs(scaled - centre)))
    least = math.log(rule.factor) if rule.factor is not None else rule.change or 0.0
    distance = max(rule.z * sigma, least) * (1.0 if rule.side == "high" else -1.0)
    ends = (centre, centre + distance, centre + rule.ease * distance)
    if not log:
        return Usual(*ends)
    return Usual(*(math.exp(min(end, 700.0)) - rule.floor for end in ends))


def _scaled(rule: Baseline, values: Floats) -> Floats:
    if rule.scale == "linear":
        return values
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(values, 0.0) + rule.floor), np.float64)


def _middle(ascending: Floats) -> float:
    n = len(ascending)
    return float(ascending[n // 2] if n % 2 else (ascending[n // 2 - 1] + ascending[n // 2]) / 2)
