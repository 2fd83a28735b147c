"""Marks on the charts of metrics at the steps where alarms were raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from console.store.model import Mark
from console.tui.chart.data import ChartData

if TYPE_CHECKING:
    from console.tui.watch.guard import Guard


def alarmed(data: ChartData, guard: Guard | None) -> ChartData:
    """The chart with a mark at the step of each alarm of its metrics; call it with the lock of the run held."""
    if guard is None:
        return data
    alarms = guard.sentinels.alarms_on({line.metric for line in data.lines if not line.reference})
    # Before the others: a chart is drawn anew when the last of its marks is another one, or their number is.
    marks = tuple(Mark(alarm.step, alarm.level, alarm.rule) for alarm in alarms)
    return replace(data, marks=(*marks, *data.marks)) if marks else data
