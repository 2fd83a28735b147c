"""Stretches far outside the band that are too short for a verdict: found in single steps, and named. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from console.parity.band import Band, Floats
from console.parity.rules import Rule

FAR = 6.0
"""Standard deviations of a single step beyond the band. Normal noise: once in 10^9 steps."""
APART = 2
"""Steps from one to the next that are still one burst."""


@dataclass(frozen=True)
class Burst:
    """Steps `first` to `last`, `count` of which were outside; the farthest had the value `peak`, in units."""

    first: int
    last: int
    count: int
    peak: float
    above: bool


def bursts(
    values: Floats, units: Floats, limits: Band, rule: Rule, steps: npt.NDArray[np.int64], window: int
) -> list[Burst]:
    """Bursts among `values` (on the rule's scale, n) and the same in `units`, in their order.

    A step is compared with the band of the window that it is in the middle of.
    """
    at = np.minimum(np.maximum(np.arange(len(values)) - window // 2, 0), len(limits.centre) - 1)
    room = FAR * limits.single
    over = np.where(rule.side != "low", values - limits.high[at] - room, -np.inf)
    under = np.where(rule.side != "high", limits.low[at] - room - values, -np.inf)
    beyond = np.where(np.isfinite(values), np.maximum(over, under), -np.inf)
    out = np.flatnonzero(beyond > 0)
    found: list[Burst] = []
    if not len(out):
        return found
    for part in np.split(out, np.flatnonzero(np.diff(out) > APART) + 1):
        if len(part):
            far = int(part[beyond[part].argmax()])
            first, last = int(steps[part[0]]), int(steps[part[-1]])
            found.append(Burst(first, last, len(part), float(units[far]), bool(over[far] > under[far])))
    return found
