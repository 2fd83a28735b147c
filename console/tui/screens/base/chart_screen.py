"""Base of the screens with charts: one view that all their charts share, and the keys that change it."""

from __future__ import annotations

from typing import Final

from textual.widget import Widget

from console.tui.chart.line_chart import LineChart
from console.tui.chart.view import ChartView
from console.tui.paint.glyphs import Glyphs
from console.tui.screens.base.run_screen import Direction, RunScreen

AROUND: Final = 100
"""Steps in view after a jump to one of them."""


class ChartScreen(RunScreen):
    """A screen whose charts are zoomed, panned and pointed at together."""

    def __init__(self, glyphs: Glyphs, weight: float = 0.0) -> None:
        """`weight` is of the moving average to start with."""
        super().__init__(glyphs)
        self.view = ChartView(weight=weight)
        self.extent = (0, 0)
        """First and last step that there is to show."""

    def use_view(self, view: ChartView) -> None:
        """Draw the same data in another view; also while frozen, because the view is the operator's."""
        raise NotImplementedError  # abstract: a Textual class has no room for the ABC metaclass

    def goto(self, step: int) -> bool:
        """The crosshair on a step, with what was around it."""
        self.use_view(self.view.at(step, AROUND, self.extent))
        return True

    def action_zoom(self, factor: float) -> None:
        self.use_view(self.view.zoom(factor, self.extent))

    def action_pan(self, part: float) -> None:
        self.use_view(self.view.pan(part, self.extent))

    def action_show_all(self) -> None:
        self.use_view(self.view.all())

    def action_follow(self) -> None:
        self.use_view(self.view.follow(self.extent))

    def action_crosshair(self) -> None:
        self.use_view(self.view.crosshair(self.extent))

    def moved(self, focused: Widget | None, direction: Direction) -> bool:
        if not isinstance(focused, LineChart) or self.view.cursor is None or direction not in ("left", "right"):
            return False
        self.use_view(self.view.moved(-1 if direction == "left" else 1, focused.size.width, self.extent))
        return True

    def action_back(self) -> None:
        """One level out: crosshair, then enlargement, then zoom."""
        if self.view.cursor is not None:
            self.action_crosshair()
        elif self.enlarged is not None:
            self.enlarge(None)
        elif self.view.x.mode != "all":
            self.action_show_all()
