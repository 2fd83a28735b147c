"""What came of an alignment: the run's numbers in the steps before it and since. Pure.

The means are over trainer steps. The first steps after it still hold what was sampled before it, so SETTLE of them are
left out; how much of a change is learning is not distinguished here, as the measured effect of a fix does
(`driftline.frames.Effect`), which is shown beside it where the run reports one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from console.formatting import short
from driftline.text import plural

WINDOW: Final = 10
"""Steps to average over on either side."""
SETTLE: Final = 2
"""Steps after the last command that are left out."""
WATCHED: Final = (
    ("mismatch", "mismatch/abs_diff_mean"),
    ("clip fraction", "policy/clip_fraction"),
    ("reward", "reward/mean"),
)

Points = Sequence[tuple[int, float]]
"""(step, value), steps ascending."""


@dataclass(frozen=True)
class Change:
    """Means over `steps_before` steps up to the alignment and `steps_after` since; NaN where there is none."""

    title: str
    metric: str
    before: float
    after: float
    steps_before: int
    steps_after: int

    def __str__(self) -> str:
        """`mismatch .16 → .004`; what is not there yet is a dash."""
        return f"{self.title} {_number(self.before)} → {_number(self.after)}"


def _number(value: float) -> str:
    return short(value) if math.isfinite(value) else "–"


def changes(points: Mapping[str, Points], begun: int, ended: int | None, window: int = WINDOW) -> list[Change]:
    """How each watched metric has changed; those that the run does not report are left out.

    `begun`: the newest step when it was asked for; `ended`: the newest step when the last command was applied, None
    while one is under way.
    """
    found = []
    for title, metric in WATCHED:
        values = points.get(metric, ())
        before = [value for step, value in values if step <= begun][-window:]
        after = [] if ended is None else [value for step, value in values if step > ended + SETTLE][-window:]
        if before or after:
            found.append(Change(title, metric, _mean(before), _mean(after), len(before), len(after)))
    return found


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def sentence(found: Sequence[Change]) -> str:
    """`mismatch .16 → .004, reward .31 → .52 (means of 10 and 10 steps)`."""
    if not found:
        return "the run reports no mismatch, clip fraction or reward"
    before, after = max(one.steps_before for one in found), max(one.steps_after for one in found)
    return f"{', '.join(map(str, found))} (means of {before} and {plural(after, 'step')})"


def documents(found: Sequence[Change]) -> dict[str, Any]:
    """The same as plain values: by metric {`before`, `after`, `steps` {`before`, `after`}}."""
    return {
        one.metric: {
            "before": one.before,
            "after": one.after,
            "steps": {"before": one.steps_before, "after": one.steps_after},
        }
        for one in found
    }
