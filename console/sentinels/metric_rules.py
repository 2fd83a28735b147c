"""Rules of one metric's values, judged step by step as its series grows: against a limit, or against its own past."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from console.sentinels.alarm import Transition
from console.sentinels.baseline import block, medians, past, step_sigma, usual, usuals
from console.sentinels.kinds import Baseline, Limit, Rise
from console.sentinels.votes import Judged, StepWatch, Vote, figure, newest_reported_step, title
from console.store.model import RunModel
from console.store.series.series import Points
from driftline.catalog.fixes import OFF
from driftline.catalog.metrics import resolve

Floats = npt.NDArray[np.float64]

LEAST_FACTOR: Final = 1.0 + 1e-9
"""No least factor: only the noise counts."""


class SeriesWatch(StepWatch):
    """One rule and its state over the steps of its metric."""

    def __init__(self, rule: Limit | Baseline) -> None:
        super().__init__(rule, resolve(rule.metric))
        self.rule = rule
        self._revision = 0
        self._points: Points | None = None
        """As of this update."""
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
        points = self._points = model.metrics.points(self.metric)
        newest = newest_reported_step(model)
        end = int(np.searchsorted(points.steps, newest, side="right"))
        start = self.first_new(points.steps, newest)
        transitions: list[Transition] = []
        for origin, first, last in self._baseline_parts(model, points, start, end) if start < end else ():
            if origin != self._origin:
                self._origin = origin
                self.rewound()
            transitions += self.judge(model, points.steps, first, last)
        self._points = None
        return transitions

    def rewound(self) -> None:
        """Make the baseline anew."""
        self._block = (-1, np.empty((3, 0)))

    def _baseline_parts(self, model: RunModel, points: Points, start: int, end: int) -> list[tuple[int, int, int]]:
        """The indices start to end, cut where a repair ends the baseline's past: (origin, first, last) of each part.

        A fix that is switched on makes the past that of another backend: entropy that comes down from where vLLM's
        defaults had driven it has not collapsed. One that is switched off leaves it, so that what breaks is seen.
        """
        if not isinstance(self.rule, Baseline) or self.rule.reference == "start":
            return [(0, start, end)]
        repairs = [mark.step for mark in model.marks if mark.kind == "fix" and mark.value != OFF]
        if not repairs:
            return [(0, start, end)]
        cuts = np.unique(np.searchsorted(points.steps, np.array(repairs, np.int64), side="right")).tolist()
        origin = max((cut for cut in cuts if cut <= start), default=0)
        inside = [cut for cut in cuts if start < cut < end]
        edges = [start, *inside, end]
        return list(zip([origin, *inside], edges[:-1], edges[1:], strict=True))

    def measure(self, model: RunModel, start: int, end: int) -> Judged:  # noqa: ARG002  the points are at hand
        """The steps with index start to end."""
        points, rule = self._points, self.rule
        assert points is not None, "an update is under way"
        values = running_median(np.asarray(points.values, np.float64), start, end, rule.span)
        if isinstance(rule, Limit):
            size = np.abs(values)
            beyond = ~np.isfinite(points.values[start:end])
            calm = ~beyond
            limit = np.full(len(values), np.nan)
            for bound, sign in ((rule.high, 1.0), (rule.low, -1.0)):
                if bound is not None:
                    easier = bound * rule.ease if sign > 0 else bound / rule.ease
                    out = sign * (size - bound) > 0
                    beyond, calm = beyond | out, calm & (sign * (size - easier) <= 0)
                    limit[out | np.isnan(limit)] = bound
            return Judged(points.steps[start:end], values, beyond, calm, limit, np.full(len(values), np.nan))
        centre, limit, easier_limit = self._baselines(rule, points, start, end)
        # Where there is no baseline, or no value, all comparisons are false.
        if rule.side == "high":
            beyond, calm = values > limit, values <= easier_limit
        else:
            beyond, calm = values < limit, values >= easier_limit
        return Judged(points.steps[start:end], values, beyond, calm, limit, centre)

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

    def excused(self, model: RunModel, vote: Vote) -> bool:
        """Whether what the rule has an exception for is so."""
        rule = self.rule
        points = self._points
        assert points is not None, "an update is under way"
        if any(_reported(model.metrics.points(name), vote.step) for name in rule.unless_reported):
            return True
        if isinstance(rule, Limit):
            return rule.z is not None and _within_noise(rule, rule.z, points, vote)
        if rule.unless is None:
            return False
        low, high = self._past(vote)
        first, last = points.steps[self._origin + low], points.steps[self._origin + high - 1]
        return rose(model.metrics.points(rule.unless.metric), rule.unless, int(first), int(last), vote.step)

    def _past(self, vote: Vote) -> tuple[int, int]:
        """The indices low to high, from the origin on, of the values that the step's baseline is made of."""
        rule, points = self.rule, self._points
        assert isinstance(rule, Baseline)
        assert points is not None, "an update is under way"
        at = int(np.searchsorted(points.steps, vote.step)) - self._origin
        return past(rule, at // block(rule))

    def raised_text(self, model: RunModel, vote: Vote, at: int) -> str:  # noqa: ARG002  it is as it was when it began
        """The value, and what it is beyond."""
        rule = self.rule
        name = f"{title(self.metric)} {figure(vote.value)}"
        if rule.span > 1:
            name = f"{title(self.metric)} {figure(vote.value)} (median of {rule.span} steps)"
        if np.isnan(vote.value):
            return f"{name}, not a number"
        if isinstance(rule, Limit):
            side = "above" if rule.high is not None and abs(vote.value) > rule.high else "below"
            return f"{name}, {side} its limit {figure(vote.limit)}"
        low, end = self._past(vote)
        past_steps = f"the {'last' if rule.reference == 'recent' else 'first'} {end - low} steps"
        if rule.reference == "recent" and rule.gap > rule.window // 2:
            past_steps = f"{end - low} steps until {rule.gap} steps before"
        side = "above" if rule.side == "high" else "below"
        return f"{name}, {side} {figure(vote.limit)}; the median of {past_steps} is {figure(vote.usual)}"

    def cleared_text(self, vote: Vote) -> str:
        """Where it is back, or has become the usual."""
        if isinstance(self.rule, Baseline) and self.began is not None:
            sign = 1.0 if self.rule.side == "high" else -1.0
            if sign * (vote.value - self.began.limit) > 0:
                return f"usual by now: {figure(vote.value)} at step {vote.step}"
        return f"back at {figure(vote.value)} at step {vote.step}"


def running_median(values: Floats, start: int, end: int, span: int) -> Floats:
    """The medians of the `span` values that end at each index start to end; NaN for a NaN and before there are `span`.

    Other NaN are left out. Shape (end - start,).
    """
    now = np.asarray(values[start:end], np.float64)
    if span == 1:
        return now
    low = max(start - span + 1, 0)
    if len(now) == 1 and end - low == span:
        # A live run comes step by step: without the machinery for many windows.
        there = sorted(value for value in values[low:end].tolist() if value == value)
        middle = len(there) // 2
        if np.isnan(now[0]):
            return now
        return np.array([there[middle] if len(there) % 2 else (there[middle - 1] + there[middle]) / 2])
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(values[low:end], np.float64), min(span, end - low))
    found = np.full(len(now), np.nan)
    if end - low >= span:
        whole = np.isnan(windows).any(axis=1)
        middles = medians(windows)
        for i in np.flatnonzero(whole):
            there = windows[i][~np.isnan(windows[i])]
            middles[i] = medians(there) if len(there) else np.nan
        found[len(now) - len(middles) :] = middles
    found[np.isnan(now)] = np.nan
    return found


