"""The chart as a widget: a frame with title, values and notes around a plot."""

from __future__ import annotations

import math
import textwrap

from console.store.model import Mark
from console.tui.chart.data import ChartData, Line
from console.tui.chart.plot import Plot, alarm_text
from console.tui.chart.view import ChartView, Extent
from console.tui.paint.cells import Cells, Text
from console.tui.paint.frame import draw_frame
from console.tui.paint.glyphs import GLYPHS, Glyphs
from console.tui.paint.theme import HEALTH_INK, Ink
from console.tui.paint.units import cut, number
from console.tui.widgets.cell_widget import CellWidget
from driftline.catalog.metrics import health

__all__ = ["ChartView", "LineChart", "paint_chart"]


class LineChart(CellWidget, can_focus=True):
    """Several series over the steps, in a frame with title, newest values and label."""

    def __init__(self, data: ChartData, *, id: str | None = None, glyphs: Glyphs = GLYPHS["braille"]) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.data = data
        self.view = ChartView()
        self.extent: Extent = (0, 0)
        self._seen: tuple[object, ...] = ()

    def show(self, data: ChartData, view: ChartView, extent: Extent) -> int:
        """Take new data or another view; returns the cells that changed. `extent` is the run's first and last step."""
        seen = (data.signature, view, view.domain(extent))
        self.data, self.view, self.extent = data, view, extent
        if seen == self._seen:
            return 0
        self._seen = seen
        return self.repaint()

    def paint(self, cells: Cells) -> None:
        paint_chart(cells, self.data, self.view, self.extent, self.glyphs, focused=self.has_focus)


