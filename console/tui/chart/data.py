"""The content of a chart: values only, made from the store by `console.tui.present.header`."""

from __future__ import annotations

from typing import Literal

import msgspec

from console.store.model import Mark
from console.store.series.clock import Ruler
from console.store.series.series import Points, Steps, Values
from console.tui.paint.theme import Ink

Freshness = Literal["live", "loading", "stale"]


class Line(msgspec.Struct, frozen=True, eq=False):
    """One series as of now (`SeriesStore.points`, or `Series.from_arrays(steps, values).points()` of anything else).

    `metric` names the catalogue entry whose limits colour the value; `short` stands before the value where the chart
    has more than one line. A `secondary` line has a y range of its own. A `reference` is drawn dim behind the others;
    one of another run has a `ruler` of its own, else it lies where this run has its steps. A reference with an
    `overlay` is the run of that name, watched beside this one: dashed, in its own ink, named at the lower edge.
    """

    points: Points
    ink: Ink = Ink.LINE
    metric: str = ""
    short: str = ""
    secondary: bool = False
    reference: bool = False
    ruler: Ruler | None = None
    overlay: str = ""

    @property
    def steps(self) -> Steps:
        return self.points.steps

    @property
    def values(self) -> Values:
        return self.points.values


class Band(msgspec.Struct, frozen=True, eq=False):
    """The range of other runs, drawn as a dim pattern behind everything else; steps as of `low` and `high`."""

    low: Points
    high: Points
    ruler: Ruler | None = None


class ChartData(msgspec.Struct, frozen=True, eq=False):
    """Everything of one chart that comes from the run. `limits` are y values with the ink of their line."""

    title: str
    short: str = ""
    label: str = ""
    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()
    limits: tuple[tuple[float, Ink], ...] = ()
    empty: str = "waiting for the first step"
    bands: tuple[Band, ...] = ()
    freshness: Freshness = "live"

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for two values that draw the same."""
        lines = tuple(
            (id(line.points.series), line.points.revision, line.ink, line.metric, line.short, line.ruler, line.overlay)
            for line in self.lines
        )
        bands = tuple((id(band.low.series), band.low.revision, band.high.revision) for band in self.bands)
        marks = (len(self.marks), self.marks[-1] if self.marks else None)
        return (self.title, self.short, self.label, lines, bands, marks, self.limits, self.empty, self.freshness)

    def extent(self) -> tuple[int, int] | None:
        """First and last step of all lines that are not references, None without any."""
        filled = [line for line in self.lines if len(line.steps) and not line.reference]
        if not filled:
            return None
        return min(int(line.steps[0]) for line in filled), max(int(line.steps[-1]) for line in filled)
