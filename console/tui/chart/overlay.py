"""Another watched run drawn over the charts of the one on show: the same metrics, aligned by the unit of the x axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from console.store.series.clock import Unit
from console.tui.chart.data import ChartData, Line
from console.tui.paint.theme import Ink

if TYPE_CHECKING:
    from console.store.model import RunModel


def overlaid(data: ChartData, metric: str, other: RunModel, name: str, unit: Unit) -> ChartData:
    """The chart with the metric of another run; as it is where that run has no such metric or no such unit.

    Steps are told apart by their numbers, times by the seconds since each run's first step, tokens by how many each
    run had sampled. Call it with the locks of both runs held.
    """
    ruler = other.metrics.clock.ruler(unit)
    if ruler is None or not len(other.metrics.steps(metric)):
        return data
    line = Line(other.metrics.points(metric), Ink.OVERLAY, metric, reference=True, ruler=ruler, overlay=name)
    return replace(data, lines=(*data.lines, line))
