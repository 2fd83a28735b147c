"""Settings of the charts, and the change that each key makes to them: pure, the same for all charts of a screen."""

from __future__ import annotations

import math
from typing import Final

import msgspec
from msgspec.structs import replace

from console.store.series.clock import UNITS, Clock, Ruler
from console.tui.chart.x_window import XView
from console.tui.paint.units import number, span

WEIGHTS: Final = (0.0, 0.6, 0.9, 0.99)
"""Of the smoothing, off first: those that people know from the training dashboards."""

Extent = tuple[int, int]
"""A run's first and last step."""


class ChartView(msgspec.Struct, frozen=True):
    """`weight` is that of the moving average (0: off), `cursor` a step or None, `ruler` the unit of the x axis."""

    x: XView = msgspec.field(default_factory=XView)
    weight: float = 0.0
    cursor: int | None = None
    log: bool = False
    ruler: Ruler = msgspec.field(default_factory=Ruler)

    def domain(self, extent: Extent) -> tuple[float, float]:
        """The interval of the x axis, in its unit."""
        return self.x.domain(*self._places(extent))

    def label(self, place: float) -> str:
        """A place on the x axis in words."""
        return span(place) if self.ruler.unit == "time" else number(place)

    def zoom(self, factor: float, extent: Extent) -> ChartView:
        """Narrower for factor < 1, about the crosshair where there is one."""
        about = self.ruler.place(self.cursor) if self.cursor is not None else None
        return replace(self, x=self.x.zoom(factor, *self._places(extent), about))

    def pan(self, part: float, extent: Extent) -> ChartView:
        """Shifted by a part of the width."""
        return replace(self, x=self.x.pan(part, *self._places(extent)))

    def follow(self, extent: Extent) -> ChartView:
        """With the newest steps in view from now on."""
        return replace(self, x=self.x.follow(*self._places(extent)))

    def all(self) -> ChartView:
        """With the whole run in view."""
        return replace(self, x=self.x.all())

    def smooth(self) -> ChartView:
        """With the next weight."""
        at = WEIGHTS.index(self.weight) if self.weight in WEIGHTS else 0
        return replace(self, weight=WEIGHTS[(at + 1) % len(WEIGHTS)])

    def measured(self, ruler: Ruler, extent: Extent) -> ChartView:
        """The same part of the run on another ruler: of another unit, or of the same with more steps."""
        if ruler.unit == self.ruler.unit:
            return self if ruler == self.ruler else replace(self, ruler=ruler)
        return replace(self, ruler=ruler, x=self.x.converted(self.ruler, ruler, extent[1]))

    def next_unit(self, clock: Clock, extent: Extent) -> ChartView:
        """On the next unit that the run has something for."""
        at = UNITS.index(self.ruler.unit)
        for unit in (*UNITS[at + 1 :], *UNITS[: at + 1]):
            ruler = clock.ruler(unit)
            if ruler is not None:
                return self.measured(ruler, extent)
        return self

    def crosshair(self, extent: Extent) -> ChartView:
        """With the crosshair on the newest step in view, or without it."""
        if self.cursor is not None:
            return replace(self, cursor=None)
        low, high = self._steps(extent)
        return replace(self, cursor=min(max(extent[1], low), high))

    def at(self, step: int, steps: int, extent: Extent) -> ChartView:
        """With the crosshair on a step, in a window of about `steps` around it."""
        step = min(max(step, extent[0]), extent[1])
        place, first, last = self.ruler.place(step), *self._places(extent)
        width = steps * (last - first) / max(extent[1] - extent[0], 1)
        return replace(self, cursor=step, x=self.x.around(place, width, first, last))

    def moved(self, columns: int, width: int, extent: Extent) -> ChartView:
        """With the crosshair moved by columns of a plot of `width`, at least by a step, within what is in view."""
        if self.cursor is None:
            return self
        low, high = self._steps(extent)
        stride = max(round((high - low) / max(width, 1)), 1)
        return replace(self, cursor=min(max(self.cursor + columns * stride, low), high))

    def _places(self, extent: Extent) -> tuple[float, float]:
        return self.ruler.place(extent[0]), self.ruler.place(extent[1])

    def _steps(self, extent: Extent) -> tuple[int, int]:
        """First and last step of the run that is in view."""
        low, high = self.domain(extent)
        first = self.ruler.first_step(low)
        last = self.ruler.first_step(math.nextafter(high, math.inf)) - 1
        return min(max(first, extent[0]), extent[1]), max(min(last, extent[1]), extent[0])
