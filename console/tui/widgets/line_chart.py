"""The chart: numpy envelopes painted as braille into cells.

Drawn in painter's order, opaque per cell and back to front: limits, marks, reference, ghost, lines, cursor. A cell has
one ink, so a row stays a few segments; merging dots of two lines in one cell would bleed their colours into each other.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from console.store.decimate import envelope, joined, smoothed
from console.store.model import Mark
from console.store.series import Values
from console.tui.glyphs import GLYPHS, Glyphs
from console.tui.theme import HEALTH_INK, Ink
from console.tui.widgets.axis import Range, nice_step, number
from console.tui.widgets.cells import Cells, CellWidget, Text
from console.tui.widgets.chart_data import ChartData, Line
from console.tui.widgets.frame import draw_frame
from console.tui.widgets.raster import dots
from console.tui.widgets.xview import XView
from driftline.metrics import health

_MARK_INK: Final = {"fix": Ink.FIX_MARK, "sync": Ink.SYNC_MARK, "mark": Ink.ACCENT}


@dataclass(frozen=True)
class ChartView:
    """How the operator looks at a chart. `window` is the smoothing in steps, `cursor` a step or None."""

    x: XView = field(default_factory=XView)
    window: int = 1
    cursor: int | None = None
    log: bool = False


class LineChart(CellWidget, can_focus=True):
    """Several series over the steps, in a frame with title, newest values and label."""

    def __init__(self, data: ChartData, *, id: str | None = None, glyphs: Glyphs = GLYPHS["braille"]) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.data = data
        self.view = ChartView()
        self.extent: tuple[int, int] = (0, 0)
        self._ranges = (Range(), Range())
        self._seen: tuple[object, ...] = ()

    def show(self, data: ChartData, view: ChartView, extent: tuple[int, int]) -> int:
        """Take new data or another view; returns the cells that changed. `extent` is the run's first and last step."""
        seen = (data.signature, view, view.x.domain(*extent))
        self.data, self.view, self.extent = data, view, extent
        if seen == self._seen:
            return 0
        self._seen = seen
        return self.repaint()

    def paint(self, cells: Cells) -> None:
        paint_chart(cells, self.data, self.view, self.extent, self._ranges, self.glyphs, focused=self.has_focus)


