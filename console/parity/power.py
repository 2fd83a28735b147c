"""What a comparison would have seen: the smallest shift that would have failed, from its own data and band. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from console.parity.band import Band, plain
from console.parity.rules import Rule

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Power:
    """The smallest shifts up and down that would have failed, on the rule's scale; inf: none, or a side that is free.

    `low` and `high`: where such shifts take the reference's median, `level`, in units; `low` is NaN where even nothing
    at all would not have been seen.
    """

    up: float
    down: float
    level: float
    low: float
    high: float

    def least(self, rule: Rule) -> float:
        """The smallest shift that is seen on every side that counts, on the rule's scale."""
        return {"both": max(self.up, self.down), "high": self.up, "low": self.down}[rule.side]


def held(over: Floats, window: int) -> Floats:
    """The level that is held for `window` values in a row: their lowest, (n) -> (n - window + 1), of n at least one."""
    views: Floats = np.lib.stride_tricks.sliding_window_view(over, min(window, len(over)))
    lowest: Floats = views.min(axis=-1)
    return lowest


def power(above: Floats, below: Floats, limits: Band, rule: Rule, window: int) -> Power:
    """From how far each window's mean is above the band and below it (negative: inside), on the rule's scale.

    A shift over the last half of the steps is seen if the run is then outside for `window` windows in a row.
    """
    up, down = (_needed(over, window) for over in (above, below))
    centre = limits.centre[np.isfinite(limits.centre)]
    middle = np.median(centre) if len(centre) else math.nan
    level, high = (float(plain(np.array([one]), rule)[0]) for one in (middle, middle + up))
    low = float(plain(np.array([middle - down]), rule)[0])
    if not math.isfinite(down) or (rule.floor is not None and middle - down <= math.log(rule.floor)):
        low = math.nan
    return Power(up, down, level, low, high)


def _needed(over: Floats, window: int) -> float:
    # Where there are too few windows in the last half: the newest that a verdict takes.
    part = over[-max(len(over) // 2, window) :]
    return max(float(-held(part, window).max()), 0.0)
