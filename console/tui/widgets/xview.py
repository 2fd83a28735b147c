"""Which steps are on screen: one immutable window that all charts of a screen share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

from console.tui.widgets.axis import nice_max, nice_step

Mode = Literal["all", "follow", "fixed"]

SMALLEST: Final = 4.0
"""Steps in the narrowest window."""


@dataclass(frozen=True)
class XView:
    """`all` shows the whole run, `follow` the newest `width` steps, `fixed` stands still at [low, high]."""

    mode: Mode = "all"
    low: float = 0.0
    high: float = 0.0
    width: float = 0.0

    def domain(self, first: int, last: int) -> tuple[float, float]:
        """The interval to draw for a run whose steps go from `first` to `last`; high > low always."""
        whole = _whole(first, last)
        if self.mode == "fixed":
            return self.low, self.high
        if self.mode == "follow" and self.width < whole[1] - whole[0]:
            # In chunks of a quarter: between two of them nothing moves but the newest columns.
            chunk = max(self.width / 4, 1.0)
            high = math.ceil(max(last, 1) / chunk) * chunk
            return high - self.width, high
        return whole

    def zoom(self, factor: float, first: int, last: int) -> XView:
        """Narrower for factor < 1; about the newest step where that is on screen, else about the middle."""
        low, high = self.domain(first, last)
        width = max((high - low) * factor, SMALLEST)
        whole = _whole(first, last)
        if width >= whole[1] - whole[0]:
            return XView()
        if self.mode != "fixed" or low <= last <= high:
            return XView("follow", width=width)
        middle = (low + high) / 2
        return XView("fixed", middle - width / 2, middle + width / 2, width)

    def pan(self, part: float, first: int, last: int) -> XView:
        """Shift by a part of the width; positive is towards newer steps. Stops at the ends of the run."""
        low, high = self.domain(first, last)
        width = high - low
        start, stop = _whole(first, last)
        low = min(max(low + part * width, start), max(stop - width, start))
        return XView("fixed", low, low + width, width)

    def follow(self, first: int, last: int) -> XView:
        """Follow the newest steps in a window of the present width, or of a quarter of the run."""
        low, high = self.domain(first, last)
        width = (high - low) / 4 if self.mode == "all" else high - low
        return XView("follow", width=max(width, SMALLEST))

    def all(self) -> XView:
        """The whole run."""
        return replace(self, mode="all")


def _whole(first: int, last: int) -> tuple[float, float]:
    """From a round step at or below the first to a round one above the last, with room to grow into."""
    if first <= max(last, 10) * 0.3:
        return 0.0, nice_max(last)
    step = nice_step(max(last - first, 10), 4)
    low = math.floor(first / step) * step
    return low, low + nice_max(last - low)
