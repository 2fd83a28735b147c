"""Rules of one metric, judged step by step as its series grows; an update without new values costs a comparison."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from console.sentinels.alarm import Transition
from console.sentinels.baseline import block, usuals
from console.sentinels.rules import Baseline, Limit, Rise
from console.store.model import RunModel
from console.store.series.series import Points
from driftline.catalog.fixes import OFF
from driftline.catalog.metrics import BY_NAME, resolve

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

Vote = tuple[bool, int, float, float, float]
"""Of one step: whether it is beyond, step, value, limit, usual."""

CHUNK: Final = 2_000
"""Steps that are judged together, so that a long history takes little memory."""
NEAR: Final = 3
"""Largest number of steps from a mark (a fix, a sync) to an alarm whose text names it."""


class _Judged(msgspec.Struct, frozen=True):
    """Some steps in a row, each of shape (n,): beyond the limit, calm again, the limit, and what is usual (or NaN)."""

    beyond: Bools
    calm: Bools
    limit: Floats
    usual: Floats


class SeriesWatch:
    """One rule and its state over the steps of its metric."""

    def __init__(self, rule: Limit | Baseline) -> None:
        self.rule = rule
        self.metric = resolve(rule.metric)
        self._revision = 0
        self._last: int | None = None
        """The newest step that was judged."""
        self._votes: deque[Vote] = deque(maxlen=rule.votes)
        """Of the newest steps."""
        self._raised = False
        self._calm = 0
        self._origin = 0
        """Index in the series at which the baseline's past begins: behind the last repair of the backend."""
        self._block: tuple[int, Floats] = (-1, np.empty((3, 0)))
        """The last block that was judged, counted from the origin, and its baseline."""

    def update(self, model: RunModel) -> list[Transition]:
        """Judge the new steps; returns the transitions of the rule."""
        revision = model.metrics.revision(self.metric)
        if revision == self._revision:
            return []
        self._revision = revision
        points = model.metrics.points(self.metric)
        newest = _newest_reported_step(model)
        end = int(np.searchsorted(points.steps, newest, side="right"))
        if self._last is not None and newest < self._last:
            self._rewind(newest)
        start = 0 if self._last is None else int(np.searchsorted(points.steps, self._last, side="right"))
        if start >= end:
            return []
        self._last = int(points.steps[end - 1])
        transitions: list[Transition] = []
        for origin, first, last in self._baseline_parts(model, points, start, end):
            if origin != self._origin:
                self._origin, self._block = origin, (-1, np.empty((3, 0)))
            for low in range(first, last, CHUNK):
                transitions += self._judge(model, points, low, min(low + CHUNK, last))
        return transitions

    def _baseline_parts(self, model: RunModel, points: Points, start: int, end: int) -> list[tuple[int, int, int]]:
        """The indices start to end, cut where a repair ends the baseline's past: (origin, first, last) of each part.

        A fix that is switched on makes the past that of another backend: entropy that comes down from where vLLM's
        defaults had driven it has not collapsed. One that is switched off leaves it, so that what breaks is seen.
        """
        if not isinstance(self.rule, Baseline) or self.rule.reference == "start":
            return [(0, start, end)]
        repairs = [mark.step for mark in model.marks if mark.kind == "fix" and mark.value != OFF]
        cuts = np.unique(np.searchsorted(points.steps, np.array(repairs, np.int64), side="right")).tolist()
        origin = max((cut for cut in cuts if cut <= start), default=0)
        inside = [cut for cut in cuts if start < cut < end]
        edges = [start, *inside, end]
        return list(zip([origin, *inside], edges[:-1], edges[1:], strict=True))

    def _rewind(self, newest: int) -> None:
        # The run went on from a checkpoint and reports its steps again, from after `newest` on.
        self._last = newest - 1
        self._votes.clear()
        self._calm = 0
        self._block = (-1, np.empty((3, 0)))

    def _judge(self, model: RunModel, points: Points, start: int, end: int) -> list[Transition]:
        judged = self._measure(points, start, end)
        beyond = np.flatnonzero(judged.beyond)
        transitions: list[Transition] = []
        rule = self.rule
        i, n = 0, end - start
        while i < n:
            if self._raised:
                i = self._calmed(judged.calm, i)
                if i < n:
                    self._raised = False
                    transitions.append(self._transition(model, self._vote(points, judged, start, i), raised=False))
                i += 1
                continue
            if not any(vote[0] for vote in self._votes):
                # Only the next step beyond the limit matters: a healthy history costs no loop.
                self._votes.clear()
                following = int(np.searchsorted(beyond, i))
                if following == len(beyond):
                    break
                i = int(beyond[following])
            vote = self._vote(points, judged, start, i)
            self._votes.append(vote)
            i += 1
            broken = [one for one in self._votes if one[0]]
            if len(broken) >= rule.hold and not self._excused(model, vote[1]):
                self._raised, self._calm = True, 0
                self._votes.clear()
                transitions.append(self._transition(model, broken[0], raised=True))
        return transitions

    def _calmed(self, calm: Bools, i: int) -> int:
        """The index from `i` on at which enough steps in a row have been calm; len(calm) if there is none yet."""
        calm, need = calm[i:], self.rule.clear - self._calm
        wild = np.flatnonzero(~calm)
        if (wild[0] if len(wild) else len(calm)) >= need:
            self._calm = 0
            return i + need - 1
        if not len(wild):
            self._calm += len(calm)
            return i + len(calm)
        stretches = np.diff(wild, append=len(calm)) - 1
        long = np.flatnonzero(stretches >= self.rule.clear)
        if len(long):
            self._calm = 0
            return i + int(wild[long[0]]) + self.rule.clear
        self._calm = int(stretches[-1])
        return i + len(calm)

    def _vote(self, points: Points, judged: _Judged, start: int, i: int) -> Vote:
        step, value = int(points.steps[start + i]), float(points.values[start + i])
        return bool(judged.beyond[i]), step, value, float(judged.limit[i]), float(judged.usual[i])

    def _measure(self, points: Points, start: int, end: int) -> _Judged:
        rule, values = self.rule, points.values[start:end]
        wild = ~np.isfinite(values)
        if isinstance(rule, Limit):
            size, bound = np.abs(values), rule.bound
            if rule.above is not None:
                beyond, calm = size > bound, size <= bound * rule.ease
            else:
                beyond, calm = size < bound, size >= bound / rule.ease
            full = np.full(len(values), bound)
            return _Judged(beyond | wild, calm & ~wild, full, np.full(len(values), np.nan))
        centre, limit, easier = self._baselines(rule, points, start, end)
        if rule.side == "high":
            beyond, calm = values > limit, values <= easier
        else:
            beyond, calm = values < limit, values >= easier
        return _Judged((beyond | wild) & ~np.isnan(limit), calm & ~wild, limit, centre)

    def _baselines(self, rule: Baseline, points: Points, start: int, end: int) -> Floats:
        size = block(rule)
        start, end = start - self._origin, end - self._origin
        first, last = start // size, (end - 1) // size
        numbers = range(first + (first == self._block[0]), last + 1)
        values = np.asarray(points.values[self._origin :], np.float64)
        found = usuals(rule, values, numbers) if numbers else np.empty((3, 0))
        if first == self._block[0]:
            found = np.hstack([self._block[1], found])
        self._block = (last, found[:, -1:])
        return np.repeat(found, size, axis=1)[:, start - first * size : end - first * size]

    def _excused(self, model: RunModel, step: int) -> bool:
        rise = self.rule.unless if isinstance(self.rule, Baseline) else None
        return rise is not None and _rose(model, rise, step)

    def _transition(self, model: RunModel, vote: Vote, *, raised: bool) -> Transition:
        _, step, value, limit, usual_value = vote
        known = BY_NAME.get(self.metric)
        title = known.title if known is not None else self.metric
        text = f"{title} {_figure(value)}"
        if raised:
            text += f", {self._against(limit, usual_value)}{_near(model, step)}"
        else:
            text = f"back at {_figure(value)} at step {step}"
        return Transition(raised, self.metric, step, value, limit, text, _time(model, step))

    def _against(self, limit: float, centre: float) -> str:
        rule = self.rule
        if isinstance(rule, Limit):
            return f"{'above' if rule.above is not None else 'below'} its limit {_figure(limit)}"
        past = f"the last {rule.window} steps" if rule.reference == "recent" else f"the first {rule.window} steps"
        side = "above" if rule.side == "high" else "below"
        return f"{side} {_figure(limit)}; the median of {past} is {_figure(centre)}"


