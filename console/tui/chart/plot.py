"""The area inside a chart's frame: y labels, limits, marks, band, lines, crosshair, back to front.

Opaque per cell, in painter's order: a cell has one ink, so a row stays a few segments; merging the dots of two lines in
one cell would bleed their colours into each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from console.store.model import Mark
from console.store.series.clock import Ruler
from console.store.series.decimate import Envelope, columns, joined
from console.store.series.series import Points
from console.tui.chart.data import ChartData, Line
from console.tui.chart.view import ChartView
from console.tui.paint.axis import ticks, y_range
from console.tui.paint.cells import Cells, Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.raster import Bits, between, dots
from console.tui.paint.theme import Ink

_MARK_INK: Final = {
    "fix": Ink.FIX_MARK, "correction": Ink.SECOND, "sync": Ink.SYNC_MARK, "mark": Ink.ACCENT,
}  # fmt: skip
_ALARM_INK: Final = {"error": Ink.ALARM, "warn": Ink.WARN}
_ALARM: Final = "!"
"""As in the header, where alarms are counted. No line, mark or limit is drawn with it, in no set of glyphs."""
_DASH: Final = 4
_DASH_GAP: Final = 2
"""Cells of a dash with the gap behind it, and of the gap."""
_GUTTER_FROM: Final = 20
"""Columns of the pane from which there is room for y labels."""


class Plot:
    """One drawing; exists for the length of one `paint_chart`."""

    def __init__(
        self, cells: Cells, data: ChartData, view: ChartView, domain: tuple[float, float], glyphs: Glyphs, *, log: bool
    ) -> None:
        self.cells, self.data, self.view, self.glyphs, self.log = cells, data, view, glyphs, log
        self.start, self.stop = domain
        self.rows = cells.height - 2
        self.range = y_range(*self._bounds(secondary=False), log=log)
        low, high = self._bounds(secondary=True)
        # The second axis has no labels, so its zero must be the floor of the chart to be read at all.
        self.range2 = y_range(min(low, 0.0), high)
        self.ticks = ticks(*self.range, self.rows, log=log)
        gutter = max((len(text) for _, text in self.ticks), default=0) + 1
        self.left = 1 + (gutter if cells.width >= _GUTTER_FROM else 0)
        self.columns = cells.width - 1 - self.left
        self.area = (slice(1, 1 + self.rows), slice(self.left, self.left + self.columns))

    # -- from values to columns

    def _bounds(self, *, secondary: bool) -> tuple[float, float]:
        """Lowest and highest of what is in view, of references and bands too: behind is where they are to be seen."""
        start = self.start
        if self.view.x.mode == "follow":
            # And of the chunk that has just left: the range must not shrink and grow again at every move.
            start -= self.view.x.chunk
        low, high = math.inf, -math.inf
        shown = [(line.points, line.ruler) for line in self.data.lines if line.secondary == secondary]
        if not secondary:
            shown += [(points, band.ruler) for band in self.data.bands for points in (band.low, band.high)]
        for points, ruler in shown:
            env = self._columns(points, ruler, start, self.stop, 1, positive=self.log and not secondary)
            if math.isfinite(env.low[0]):
                low, high = min(low, float(env.low[0])), max(high, float(env.high[0]))
        if self.log and not secondary and 0 < low <= high:
            return math.log10(low), math.log10(high)
        return low, high

    def _columns(
        self, points: Points, ruler: Ruler | None, start: float, stop: float, count: int, *, positive: bool
    ) -> Envelope:
        own = self.view.ruler if ruler is None or ruler.unit != self.view.ruler.unit else ruler
        return points.envelope(own.steps_at(columns(start, stop, count)), positive=positive)

    def _dotted(self, points: Points, ruler: Ruler | None, *, log: bool) -> Envelope:
        """One column of the envelope for each column of dots; as decades on a log axis."""
        wide = self.columns * self.glyphs.marker.wide
        env = self._columns(points, ruler, self.start, self.stop, wide, positive=log)
        if not log:
            return env
        # The logarithm is monotone: that of the bounds is the bounds of that. Zero and below do not count, a gap.
        with np.errstate(invalid="ignore", divide="ignore"):
            low, high, first, last = (np.log10(part) for part in env[:4])
        return Envelope(low, high, first, last, env.broken)

    # -- painting

    def draw(self) -> None:
        for row, text in self.ticks:
            if self.left > 1:
                self.cells.text(1 + row, self.left - 1 - len(text), text, Ink.DIM)
        if self.columns < 1:
            return
        self._bands()
        self._limits()
        labels = self._marks()
        back_to_front = sorted(self.data.lines, key=lambda line: (not line.reference, line.secondary))
        for line in back_to_front:
            self._line(line)
        for column, marks in labels.items():
            self._mark_label(self.rows, column, _counted(marks), mark_ink(marks[0]))
        if self.view.cursor is not None:
            place = self.view.ruler.place(self.view.cursor)
            if self.start <= place <= self.stop:
                self._vertical(self._column(place), Ink.CURSOR)
        self._alarms()

    def under_cursor(self) -> list[Mark]:
        """The alarms in the column of the crosshair, errors first."""
        cursor = self.view.cursor
        if cursor is None or self.columns < 1:
            return []
        return self._by_column(_ALARM_INK).get(self._column(self.view.ruler.place(cursor)), [])

    def _line(self, line: Line) -> None:
        log = self.log and not line.secondary
        low, high = self.range2 if line.secondary else self.range
        ink = Ink.REFERENCE if line.reference and not line.overlay else line.ink
        if self.data.freshness == "stale" and not line.reference:
            ink = Ink.DIM
        points = line.points
        env = self._dotted(points, line.ruler, log=log)
        if line.overlay:
            # As smooth as the line that it is held against, and without its ghost; dashed, for who sees no colours.
            if self.view.weight > 0:
                env = self._dotted(points.smoothed(self.view.weight), line.ruler, log=log)
            bits = dots(joined(env), low, high, self.rows, self.glyphs.marker)
            bits[:, np.arange(self.columns) % _DASH >= _DASH - _DASH_GAP] = 0
            self._paint(bits, ink)
        elif self.view.weight > 0 and not line.secondary and not line.reference:
            self._paint(dots(joined(env), low, high, self.rows, self.glyphs.marker), Ink.GHOST)
            # Smoothed before the logarithm: the mean that is read off the axis must be one of values.
            smooth = self._dotted(points.smoothed(self.view.weight), line.ruler, log=log)
            self._paint(dots(joined(smooth), low, high, self.rows, self.glyphs.marker), ink)
        else:
            self._paint(dots(joined(env), low, high, self.rows, self.glyphs.marker), ink)
        if not line.reference and env.broken.any():
            self._gaps(line, env if not log else None)

    def _paint(self, bits: Bits, ink: Ink) -> None:
        drawn = bits != 0
        np.copyto(self.cells.chars[self.area], self.glyphs.marker.codes[bits], where=drawn)
        np.copyto(self.cells.inks[self.area], np.uint8(ink), where=drawn)

    def _gaps(self, line: Line, env: Envelope | None) -> None:
        """Mark each column that has a NaN or Inf (not a zero on a log axis) in the top row."""
        if env is None:
            wide = self.columns * self.glyphs.marker.wide
            env = self._columns(line.points, line.ruler, self.start, self.stop, wide, positive=False)
        bad = env.broken.reshape(self.columns, self.glyphs.marker.wide).any(axis=1)
        self.cells.chars[1, self.area[1]][bad] = ord(self.glyphs.gap)
        self.cells.inks[1, self.area[1]][bad] = Ink.ALARM

    def _bands(self) -> None:
        low, high = self.range
        for band in self.data.bands:
            floor = joined(self._dotted(band.low, band.ruler, log=self.log))
            ceiling = joined(self._dotted(band.high, band.ruler, log=self.log))
            self._paint(between(floor.low, ceiling.high, low, high, self.rows, self.glyphs.marker), Ink.REFERENCE)

    def _limits(self) -> None:
        low, high = self.range
        for value, ink in self.data.limits:
            if self.log and value <= 0:
                continue
            y = math.log10(value) if self.log else value
            if not low < y < high:
                continue
            row = round((high - y) / (high - low) * (self.rows - 1))
            self.cells.chars[1 + row, self.area[1]] = ord(self.glyphs.limit)
            self.cells.inks[1 + row, self.area[1]] = ink

    def _column(self, place: float) -> int:
        at = (place - self.start) / (self.stop - self.start) * self.columns
        return min(max(int(at), 0), self.columns - 1)

    def _vertical(self, column: int, ink: Ink) -> None:
        at = self.left + column
        self.cells.chars[self.area[0], at] = ord(self.glyphs.mark)
        self.cells.inks[self.area[0], at] = ink

    def _marks(self) -> dict[int, list[Mark]]:
        """Draw the marks in view; returns them by column, those that count most first."""
        by_column = self._by_column(_MARK_INK)
        for column, marks in by_column.items():
            self._vertical(column, mark_ink(marks[0]))
        return by_column

    def _by_column(self, inks: Mapping[str, Ink]) -> dict[int, list[Mark]]:
        """The marks of some kinds in view, by column, in the order of the kinds."""
        rank = list(inks).index
        by_column: dict[int, list[Mark]] = {}
        ruler = self.view.ruler
        first, last = ruler.first_step(self.start), ruler.first_step(math.nextafter(self.stop, math.inf)) - 1
        for mark in self.data.marks:
            if mark.kind in inks and first <= mark.step <= last:
                by_column.setdefault(self._column(ruler.place(mark.step)), []).append(mark)
        for marks in by_column.values():
            marks.sort(key=lambda mark: rank(mark.kind))
        return by_column

    def _alarms(self) -> None:
        """A sign where an alarm was raised, in a cell of its column that holds no line: it hides nothing.

        All in the highest row or all in the lowest as far as they can be: where most of them have room.
        """
        alarms = self._by_column(_ALARM_INK)
        free = np.isin(self.cells.chars[self.area], [ord(sign) for sign in (" ", self.glyphs.mark, self.glyphs.limit)])
        edges = (0, -1) if free[0, list(alarms)].sum() >= free[-1, list(alarms)].sum() else (-1, 0)
        placed: list[tuple[int, int, list[Mark]]] = []
        for column, marks in alarms.items():
            rows = [*(row % self.rows for row in edges if free[row, column]), *np.flatnonzero(free[:, column]).tolist()]
            if rows:
                self.cells.text(1 + rows[0], self.left + column, _ALARM, _ALARM_INK[marks[0].kind])
                placed.append((1 + rows[0], column, marks))
        for row, column, marks in placed:
            # With a blank behind it, so that the next sign does not read as its end.
            self._mark_label(row, column, f"{_counted(marks)} ", _ALARM_INK[marks[0].kind])

    def _mark_label(self, row: int, column: int, text: str, ink: Ink) -> None:
        """Name a mark beside it where the chart is large and nothing is drawn there."""
        if self.rows < 8 or self.columns < 40:
            return
        start = self.left + column + 1
        stop = start + len(text)
        if stop <= self.left + self.columns and bool((self.cells.chars[row, start:stop] == 32).all()):
            self.cells.text(row, start, text, ink)


def alarm_text(marks: list[Mark]) -> Text:
    """The alarms of one column in words, for the edge of the chart."""
    return f" {_ALARM} {_counted(marks)} ", _ALARM_INK[marks[0].kind]


def _counted(marks: list[Mark]) -> str:
    """The first by name, the others by their number."""
    return marks[0].text + (f" +{len(marks) - 1}" if len(marks) > 1 else "")


def mark_ink(mark: Mark) -> Ink:
    """The ink of a mark, by what was changed."""
    return _MARK_INK.get(mark.kind, Ink.DIM)
