"""The part of the run on screen: one immutable window that all charts of a screen share.

Places are steps, seconds or tokens, as the window's unit says.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec
import numpy as np
from msgspec.structs import replace

from console.store.series.clock import Ruler, Unit
from console.tui.paint.axis import nice_max, nice_step, nice_time

Mode = Literal["all", "follow", "fixed"]

SMALLEST: Final = 4.0
"""Steps, seconds or tokens in the narrowest window."""


class XView(msgspec.Struct, frozen=True):
    """`all` shows the whole run, `follow` the newest `width`, `fixed` stands still at [low, high]."""

    mode: Mode = "all"
    low: float = 0.0
    high: float = 0.0
    width: float = 0.0
    unit: Unit = "step"

    def domain(self, first: float, last: float) -> tuple[float, float]:
        """The interval to draw for a run that goes from `first` to `last`; high > low always."""
        whole = _whole(first, last, self.unit)
        if self.mode == "fixed":
            return self.low, self.high
        if self.mode == "follow" and self.width < whole[1] - whole[0]:
            # In chunks: between two of them nothing moves but the newest columns.
            high = math.ceil(max(last, 1.0) / self.chunk) * self.chunk
            return high - self.width, high
        return whole

    @property
    def chunk(self) -> float:
        """Distance on the x axis by which a following window moves at once."""
        return max(self.width / 4, 1.0)

    def zoom(self, factor: float, first: float, last: float, about: float | None = None) -> XView:
        """Narrower for factor < 1: about the place `about`, else about the newest where that is on screen.

        A window that would hold the whole run does.
        """
        low, high = self.domain(first, last)
        width = max((high - low) * factor, SMALLEST)
        whole = _whole(first, last, self.unit)
        if width >= whole[1] - whole[0]:
            return self.all()
        if about is None and (self.mode != "fixed" or low <= last <= high):
            return replace(self, mode="follow", width=width)
        middle = (low + high) / 2 if about is None else about
        start = min(max(middle - width / 2, whole[0]), whole[1] - width)
        return replace(self, mode="fixed", low=start, high=start + width, width=width)

    def pan(self, part: float, first: float, last: float) -> XView:
        """Shift by a part of the width; positive is towards newer. Stops at the ends of the run.

        Where there is nothing on that side it goes on growing or following: all is in view, or the newest is.
        """
        low, high = self.domain(first, last)
        width = high - low
        start, stop = _whole(first, last, self.unit)
        if self.mode != "fixed" and (part > 0 or width >= stop - start):
            return self
        low = min(max(low + part * width, start), max(stop - width, start))
        return replace(self, mode="fixed", low=low, high=low + width, width=width)

    def around(self, place: float, width: float, first: float, last: float) -> XView:
        """A window of about `width` that has a place in its middle, or the whole run where that is narrower."""
        low, high = self.domain(first, last)
        return self.zoom(width / (high - low), first, last, place)

    def follow(self, first: float, last: float) -> XView:
        """Follow the newest in a window of the present width, or of a quarter of the run."""
        low, high = self.domain(first, last)
        width = (high - low) / 4 if self.mode == "all" else high - low
        return replace(self, mode="follow", width=max(width, SMALLEST))

    def all(self) -> XView:
        """The whole run."""
        return XView(unit=self.unit)

    def converted(self, old: Ruler, new: Ruler, last: int) -> XView:
        """The same part of the run in the unit of another ruler; `last` is the run's newest step."""
        if self.mode == "all":
            return XView(unit=new.unit)
        end = old.place(last)
        low, high = (self.low, self.high) if self.mode == "fixed" else (end - self.width, end)
        start, stop = (float(step) for step in old.steps_at(np.array([low, high])))
        low, high = new.place(start), new.place(min(stop, last))
        width = max(high - low, SMALLEST)
        return XView(self.mode, low, low + width, width, new.unit)


def _whole(first: float, last: float, unit: Unit) -> tuple[float, float]:
    """From a round place at or below the first to a round one above the last, with room to grow into."""
    if unit == "time":
        return 0.0, nice_time(last)
    if first <= max(last, 10) * 0.3:
        return 0.0, nice_max(last)
    step = nice_step(max(last - first, 10), 4)
    low = math.floor(first / step) * step
    return low, low + nice_max(last - low)
