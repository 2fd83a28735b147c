"""What a chart is asked to show: values only, made from the store by `console.tui.present`."""

from __future__ import annotations

from dataclasses import dataclass

from console.store.model import Mark
from console.store.series import Steps, Values
from console.tui.theme import Ink


@dataclass(frozen=True, eq=False)
class Line:
    """One series. `revision` changes whenever the arrays do, so that a chart need not compare them.

    `metric` names the catalogue entry whose limits colour the value; `short` stands before the value where the chart
    has more than one line. A `secondary` line has a y range of its own, a `reference` is drawn dim behind the others.
    """

    steps: Steps
    values: Values
    revision: int
    ink: Ink = Ink.LINE
    metric: str = ""
    short: str = ""
    secondary: bool = False
    reference: bool = False


@dataclass(frozen=True, eq=False)
class ChartData:
    """Everything of one chart that comes from the run. `limits` are y values with the ink of their line."""

    title: str
    short: str = ""
    label: str = ""
    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()
    limits: tuple[tuple[float, Ink], ...] = ()
    empty: str = "waiting for the first step"

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for two values that draw the same."""
        revisions = tuple((line.revision, line.ink, line.metric, line.short) for line in self.lines)
        return (self.title, self.short, self.label, revisions, len(self.marks), self.limits, self.empty)

    def extent(self) -> tuple[int, int] | None:
        """First and last step of all lines that are not references, None without any."""
        filled = [line for line in self.lines if len(line.steps) and not line.reference]
        if not filled:
            return None
        return min(int(line.steps[0]) for line in filled), max(int(line.steps[-1]) for line in filled)
