"""The 95 % interval of a change between two sides, against the trend, by whole steps or by prompt groups. Pure numpy.

The change is that of the level *at* the change: each side has its own log-linear trend over its steps
(`trainer.measure.level`), and the levels of both are compared midway between the last step before and the first step
after. What learning, or anything else that goes on evenly, moves from step to step is in the trend and not in the
change; so is what the change makes of the later steps through learning. Mismatch, clip fraction and KL drift alike in
real runs (docs/fixes-and-syncs.md has the figures), so that all three are treated alike.

- With MIN_STEPS on both sides the unit is the step: two trends, two variances, Student's t with Satterthwaite's
  degrees of freedom. Correlation of neighbouring steps widens the interval.
- Else the unit is the prompt group: one trend over both sides and one relative variance of steps, from the NEAREST
  steps of a side (FEWEST_STEPS at least, MIN_STEPS_TOGETHER on both), and the interval is never narrower than the
  scatter of the prompt groups makes it. Prompt groups alone know nothing of what a whole step shares.
- With less there is none, and a sentence says why.

The ratio has its interval on the logarithmic scale, from the same fit: it cannot be negative. The difference has it by
MOVER (Zou and Donner 2008) from the intervals of both levels, so that it does not go beyond what levels above zero
allow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from driftline.t_quantile import upper_quantile
from trainer.measure import level
from trainer.measure.cells import Array, Ratio, Side
from trainer.measure.level import Fit

MIN_STEPS: Final = 10
"""Steps a side from which on the step is the unit."""
FEWEST_STEPS: Final = 3
"""Steps a side below which there is no interval: one step of a recorded run may differ by what all of it shares."""
MIN_STEPS_TOGETHER: Final = 9
"""Steps on both sides together below which there is no interval: six degrees of freedom are left beside the levels and
the trend."""
NEAREST: Final = 12
"""Steps of a side that one trend over both sides takes: over more a recorded run is not straight enough."""
MIN_GROUPS: Final = 10
"""Prompt groups a side below which there is no interval: their scatter is not known."""

Unit = Literal["", "step", "prompt group"]
NAN: Final = float("nan")
_APART: Final = 2.0
"""Ratio of variances, with the scatter of each step itself and with one scatter for all, from which on they differ: for
equal scatter that is by chance in one of a hundred comparisons of 8 and 8 steps."""
ALIKE: Final = 0.5
"""Correlation of neighbouring steps from which on an interval says that it holds less often than in 95 %."""
_EXACT: Final = 1e-6
"""Half the width of a ratio's interval, as a share, below which both levels are exact."""
_FAR: Final = 2.0
"""Times the largest value of a side's steps that its level may be."""
_MANY: Final = 1e6
"""Degrees of freedom that are as good as infinitely many."""


@dataclass(frozen=True)
class Comparison:
    """`change` of the level and `ratio` after / before, at the change, each with its 95 % interval; NaN: not known.

    `unit`: what counts as independent ("" without an interval), `units_before` and `units_after` how many of it;
    `note`: why there is no interval, or no ratio, or why it may be too narrow, in a sentence.
    """

    change: float = NAN
    low: float = NAN
    high: float = NAN
    ratio: float = NAN
    ratio_low: float = NAN
    ratio_high: float = NAN
    unit: Unit = ""
    units_before: int = 0
    units_after: int = 0
    note: str = ""


@dataclass(frozen=True)
class _Part:
    """One side for one metric, where there is something to divide by: by step, and by prompt group."""

    steps: Array
    over: Array
    under: Array
    group_steps: Array
    group_over: Array
    group_under: Array

    def within(self, first: float, last: float) -> _Part:
        """Its steps from `first` to `last`."""
        step, group = _between(self.steps, first, last), _between(self.group_steps, first, last)
        return _Part(
            self.steps[step], self.over[step], self.under[step],
            self.group_steps[group], self.group_over[group], self.group_under[group],
        )  # fmt: skip

    @property
    def zero(self) -> bool:
        return not self.over.any()

    def most(self, ratio: Ratio) -> float:
        """The largest level that is thought possible: _FAR times what any step has shown, and what the metric can be.

        It is met only by levels of a few values among zeros, whose logarithm has no useful limit.
        """
        return min(_FAR * float((self.over / self.under).max()), ratio.most)


@dataclass(frozen=True)
class _Level:
    """The logarithm of one side's level (-inf for exactly 0) and its variance."""

    log: float
    variance: float