def rose(points: Points, rise: Rise, first: int, last: int, step: int) -> bool:
    """Whether the newest values up to `step` are above those of the steps first to last (inclusive) by enough."""

    def between(low: int, high: int) -> Floats:
        part = slice(*np.searchsorted(points.steps, (low, high + 1)).tolist())
        values = np.asarray(points.values[part], np.float64)
        return np.asarray(values[np.isfinite(values)], np.float64)

    before, now = between(first, last), between(last + 1, step)[-rise.window :]
    if len(before) < rise.window or len(now) < rise.window:
        return False
    gained = float(medians(now) - medians(before))
    return gained >= max(rise.by, rise.z * step_sigma(before))


def _within_noise(rule: Limit, z: float, points: Points, vote: Vote) -> bool:
    """Whether the usual level of the steps before keeps the limit, and the value is no further from it than noise."""
    high = rule.high is not None and abs(vote.value) > rule.high
    noise = Baseline(metric=rule.metric, side="high" if high else "low", z=z, factor=LEAST_FACTOR)
    low, end = past(noise, int(np.searchsorted(points.steps, vote.step)) // block(noise))
    known = usual(noise, np.abs(np.asarray(points.values[low:end], np.float64)))
    if not np.isfinite(known.centre):
        return False
    size = abs(vote.value)
    if high:
        return known.centre <= vote.limit and size <= known.limit
    return known.centre >= vote.limit and size >= known.limit


def _reported(points: Points, step: int) -> bool:
    at = int(np.searchsorted(points.steps, step))
    return at < len(points) and bool(points.steps[at] == step and np.isfinite(points.values[at]))
