"""What a comparison would have seen: the smallest shifts that would have failed, from its own data and band. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from console.parity.band import Band, plain
from console.parity.rules import Rule
from console.parity.windows import lowest

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """The smallest shifts up and down that would have failed, on the rule's scale; inf: none, or a side that is free.

    `low` and `high`: where such shifts take the reference's median, in units; `low` is NaN where even nothing at all
    would not have been seen.
    """

    up: float
    down: float
    low: float
    high: float

    def least(self, rule: Rule) -> float:
        """The smallest shift that is seen on every side that counts, on the rule's scale."""
        return {"both": max(self.up, self.down), "high": self.up, "low": self.down}[rule.side]


@dataclass(frozen=True)
class Power:
    """Of a shift that begins `late`, with the last half of the steps, and of one from the `first` step on.

    `level`: the reference's median, in units.
    """

    late: Shift
    first: Shift
    level: float


def held(over: Floats, window: int) -> Floats:
    """The level that is held for `window` values in a row: their lowest, (n) -> (n - window + 1), of n at least one."""
    return lowest(over, min(window, len(over)))


def power(above: Floats, below: Floats, changes: tuple[float, float], limits: Band, rule: Rule, window: int) -> Power:
    """From how far each window's mean is above the band and below it (negative: inside), on the rule's scale.

    A shift is seen if the run is then outside for `window` windows in a row, or if it is at least `changes`, up and
    down, the smallest changes that the last half would have shown (`console.parity.change`).
    """
    centre = limits.centre[np.isfinite(limits.centre)]
    middle = float(np.median(centre)) if len(centre) else math.nan
    # The windows of the last half alone; where there are too few of them the newest that a verdict takes.
    half = max((len(above) + window - 1) // 2 - window + 1, window)
    late = [min(_needed(over[-half:], window), least) for over, least in zip((above, below), changes, strict=True)]
    first = [_needed(over, window) for over in (above, below)]
    level = float(plain(np.array([middle]), rule)[0])
    return Power(_shift(late[0], late[1], middle, rule), _shift(first[0], first[1], middle, rule), level)


def _shift(up: float, down: float, middle: float, rule: Rule) -> Shift:
    high, low = (float(plain(np.array([one]), rule)[0]) for one in (middle + up, middle - down))
    if not math.isfinite(down) or (rule.floor is not None and middle - down <= math.log(rule.floor)):
        low = math.nan
    return Shift(up, down, low, high)


def _needed(over: Floats, window: int) -> float:
    return max(float(-held(over, window).max()), 0.0)