_ZERO: Final = _Level(-math.inf, 0.0)


@dataclass(frozen=True)
class _Levels:
    """Both levels, whose errors are taken as independent, the degrees of freedom of their difference, and the
    correlation of neighbouring steps that is in the variances."""

    before: _Level
    after: _Level
    freedom: float
    correlation: float = 0.0

    @property
    def variance(self) -> float:
        """Of the difference of the logarithms."""
        return self.before.variance + self.after.variance

    @property
    def t(self) -> float:
        """Student's quantile of a two-sided interval of 95 %."""
        # Rounded down, which widens the interval by less than a percent, so that quantiles are found in the cache.
        return upper_quantile(0.025, max(math.floor(4 * min(self.freedom, _MANY)) / 4, 1.0))

    @property
    def half(self) -> float:
        """Half the width of the interval of the ratio's logarithm."""
        return self.t * math.sqrt(self.variance)


def compare(before: Side, after: Side, ratio: Ratio) -> Comparison:
    """The change of one metric between two sides."""
    was, now = _part(before, ratio), _part(after, ratio)
    if not (len(was.steps) and len(now.steps)):
        return Comparison()
    if min(len(was.steps), len(now.steps)) >= MIN_STEPS:
        unit: Unit = "step"
        units = len(was.steps), len(now.steps)
    else:
        unit = "prompt group"
        was = was.within(was.steps[-NEAREST:][0], math.inf)
        now = now.within(-math.inf, now.steps[:NEAREST][-1])
        units = len(was.group_under), len(now.group_under)
        steps = len(was.steps), len(now.steps)
        if min(units) < MIN_GROUPS or min(steps) < FEWEST_STEPS or sum(steps) < MIN_STEPS_TOGETHER:
            return Comparison(note=_too_few(units, steps))
    if was.zero and now.zero:
        return Comparison(change=0.0, note="exactly 0 on both sides")
    levels = _by_step(was, now) if unit == "step" else _by_group(was, now)
    return _comparison(levels, (was.most(ratio), now.most(ratio)), unit, units)


def _too_few(groups: tuple[int, int], steps: tuple[int, int]) -> str:
    return (
        f"too few to say: {groups[0]} and {groups[1]} prompt groups in {steps[0]} and {steps[1]} steps; "
        f"an interval needs {MIN_GROUPS} prompt groups and {FEWEST_STEPS} steps a side, "
        f"{MIN_STEPS_TOGETHER} steps together"
    )


def _alike(levels: _Levels) -> str:
    # Without a scatter there is nothing but rounding to be alike.
    if levels.correlation < ALIKE or levels.half < _EXACT:
        return ""
    return (
        f"neighbouring steps are alike (correlation {levels.correlation:.1f}): an interval of these may be too narrow"
    )


def _part(side: Side, ratio: Ratio) -> _Part:
    step, group = side.by_step[:, ratio.under] > 0, side.by_group[:, ratio.under] > 0
    return _Part(
        steps=side.steps[step].astype(np.float64),
        over=side.by_step[step, ratio.over],
        under=side.by_step[step, ratio.under],
        group_steps=side.group_steps[group].astype(np.float64),
        group_over=side.by_group[group, ratio.over],
        group_under=side.by_group[group, ratio.under],
    )


def _by_step(before: _Part, after: _Part) -> _Levels:
    """A trend and a variance for each side."""
    at = (before.steps[-1] + after.steps[0]) / 2
    fits = [None if part.zero else _line(part, at) for part in (before, after)]
    known = [one for one in fits if one is not None]
    correlation = level.correlation(known, [np.zeros(len(one.steps), np.int64) for one in known])
    levels, freedoms = [], []
    for one in fits:
        if one is None:
            levels.append(_ZERO)
            freedoms.append(math.inf)
            continue
        found = level.variance(one, correlation)
        levels.append(_Level(float(one.beta[0]), float(found.beta[0, 0])))
        freedoms.append(found.freedom)
    return _Levels(levels[0], levels[1], _satterthwaite([one.variance for one in levels], freedoms), correlation)


def _line(part: _Part, at: float) -> Fit | None:
    values, one = part.over / part.under, np.ones((len(part.steps), 1))
    line = level.fit(values, part.under, part.steps, one, at)
    # Zeros at one end have no log-linear trend: the level of all steps is what can be said.
    return line if line is not None else level.fit(values, part.under, part.steps, one, None)