def paint_chart(
    cells: Cells, data: ChartData, view: ChartView, extent: Extent, glyphs: Glyphs, *, focused: bool = False
) -> None:
    """Draw a chart into all of `cells`: a function of its arguments, so that equal views of equal data look alike."""
    width, height = cells.width, cells.height
    domain = view.domain(extent)
    log = view.log and any(_has_positive(line) for line in data.lines)
    title = _title(data, view, width, cells.ellipsis)
    if height < 3 or width < 8:
        cells.line(0, 0, title, width)
        return
    filled = data.extent() is not None
    plot = Plot(cells, data, view, domain, glyphs, log=log) if filled else None
    alarms = plot.under_cursor() if plot is not None else []
    footer = _footer(view, domain, alarms, width - 2, cells.ellipsis) if filled else []
    if filled and any(line.overlay for line in data.lines):
        legend = _legend(data, view, width - 4 - sum(len(text) for text, _ in footer), cells.ellipsis)
        if not legend:
            # The name of a line is worth more than the weight of its smoothing, which the footer said when it changed.
            footer = [part for part in footer if not part[0].startswith(" ema ")]
            legend = _legend(data, view, width - 4 - sum(len(text) for text, _ in footer), cells.ellipsis)
        footer += legend
    right = [(f" {view.label(domain[1])} ", Ink.DIM)] if filled else []
    room = width - 3 - sum(len(text) for text, _ in title)
    label = _label(data, view, room, filled=filled, log=log)
    draw_frame(cells, glyphs, title, label, footer, right, focused=focused)
    if plot is not None:
        plot.draw()
        return
    parts = textwrap.wrap(data.empty, max(width - 4, 1))[: height - 2]
    for row, part in enumerate(parts, (height - len(parts)) // 2):
        cells.text(row, max((width - len(part)) // 2, 1), part, Ink.DIM)


def _has_positive(line: Line) -> bool:
    edges = line.steps[[0, -1]] + [0.0, 1.0] if len(line.steps) else None
    return edges is not None and math.isfinite(float(line.points.envelope(edges, positive=True).high[0]))


def _label(data: ChartData, view: ChartView, room: int, *, filled: bool, log: bool) -> list[Text]:
    """The right of the upper edge: whether the numbers are to be believed, then which kind they are.

    As much of it as fits into `room` cells, most important first.
    """
    texts: list[Text] = []
    if data.freshness != "live" and filled:
        texts.append((data.freshness, Ink.WARN))
    words = (data.label, "log" if log else "log: nothing above 0" if view.log and filled else "")
    texts += [(word, Ink.DIM) for word in words if word]
    line: list[Text] = []
    for text, ink in texts:
        if sum(len(part) for part, _ in line) + len(text) + 2 <= room:
            line += [(" ", Ink.DIM), (text, ink)]
    return [*line, (" ", Ink.DIM)] if line else []


def _footer(view: ChartView, domain: tuple[float, float], alarms: list[Mark], room: int, ellipsis: str) -> list[Text]:
    """Start of the x axis, the crosshair with the alarm there, and the axis settings.

    Where that is more than `room` cells, what is left out is left out whole: the crosshair's place, then from the
    right, then the start of the axis; only the name of an alarm is cut.
    """
    unit = "" if view.ruler.unit == "step" else f"{view.ruler.unit} "
    start: list[Text] = [(f" {unit}{view.label(domain[0])} ", Ink.DIM)]
    cursor: list[Text] = []
    at = f" at {view.label(view.ruler.place(view.cursor))}" if unit and view.cursor is not None else ""
    if view.cursor is not None:
        cursor = [(f" step {view.cursor}{at} ", Ink.BRIGHT), *([alarm_text(alarms)] if alarms else [])]
    look: list[Text] = [(f" ema {view.weight:g} ", Ink.DIM)] if view.weight > 0 else []
    if view.x.mode != "all":
        look.append((" follow " if view.x.mode == "follow" else " zoom ", Ink.ACCENT))
    if at and _length([start, cursor, look]) > room:
        cursor[0] = (f" step {view.cursor} ", Ink.BRIGHT)
    while look and _length([start, cursor, look]) > room:
        look.pop()
    if _length([start, cursor]) > room and cursor:
        start = []
    if alarms and (over := _length([cursor]) - room) > 0:
        text, ink = cursor[1]
        cursor[1] = (f"{text[: -over - 2]}{ellipsis} ", ink)
    return [*start, *cursor, *look]


def _legend(data: ChartData, view: ChartView, room: int, ellipsis: str) -> list[Text]:
    """The other run of the dashed line, with its newest value or the one at the crosshair."""
    line = next((line for line in data.lines if line.overlay), None)
    if line is None:
        return []
    step = int(line.steps[-1])
    if view.cursor is not None:
        ruler = line.ruler if line.ruler is not None and line.ruler.unit == view.ruler.unit else view.ruler
        step = ruler.first_step(view.ruler.place(view.cursor))
    value = line.points.at(step)
    words = f" {number(value)}" if value is not None else " –"
    label = len(f" {view.label(view.ruler.place(step))} ")  # of the upper end of the axis, on the right
    name = line.overlay
    spare = room - label - len(words) - 5
    if spare < 4:
        return []
    return [(f" -- {cut(name, spare, ellipsis)}{words} ", line.ink)]


def _title(data: ChartData, view: ChartView, width: int, ellipsis: str) -> list[Text]:
    """Title and the values at the newest step or at the cursor; what has no room is left out, numbers whole."""
    groups: list[list[Text]] = []
    extras: list[tuple[int, Text]] = []
    for line in data.lines:
        if len(line.steps) == 0:
            if line.short and not line.reference:
                groups.append([(f" {line.short}", Ink.TITLE)])
            continue
        step = view.cursor if view.cursor is not None else int(line.steps[-1])
        value = line.points.at(step)
        if line.overlay:
            continue
        if line.reference:
            # Beside a value of the past, for the difference; the newest of two runs are of different steps.
            if view.cursor is not None and value is not None:
                extras.append((len(groups), (f" {line.short or 'ref'} {number(value)}", Ink.DIM)))
                groups.append([])
            continue
        groups.append([(f" {line.short}", line.ink)] if line.short else [])
        groups[-1] += _value(line, value)
        if view.weight > 0 and not line.secondary:
            mean = line.points.smoothed(view.weight).at(step)
            if mean is not None and math.isfinite(mean):
                extras.append((len(groups) - 1, (f" ~{number(mean)}", line.ink)))
    room = width - 4 - _length(groups)
    for at, part in extras:
        # Only where the title has its room all the same.
        if len(data.short or data.title) + 1 + len(part[0]) <= room:
            groups[at].append(part)
            room -= len(part[0])
    while _length(groups) > width - 3 and len(groups) > 1:
        dropped = groups.pop()  # a value is there whole or not at all; the name of its line where that has room
        if len(dropped) > 1 and _length([*groups, dropped[:1]]) <= width - 3:
            groups.append(dropped[:1])
            break
    values = [part for group in groups for part in group]
    title = _named(data, room, ellipsis)
    head: list[Text] = [(f" {title}", Ink.TITLE)] if title else []
    return [*head, *values, (" ", Ink.FRAME)]


def _length(groups: list[list[Text]]) -> int:
    return sum(len(text) for group in groups for text, _ in group)


def _named(data: ChartData, room: int, ellipsis: str) -> str:
    """The title in at most `room` cells: with fewer words before one is cut."""
    title = data.title if len(data.title) <= room or not data.short else data.short
    while len(title) > room and " " in title:
        title = title.rpartition(" ")[0]
    return cut(title, room, ellipsis) if room > 1 else ""


def _value(line: Line, value: float | None) -> list[Text]:
    if value is None:
        return [(" –", Ink.DIM)]
    verdict = health(line.metric, value) if math.isfinite(value) else "alarm"
    return [(f" {number(value)}{'!' if verdict == 'alarm' else ''}", HEALTH_INK[verdict])]