def paint_chart(
    cells: Cells,
    data: ChartData,
    view: ChartView,
    extent: tuple[int, int],
    ranges: tuple[Range, Range],
    glyphs: Glyphs,
    *,
    focused: bool = False,
) -> None:
    """Draw a chart into all of `cells`. `ranges` (primary and secondary y) keep their state between calls."""
    width, height = cells.width, cells.height
    domain = view.x.domain(*extent)
    log = view.log and any(len(line.values) and _has_positive(line.values) for line in data.lines)
    title = _title(data, view, width)
    if height < 3 or width < 8:
        cells.line(0, 0, title, width)
        return
    footer: list[Text] = []
    if data.extent() is not None:
        footer = [(f" {number(domain[0])} ", Ink.DIM)]
        if view.cursor is not None:
            footer.append((f" step {view.cursor} ", Ink.BRIGHT))
        if view.window > 1:
            footer.append((f" mean of {view.window} ", Ink.DIM))
        if view.x.mode != "all":
            footer.append((" follow " if view.x.mode == "follow" else " zoom ", Ink.ACCENT))
    right = [(f" {number(domain[1])} ", Ink.DIM)] if footer else []
    label = " ".join(part for part in (data.label, "log" if log else "") if part)
    if view.log and not log and data.extent() is not None:
        label = "log: nothing above 0"
    draw_frame(cells, glyphs, title, [(f" {label} ", Ink.DIM)] if label else [], footer, right, focused=focused)
    if data.extent() is None:
        parts = textwrap.wrap(data.empty, max(width - 4, 1))[: height - 2]
        for row, part in enumerate(parts, (height - len(parts)) // 2):
            cells.text(row, max((width - len(part)) // 2, 1), part, Ink.DIM)
        return
    _Plot(cells, data, view, domain, ranges, glyphs, log).draw()


class _Plot:
    """One drawing of the area inside the frame; exists for the length of one `paint_chart`."""

    def __init__(
        self,
        cells: Cells,
        data: ChartData,
        view: ChartView,
        domain: tuple[float, float],
        ranges: tuple[Range, Range],
        glyphs: Glyphs,
        log: bool,
    ) -> None:
        self.cells, self.data, self.view, self.glyphs, self.log = cells, data, view, glyphs, log
        self.start, self.stop = domain
        self.rows = cells.height - 2
        self.ranges = ranges
        if ranges[0].log != log:
            ranges[0].reset(log)
        self.values = [self._values(line) for line in data.lines]
        primary = [v for line, v in zip(data.lines, self.values, strict=True) if not line.secondary]
        secondary = [v for line, v in zip(data.lines, self.values, strict=True) if line.secondary]
        self.low, self.high = ranges[0].fit(*self._bounds(primary))
        # The second axis has no labels, so its zero must be the floor of the chart to be read at all.
        low, high = self._bounds(secondary)
        self.low2, self.high2 = ranges[1].fit(min(low, 0.0), high)
        self.ticks = self._ticks()
        gutter = max((len(text) for _, text in self.ticks), default=0) + 1
        self.left = 1 + (gutter if cells.width >= 20 else 0)
        self.columns = cells.width - 1 - self.left

    def _values(self, line: Line) -> Values:
        """The values that are in view, with one more on each side, as they are drawn."""
        if not self.log or line.secondary:
            return line.values
        with np.errstate(invalid="ignore", divide="ignore"):
            # Zero and below have no place on a log axis: a gap.
            return np.asarray(np.where(line.values > 0, np.log10(line.values), np.nan))

    def _bounds(self, arrays: list[Values]) -> tuple[float, float]:
        low, high = math.inf, -math.inf
        for line, array in zip(self.data.lines, self.values, strict=True):
            if not any(array is wanted for wanted in arrays):
                continue
            begin, end = np.searchsorted(line.steps, (self.start, np.nextafter(self.stop, math.inf)))
            part = array[begin:end]
            if len(part) == 0:
                continue
            below, above = float(part.min()), float(part.max())
            if not (math.isfinite(below) and math.isfinite(above)):
                part = part[np.isfinite(part)]
                if len(part) == 0:
                    continue
                below, above = float(part.min()), float(part.max())
            low, high = min(low, below), max(high, above)
        return low, high

    def _ticks(self) -> list[tuple[int, str]]:
        """Rows of the plot with their labels, top first; only round values, and always two."""
        label = (lambda y: number(10.0**y)) if self.log else number
        if self.rows < 4:
            rows = {0: self.high, self.rows - 1: self.low} if self.rows > 1 else {0: self.high}
            return [(row, label(y)) for row, y in rows.items()]
        ticks = {0: self.high, self.rows - 1: self.low}
        if self.log:
            between = [float(y) for y in range(math.ceil(self.low), math.floor(self.high) + 1)]
        else:
            step = nice_step(self.high - self.low, max(self.rows // 4, 1))
            first = math.ceil(self.low / step - 1e-9)
            between = [step * i for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        for y in between:
            row = round((self.high - y) / (self.high - self.low) * (self.rows - 1))
            if all(abs(row - taken) >= 2 for taken in ticks):
                ticks[row] = 0.0 if abs(y) < (self.high - self.low) * 1e-9 else y
        return [(row, label(ticks[row])) for row in sorted(ticks)]

    def draw(self) -> None:
        for row, text in self.ticks:
            if self.left > 1:
                self.cells.text(1 + row, self.left - 1 - len(text), text, Ink.DIM)
        if self.columns < 1:
            return
        self._limits()
        labels = self._marks()
        for line, values in zip(self.data.lines, self.values, strict=True):
            if line.reference:
                self._line(line, values, Ink.REFERENCE)
        for line, values in zip(self.data.lines, self.values, strict=True):
            if line.reference or line.secondary:
                continue
            if self.view.window > 1:
                self._line(line, values, Ink.GHOST)
                # Smoothed before the logarithm: the mean that is read off the axis must be one of values.
                values = smoothed(line.values, self.view.window)
                if self.log:
                    with np.errstate(invalid="ignore", divide="ignore"):
                        values = np.where(values > 0, np.log10(values), np.nan)
            self._line(line, values, line.ink)
        for line, values in zip(self.data.lines, self.values, strict=True):
            if line.secondary:
                self._line(line, values, line.ink)
        for column, marks in labels.items():
            more = f" +{len(marks) - 1}" if len(marks) > 1 else ""
            self._mark_label(column, marks[0].text + more, _mark_ink(marks[0]))
        if self.view.cursor is not None and self.start <= self.view.cursor <= self.stop:
            self._vertical(self._column(self.view.cursor), Ink.CURSOR)

    def _column(self, step: float) -> int:
        at = (step - self.start) / (self.stop - self.start) * self.columns
        return min(max(int(at), 0), self.columns - 1)

    def _line(self, line: Line, values: Values, ink: Ink) -> None:
        marker = self.glyphs.marker
        low, high = (self.low2, self.high2) if line.secondary else (self.low, self.high)
        env = envelope(line.steps, values, self.start, self.stop, self.columns * marker.wide)
        bits = dots(joined(env), low, high, self.rows, marker)
        drawn = bits != 0
        area = (slice(1, 1 + self.rows), slice(self.left, self.left + self.columns))
        np.copyto(self.cells.chars[area], marker.codes[bits], where=drawn)
        np.copyto(self.cells.inks[area], np.uint8(ink), where=drawn)
        if env.broken.any() and not line.reference:
            self._gaps(line)

    def _gaps(self, line: Line) -> None:
        """Mark each column that has a NaN or Inf (not a zero on a log axis) in the top row."""
        for step in line.steps[~np.isfinite(line.values)].tolist():
            if self.start <= step <= self.stop:
                self.cells.text(1, self.left + self._column(step), self.glyphs.gap, Ink.ALARM)

    def _limits(self) -> None:
        for value, ink in self.data.limits:
            if self.log and value <= 0:
                continue
            y = math.log10(value) if self.log else value
            if not self.low < y < self.high:
                continue
            row = round((self.high - y) / (self.high - self.low) * (self.rows - 1))
            columns = slice(self.left, self.left + self.columns)
            self.cells.chars[1 + row, columns] = ord(self.glyphs.limit)
            self.cells.inks[1 + row, columns] = ink

    def _vertical(self, column: int, ink: Ink) -> None:
        at = self.left + column
        rows = slice(1, 1 + self.rows)
        self.cells.chars[rows, at] = ord(self.glyphs.mark)
        self.cells.inks[rows, at] = ink

    def _marks(self) -> dict[int, list[Mark]]:
        """Draw the marks in view; returns them by column, those that count most first."""
        columns: dict[int, list[Mark]] = {}
        for mark in self.data.marks:
            if self.start <= mark.step <= self.stop:
                columns.setdefault(self._column(mark.step), []).append(mark)
        for column, marks in columns.items():
            marks.sort(key=lambda mark: list(_MARK_INK).index(mark.kind) if mark.kind in _MARK_INK else len(_MARK_INK))
            self._vertical(column, _mark_ink(marks[0]))
        return columns

    def _mark_label(self, column: int, text: str, ink: Ink) -> None:
        """Name a mark at its foot where the chart is large and nothing is drawn there."""
        if self.rows < 8 or self.columns < 40:
            return
        row = self.rows
        start = self.left + column + 1
        stop = start + len(text)
        if stop <= self.left + self.columns and bool((self.cells.chars[row, start:stop] == 32).all()):
            self.cells.text(row, start, text, ink)


def _mark_ink(mark: Mark) -> Ink:
    return _MARK_INK.get(mark.kind, Ink.DIM)


def _has_positive(values: Values) -> bool:
    return bool((values > 0).any())


def _title(data: ChartData, view: ChartView, width: int) -> list[Text]:
    """Title and the values at the newest step or at the cursor; shortened before anything is cut."""
    values: list[Text] = []
    for line in data.lines:
        if line.reference:
            continue
        if len(line.steps) == 0:
            if line.short:
                values.append((f" {line.short}", Ink.TITLE))
            continue
        at = len(line.steps) - 1
        if view.cursor is not None:
            at = int(np.searchsorted(line.steps, view.cursor, side="right")) - 1
        if line.short:
            values.append((f" {line.short}", line.ink))
        if at < 0:
            values.append((" –", Ink.DIM))
            continue
        value = float(line.values[at])
        verdict = health(line.metric, value)
        if not math.isfinite(value):
            verdict = "alarm"
        values.append((f" {number(value)}{'!' if verdict == 'alarm' else ''}", HEALTH_INK[verdict]))
    room = width - 4 - sum(len(text) for text, _ in values)
    title = data.title if len(data.title) <= room or not data.short else data.short
    head: list[Text] = [(f" {title[: max(room, 0)]}", Ink.TITLE)] if title else []
    return [*head, *values, (" ", Ink.FRAME)]