def _by_group(before: _Part, after: _Part) -> _Levels:
    """One trend and one variance of steps for both sides, or the scatter of the prompt groups: the wider of the two."""
    by_step = _together(before, after)
    scatters = [(0.0, math.inf) if part.zero else _scatter(part) for part in (before, after)]
    levels = [
        _Level(one.log, scatter) for one, (scatter, _) in zip((by_step.before, by_step.after), scatters, strict=True)
    ]
    freedom = _satterthwaite([scatter for scatter, _ in scatters], [freedom for _, freedom in scatters])
    return max(by_step, _Levels(levels[0], levels[1], freedom), key=lambda one: one.half)


def _together(before: _Part, after: _Part) -> _Levels:
    used = [part for part in (before, after) if not part.zero]
    steps, over, under = (np.concatenate([getattr(part, name) for part in used]) for name in ("steps", "over", "under"))
    index = np.repeat(np.arange(len(used)), [len(part.steps) for part in used])
    own = (index[:, None] == np.arange(len(used))).astype(np.float64)
    fitted = level.fit(over / under, under, steps, own, (before.steps[-1] + after.steps[0]) / 2)
    if fitted is None:
        fitted = level.fit(over / under, under, steps, own, None)
    if fitted is None:
        raise AssertionError("levels without a trend have no fit")
    correlation = level.correlation([fitted], [index])
    found = level.variance(fitted, correlation)
    own_variances = np.diag(found.beta)[: len(used)]
    if len(used) == 2 and own_variances.any():
        # Both levels share the error of the trend: it counts once, in the variance of their difference. Where the sides
        # scatter clearly differently, the scatter of each step itself counts.
        difference = _difference(found.beta)
        apart = _difference(level.robust(fitted)) / _difference(level.variance(fitted, 0.0).beta)
        own_variances = own_variances * (difference * (apart if apart > _APART else 1.0) / own_variances.sum())
    known = iter([_Level(float(log), float(one)) for log, one in zip(fitted.beta, own_variances, strict=False)])
    levels = [_ZERO if part.zero else next(known) for part in (before, after)]
    return _Levels(levels[0], levels[1], found.freedom, correlation)


def _difference(covariance: Array) -> float:
    """The variance of the difference of the first two coefficients."""
    return float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])


def _satterthwaite(variances: list[float], freedoms: list[float]) -> float:
    terms = sum(one**2 / freedom for one, freedom in zip(variances, freedoms, strict=True))
    return sum(variances) ** 2 / terms if terms > 0 else math.inf


def _between(steps: Array, first: float, last: float) -> npt.NDArray[np.bool_]:
    return (steps >= first) & (steps <= last)


def _scatter(part: _Part) -> tuple[float, float]:
    """The variance of the logarithm of a side's mean over its prompt groups (linearised, Cochran 1977, chapter 6), and
    its degrees of freedom."""
    mean = part.group_over.sum() / part.group_under.sum()
    squares = ((part.group_over - mean * part.group_under) / part.group_over.sum()) ** 2
    count = len(squares)
    return count / (count - 1) * float(squares.sum()), min(level.tail_freedom(squares), count - 1.0)


def _comparison(levels: _Levels, most: tuple[float, float], unit: Unit, units: tuple[int, int]) -> Comparison:
    (was, was_low, was_high), (now, now_low, now_high) = (
        (math.exp(one.log), math.exp(one.log - half), max(math.exp(one.log), min(math.exp(one.log + half), top)))
        for one, half, top in (
            (one, levels.t * math.sqrt(one.variance), top)
            for one, top in zip((levels.before, levels.after), most, strict=True)
        )
    )
    found = Comparison(
        change=now - was,
        low=now - was - math.hypot(now - now_low, was_high - was),
        high=now - was + math.hypot(now_high - now, was - was_low),
        unit=unit,
        units_before=units[0],
        units_after=units[1],
        note=_alike(levels),
    )
    if was == 0.0:
        return replace(found, note="exactly 0 before: there is no ratio")
    if now == 0.0:
        return replace(found, ratio=0.0, note="exactly 0 after: the ratio has no interval")
    log, half = levels.after.log - levels.before.log, levels.half
    top = max(most[1], now) / was_low
    return replace(
        found, ratio=math.exp(log), ratio_low=math.exp(log - half), ratio_high=min(math.exp(log + half), top)
    )