def _newest_reported_step(model: RunModel) -> int:
    """The newest step that the run has reported; after a return to a checkpoint less than the highest one before."""
    ruler = model.metrics.clock.ruler("time")
    return int(ruler.steps[-1]) if ruler is not None else model.metrics.last_step()


def _time(model: RunModel, step: int) -> float:
    """Unix time of a step, on the producer's clock; of the newest frame where that is not known."""
    clock = model.metrics.clock
    ruler = clock.ruler("time")
    return clock.start + ruler.place(step) if ruler is not None else model.last_time or 0.0


def _rose(model: RunModel, rise: Rise, step: int) -> bool:
    points = model.metrics.points(rise.metric)
    values = points.values[: int(np.searchsorted(points.steps, step, side="right"))]
    values = values[np.isfinite(values)]
    if len(values) < 2 * rise.window:
        return False
    return bool(np.median(values[-rise.window :]) - np.median(values[: rise.window]) >= rise.by)


def _near(model: RunModel, step: int) -> str:
    for mark in reversed(model.marks):
        if 0 <= step - mark.step <= NEAR:
            return f" ({mark.text} at step {mark.step})"
        if mark.step < step - NEAR:
            break
    return ""


def _figure(value: float) -> str:
    # Three digits: with two, 0.102 would read as the limit 0.1 that it is above.
    return f"{value:.3g}"
