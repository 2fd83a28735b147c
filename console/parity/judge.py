"""The verdict: every metric of a run against its band, and all of them together. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from console.parity import band as bands
from console.parity.band import Band, Floats
from console.parity.rules import Rule, Rules
from console.parity.runs import Run

Verdict = Literal["pass", "fail", "not enough data"]
Steps = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """Curves for a figure, at the last step of each window, in units: the run's mean, the centre, the band's edges."""

    steps: Steps
    run: Floats
    centre: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Excursion:
    """Steps outside the band in a row, long enough to count. `last` is None while the run has not come back."""

    first: int
    last: int | None
    above: bool


@dataclass(frozen=True)
class Judged:
    """The verdict on one metric.

    `first`: first step out of the band for good; `back`: the step at which the run had returned to the band after its
    last excursion. At `worst`, the step with the largest distance among those that were judged: `value` and `expected`
    (window means in units), `distance` in standard deviations of a healthy run around the reference, signed. `reason`
    is a clause for "not enough data" and for an absolute limit.
    """

    metric: str
    verdict: Verdict
    steps: int
    first: int | None = None
    back: int | None = None
    worst: int | None = None
    value: float = math.nan
    expected: float = math.nan
    distance: float = math.nan
    last: float = math.nan
    """Distance at the last step, in the same standard deviations."""
    reason: str = ""
    excursions: tuple[Excursion, ...] = ()
    band: Band | None = None
    curve: Curve | None = None


@dataclass(frozen=True)
class Comparison:
    """All metrics. `start` and `until` are the range asked for; `measured`: the spread over seeds was measured."""

    run: Run
    references: tuple[Run, ...]
    rules: Rules
    metrics: tuple[Judged, ...]
    start: int | None = None
    until: int | None = None

    @property
    def verdict(self) -> Verdict:
        """Fail if any metric fails, else not enough data if one has not enough."""
        verdicts = {judged.verdict for judged in self.metrics}
        if "fail" in verdicts:
            return "fail"
        return "not enough data" if "not enough data" in verdicts or not verdicts else "pass"

    @property
    def measured(self) -> bool:
        return len(self.references) > 1

    @property
    def home(self) -> int | None:
        """The first step from which every metric stayed in the band to the end; None unless one was out before."""
        if self.verdict != "pass":
            return None
        return max((judged.back for judged in self.metrics if judged.back is not None), default=None)


def compare(
    references: Sequence[Run], run: Run, rules: Rules, *, start: int | None = None, until: int | None = None
) -> Comparison:
    """Judge `run` against one or several references, over steps `start` to `until` (both inclusive).

    With `start` the run is judged as after a switch at that step: it has time to return to the band, and needs
    `rules.hold` steps in it up to the end. Never raises for runs that are too short or lack a metric: that is a
    verdict.
    """
    judged = tuple(_judge(name, rule, rules, references, run, start, until) for name, rule in rules.metrics.items())
    return Comparison(run, tuple(references), rules, judged, start, until)


def fewest(rules: Rules, *, settles: bool) -> int:
    """Steps that a verdict takes at least; `settles`: those after a switch, with `rules.hold` steps in the band."""
    return max(2 * rules.window, rules.hold) if settles else 2 * rules.window


def _judge(
    name: str, rule: Rule, rules: Rules, references: Sequence[Run], run: Run, start: int | None, until: int | None
) -> Judged:
    for one in (*references, run):
        if name not in one.series:
            return Judged(name, "not enough data", 0, reason=f"run {one.id} has no {name}")
    steps, values, others = _common(name, references, run, start, until)
    needed = fewest(rules, settles=start is not None)
    if len(steps) < needed:
        return Judged(name, "not enough data", len(steps), reason=f"{len(steps)} common steps, {needed} are needed")
    for one, known in zip(references, np.isfinite(others).sum(axis=1), strict=True):
        if known < needed:
            reason = f"run {one.id} has {known} steps with a number, {needed} are needed"
            return Judged(name, "not enough data", len(steps), reason=reason)
    limits = bands.band(bands.scaled(others, rule), rule, rules)
    means = bands.window_means(bands.scaled(values, rule), rules.window)
    # What is mostly not a number is as far away as can be, on the side that counts.
    gone = np.inf if rule.side != "low" else -np.inf
    away = np.where(np.isnan(means), gone, means) - limits.centre
    side = _side(away, limits.half, rule)
    at_limit = _beyond_limit(bands.window_means(values, rules.window), rule)
    side = np.where(at_limit & (side == 0), -1 if rule.side == "low" else 1, side)
    excursions, pending = _excursions(side, steps, values, limits, rule, rules)
    ends = steps[rules.window - 1 :]
    curve = _curve(ends, means, limits, rule)
    verdict, reason = _verdict(excursions, pending, ends, rules, settles=start is not None)
    back = _after(ends, excursions[-1].last) if excursions else None
    counted = ends >= back if start is not None and back is not None else np.ones(len(ends), dtype=bool)
    distances = away / limits.spread
    sizes = {"both": np.abs(distances), "high": distances, "low": -distances}[rule.side]
    worst = int(np.where(counted & ~np.isnan(sizes), sizes, -np.inf).argmax())
    if not reason and verdict == "fail" and at_limit[worst]:
        reason = f"beyond the limit of {rule.limit:g}"
    return Judged(
        name, verdict, len(steps), excursions[-1 if start is not None else 0].first if excursions else None, back,
        int(ends[worst]), float(curve.run[worst]), float(curve.centre[worst]), float(distances[worst]),
        float(distances[-1]), reason, tuple(excursions), limits, curve,
    )  # fmt: skip


def _common(
    name: str, references: Sequence[Run], run: Run, start: int | None, until: int | None
) -> tuple[Steps, Floats, Floats]:
    """Steps that all runs have within the range; the run's values there (n), the references' (k, n)."""
    steps = run.series[name].steps
    for one in references:
        steps = np.intersect1d(steps, one.series[name].steps, assume_unique=True)
    if start is not None:
        steps = steps[steps >= start]
    if until is not None:
        steps = steps[steps <= until]
    return steps, run.series[name].at(steps), np.stack([one.series[name].at(steps) for one in references])


def _side(away: Floats, half: float, rule: Rule) -> npt.NDArray[np.int8]:
    """+1 above the band, -1 below it; 0 inside, on a side that does not count, where the reference is not known."""
    side = np.where(away > half, 1, np.where(away < -half, -1, 0))
    if rule.side == "high":
        side = np.maximum(side, 0)
    elif rule.side == "low":
        side = np.minimum(side, 0)
    return side.astype(np.int8)


def _beyond_limit(means: Floats, rule: Rule) -> npt.NDArray[np.bool_]:
    if rule.limit is None:
        return np.zeros(len(means), dtype=bool)
    beyond: npt.NDArray[np.bool_] = means < rule.limit if rule.side == "low" else means > rule.limit
    return beyond


def _excursions(
    side: npt.NDArray[np.int8], steps: Steps, values: Floats, limits: Band, rule: Rule, rules: Rules
) -> tuple[list[Excursion], int | None]:
    """Stretches on one side that last `window` steps, and the first step of a shorter one that the end cuts off."""
    found: list[Excursion] = []
    pending = None
    edges = np.flatnonzero(np.diff(side, prepend=0, append=0))
    for low, high in pairwise(edges):
        if side[low] == 0:
            continue
        first = _first(int(low), int(side[low]), steps, values, limits, rule, rules)
        ended = high < len(side)
        if high - low >= rules.window:
            found.append(Excursion(first, int(steps[high + rules.window - 2]) if ended else None, bool(side[low] > 0)))
        elif not ended:
            pending = first
    return found, pending


def _first(position: int, side: int, steps: Steps, values: Floats, limits: Band, rule: Rule, rules: Rules) -> int:
    """First step of an excursion: from the window's last step back, over single steps outside the band."""
    end = position + rules.window - 1
    own = bands.scaled(values[position : end + 1], rule) - limits.centre[position]
    outside = (own * side > limits.half) | ~np.isfinite(own)
    back = 0
    while back < rules.window - 1 and outside[-2 - back]:
        back += 1
    return int(steps[end - back])


def _verdict(
    excursions: list[Excursion], pending: int | None, ends: Steps, rules: Rules, *, settles: bool
) -> tuple[Verdict, str]:
    open_end = f"left the band at step {pending}, {rules.window} steps in a row are needed to say so"
    if not settles:
        if excursions:
            return "fail", ""
        return ("not enough data", open_end) if pending is not None else ("pass", "")
    if excursions and excursions[-1].last is None:
        return "fail", ""
    if pending is not None:
        return "not enough data", open_end
    if excursions and excursions[-1].last is not None:
        home = int((ends > excursions[-1].last).sum())
        if home < rules.hold:
            return "not enough data", f"home for {home} steps, {rules.hold} are needed"
    return "pass", ""


def _after(ends: Steps, last: int | None) -> int | None:
    if last is None:
        return None
    return int(ends[ends > last][0])


def _curve(ends: Steps, means: Floats, limits: Band, rule: Rule) -> Curve:
    edges = (limits.centre, limits.centre - limits.half, limits.centre + limits.half)
    centre, low, high = (bands.plain(values, rule) for values in edges)
    return Curve(ends, bands.plain(means, rule), centre, low, high)
