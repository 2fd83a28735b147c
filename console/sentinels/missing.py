"""The rule for metrics that stop, have holes, or turn to NaN while the run goes on: what is missing is not healthy.

Every step that the run has reported is judged once `late` more were reported, all of them when it has ended. A step is
bad where the newest report of the metric is no finite number, or where its next report is overdue by its own rhythm:

    cadence = median distance of its last CADENCES finite values, counted in steps that the run has reported
    overdue = the newest one is `cadence` steps back (cadence 1), or 2 * cadence (a slower one)

so that a metric that comes with every tenth step is not missing in between, and one that comes more rarely from some
step on is missing until that has become usual.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from console.sentinels.alarm import Transition
from console.sentinels.kinds import Missing
from console.sentinels.votes import Judged, Steps, StepWatch, Vote, title
from console.status.link_health import over
from console.store.model import RunModel

CADENCES: Final = 20
"""Newest distances whose median is the usual one."""
_BACK: Final = 4 * CADENCES
"""Points before the new ones that are looked at for them."""
_NEVER: Final = -1

Ints = npt.NDArray[np.int64]


class MissingWatch(StepWatch):
    """One metric. With `nan_counts` false only its absence counts: another rule judges that it is no number."""

    def __init__(self, rule: Missing, metric: str, *, nan_counts: bool = True) -> None:
        super().__init__(rule, metric)
        self.rule = rule
        self._nan_counts = nan_counts
        self._known: tuple[int, int, bool] = (0, 0, False)
        self._steps: Steps = np.empty(0, np.int64)

    def update(self, model: RunModel) -> list[Transition]:
        """Judge the steps that are new and old enough; returns the transitions of the rule."""
        run_over = over(model.run)
        known = (model.metrics.revision(self.metric), model.metrics.clock.revision, run_over)
        if known == self._known or not known[0]:
            return []
        self._known = known
        ruler = model.metrics.clock.ruler("time")
        if ruler is None:
            return []
        self._steps = ruler.steps
        start = self.first_new(self._steps, int(self._steps[-1]))
        # Before its first report it is not missing: a metric may be of a feature that is not in use yet.
        begin = int(np.searchsorted(self._steps, model.metrics.points(self.metric).steps[0]))
        return self.judge(model, self._steps, max(start, begin), len(self._steps) - (0 if run_over else self.rule.late))

    def measure(self, model: RunModel, start: int, end: int) -> Judged:
        """The run's steps with index start to end."""
        points, steps = model.metrics.points(self.metric), self._steps
        first, stop = np.searchsorted(points.steps, (steps[start], steps[end - 1] + 1)).tolist()
        nothing = np.full(end - start, np.nan)
        if stop - first == end - start and np.isfinite(points.values[first:stop]).all():
            good = np.ones(end - start, bool)  # reported with every step, as most are
            seen = np.asarray(points.values[first:stop], np.float64)
            return Judged(steps[start:end], seen, ~good, good, nothing, nothing)
        low = max(first - _BACK, 0)
        values = points.values[low:stop]
        places = np.searchsorted(steps[:end], points.steps[low:stop])
        number = np.isfinite(values) if self._nan_counts else np.ones(len(values), bool)
        indices = np.arange(start, end)
        finite, rhythm = places[number], _cadences(places[number])
        newest = np.searchsorted(finite, indices, side="right") - 1
        age = np.where(newest >= 0, indices - finite[newest] if len(finite) else 0, _NEVER)
        cadence = rhythm[newest] if len(finite) else np.ones(len(indices))
        # Enough reports to know a rhythm by: those that are looked at, or all before them.
        enough = (newest + 1 >= self.rule.warmup) | (low > 0)
        overdue = (newest >= 0) & enough & (age >= np.where(cadence > 1, 2 * cadence, 1))
        report = np.searchsorted(places, indices, side="right") - 1
        wild = (report >= 0) & ~number[np.maximum(report, 0)] if len(number) else np.zeros(len(indices), bool)
        bad = overdue | wild
        here = (report >= 0) & (places[np.maximum(report, 0)] == indices)
        seen = np.where(here, values[np.maximum(report, 0)], np.nan)
        return Judged(steps[start:end], seen, bad, ~bad, nothing, nothing)

    def raised_text(self, model: RunModel, vote: Vote, at: int) -> str:
        """What is there in its place, and until when it was there."""
        points = model.metrics.points(self.metric)
        end = int(np.searchsorted(points.steps, vote.step, side="right"))
        finite = np.flatnonzero(np.isfinite(points.values[:end]))
        last = f"its last number is of step {points.steps[finite[-1]]}" if len(finite) else "it never had a number"
        if end and points.steps[end - 1] == vote.step and not np.isfinite(vote.value):
            return f"{title(self.metric)} is {vote.value:g}; {last}, the run is at step {at}"
        return f"{title(self.metric)} is missing; {last}, the run is at step {at}"

    def cleared_text(self, vote: Vote) -> str:
        """That it is there again."""
        return f"reported again, at step {vote.step}"


def _cadences(places: Ints) -> Ints:
    """The usual distance of reports as of each of them, at least 1; shape (n,) as `places`, which ascend."""
    gaps = np.diff(places)
    if not len(gaps) or (gaps == 1).all():
        return np.ones(len(places), np.int64)
    padded = np.concatenate([np.full(min(CADENCES, len(gaps)), gaps[0]), gaps])
    windows = np.lib.stride_tricks.sliding_window_view(padded, min(CADENCES, len(gaps)))
    found = np.sort(windows, axis=1)[:, windows.shape[1] // 2]
    return np.asarray(np.maximum(found[: len(places)], 1), np.int64)
