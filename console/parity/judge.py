"""The verdict: every metric of a run against its band, and all of them together. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from console.parity import band as bands
from console.parity.alignment import Aligned, align, reported
from console.parity.band import Band, Floats
from console.parity.bursts import Burst, bursts
from console.parity.change import SHARE, Change, Splits, change, limit, needed, splits
from console.parity.power import Power, held, power
from console.parity.rules import Rule, Rules, parts
from console.parity.runs import Run
from console.parity.windows import windows

Verdict = Literal["pass", "fail", "not enough data"]
Steps = npt.NDArray[np.int64]

TOO_LITTLE_POWER: Final = "too little power"


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
    """Steps outside the band in a row, long enough to count, or at another level than before (`console.parity.change`).

    `last` is None while the run has not come back.
    """

    first: int
    last: int | None
    above: bool
    change: bool = False


@dataclass(frozen=True)
class Judged:
    """The verdict on one metric, from `steps` steps between `since` and `until` (None: none).

    `first`: first step out of the band for good; `back`: the step at which the run had returned to the band after its
    last excursion. `distance` is what the verdict rests on: the level that the run held for `window` steps in a row, in
    half-widths of the band (beyond 1 is outside), signed, 0 between the centres within the lag, or the share of its
    limit of `change`, whichever is larger; `value` and `expected` are the means in units at `worst`, the step of the
    level. `reason` is a clause for "not enough data", for an absolute limit
    and for what is missing. `bursts`: stretches far outside that are too short for a verdict. `power`: what would have
    been seen.
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
    """Distance of the last window, in half-widths of the band."""
    reason: str = ""
    excursions: tuple[Excursion, ...] = ()
    band: Band | None = None
    curve: Curve | None = None
    since: int | None = None
    until: int | None = None
    bursts: tuple[Burst, ...] = ()
    power: Power | None = None
    change: Change | None = None


@dataclass(frozen=True)
class Comparison:
    """All metrics. `start` and `until` are the range asked for; `unrecorded`: metrics with a rule that no run has."""

    run: Run
    references: tuple[Run, ...]
    rules: Rules
    metrics: tuple[Judged, ...]
    start: int | None = None
    until: int | None = None
    unrecorded: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Fail if any metric fails, else not enough data if one has not enough or the backend was not compared."""
        verdicts = {judged.verdict for judged in self.metrics}
        if "fail" in verdicts:
            return "fail"
        return "not enough data" if "not enough data" in verdicts or self.lacking else "pass"

    @property
    def lacking(self) -> str:
        """A clause about what the comparison as a whole lacks, "" where nothing."""
        if not self.metrics:
            return "no run has a metric of the rules"
        backend = [name for name, rule in self.rules.metrics.items() if rule.backend]
        if backend and not any(judged.metric in backend for judged in self.metrics):
            return "mismatch: not recorded under any name that has a rule, so the backend was not compared"
        return ""

    @property
    def measured(self) -> bool:
        """Whether the spread over seeds was measured."""
        return len(self.references) > 1

    @property
    def apart(self) -> dict[str, float]:
        """Metrics whose references are further apart than the rules allow for, in units of the rule's spread."""
        return {
            judged.metric: judged.band.apart
            for judged in self.metrics
            if judged.band is not None and judged.band.apart > self.rules.reach
        }

    @property
    def home(self) -> int | None:
        """The first step from which every metric stayed in the band to the end; None unless one was out before."""
        if self.verdict != "pass":
            return None
        return max((judged.back for judged in self.metrics if judged.back is not None), default=None)


@np.errstate(over="ignore", invalid="ignore")  # what is too large for a square is infinite, and judged as that
def compare(
    references: Sequence[Run], run: Run, rules: Rules, *, start: int | None = None, until: int | None = None
) -> Comparison:
    """Judge `run` against one or several references, over steps `start` to `until` (both inclusive).

    With `start` the run is judged as after a switch at that step: it has time to return to the band, and needs
    `rules.hold` steps in it up to the end. Never raises for runs that are too short or lack a metric: that is a
    verdict. A metric that no run has is not judged; one with an optional rule only where every run has it.
    """
    steps = reported([*references, run], start, until)
    chosen, unrecorded = {}, []
    for name, rule in rules.metrics.items():
        have = [name in one.series for one in (*references, run)]
        if all(have) or (any(have) and not rule.optional):
            chosen[name] = rule
        elif not rule.optional:
            unrecorded.append(name)
    judged = tuple(
        _judge(name, rule, rules, references, run, steps, settles=start is not None, metrics=parts(chosen, rule))
        for name, rule in chosen.items()
    )
    return Comparison(run, tuple(references), rules, judged, start, until, tuple(unrecorded))


def fewest(rules: Rules, *, settles: bool) -> int:
    """Steps that a verdict takes at least; `settles`: those after a switch, with `rules.hold` steps in the band."""
    return max(2 * rules.window, rules.hold) if settles else 2 * rules.window


def _judge(
    name: str,
    rule: Rule,
    rules: Rules,
    references: Sequence[Run],
    run: Run,
    steps: Steps,
    *,
    settles: bool,
    metrics: int,
) -> Judged:
    for one in (*references, run):
        if name not in one.series:
            return Judged(name, "not enough data", 0, reason=f"run {one.id} has no {name}")
    found = align(name, references, run, steps, rules.window)
    known = np.flatnonzero(found.judged | found.gone)
    since, until = (int(found.steps[known[0]]), int(found.steps[known[-1]])) if len(known) else (None, None)
    needed = fewest(rules, settles=settles)
    reason = ""
    if len(found.steps) < needed:
        reason = f"{len(found.steps)} common steps, {needed} are needed"
    elif len(known) < needed or not np.isfinite(found.references).any(axis=1).all():
        reason = found.trouble or f"{len(known)} steps with a number in all runs, {needed} are needed"
    if reason:
        return Judged(name, "not enough data", len(known), reason=reason, since=since, until=until)
    missing = float(1 - (found.judged | found.gone).mean())
    limits = bands.band(bands.scaled(found.references, rule), rule, rules, metrics=metrics, missing=missing)
    judged = _against(name, rule, rules, found, limits, settles=settles, metrics=metrics)
    return replace(judged, steps=len(known), since=since, until=until)


def _against(
    name: str, rule: Rule, rules: Rules, found: Aligned, limits: Band, *, settles: bool, metrics: int
) -> Judged:
    """The verdict on aligned values against their band."""
    window, steps = rules.window, found.steps
    ends = steps[window - 1 :]
    values = bands.scaled(found.run, rule)
    means = bands.window_means(values, window, bands.FEWEST)
    mostly = np.zeros(len(means), dtype=bool)
    if found.gone.any():
        mostly = 2 * windows(found.gone, window).sum(axis=-1) >= window
        means = np.where(mostly, np.nan, means)
    above, below = _beyond(means, mostly, limits, rule)
    at_limit = _beyond_limit(bands.window_means(found.run, window, bands.FEWEST), rule)
    side = np.where(above > 0, 1, np.where(below > 0, -1, at_limit)).astype(np.int8)
    excursions, pending = _excursions(side, found, values, limits, rule, rules)
    back = _after(ends, excursions[-1].last) if excursions else None
    counted = ends >= back if settles and back is not None else np.ones(len(ends), dtype=bool)
    changed, changes = _change(found, rule, rules, since=back if settles else None, metrics=metrics)
    if changed is not None and changed.found and (not excursions or (settles and excursions[-1].last is not None)):
        excursions.append(Excursion(changed.step, None, changed.size > 0, change=True))
    verdict, reason = _verdict(excursions, pending, ends, rules, settles=settles)
    seen = power(above[counted], below[counted], changes, limits, rule, window)
    worst = _worst(above, below, counted, window)
    at, level, up = worst
    distance = _distance(level, up=up, half=limits.half)
    if changed is not None and abs(changed.of_limit) > abs(distance):
        distance = changed.of_limit
    shortly = tuple(
        one
        for one in bursts(values, found.run, limits, rule, steps, window)
        if not any(_touches(one, excursion) for excursion in excursions)
        and (not settles or back is None or one.first >= back)
    )
    if verdict == "fail" and not reason and at_limit.any() and abs(distance) <= 1:
        # Of the first window beyond it: that one has the verdict.
        at = int(np.flatnonzero(at_limit)[0])
        reason = f"beyond the limit of {_limits(rule)[0 if at_limit[at] > 0 else 1]:g}"
    if verdict == "pass" and found.trouble:
        verdict, reason = "not enough data", found.trouble
    elif verdict == "pass" and rule.effect is not None and seen.late.least(rule) > rule.effect:
        verdict, reason = "not enough data", TOO_LITTLE_POWER
    elif verdict == "fail" and not reason:
        away = np.flatnonzero(found.gone)
        reason = f"no number from step {steps[away[0]]} on" if len(away) else found.trouble
    curve = _curve(ends, means, limits, rule)
    final = _distance(float(max(above[-1], below[-1])), up=bool(above[-1] >= below[-1]), half=limits.half)
    return Judged(
        name, verdict, 0, excursions[-1 if settles else 0].first if excursions else None, back,
        int(ends[at]), float(curve.run[at]), float(curve.centre[at]), distance, final, reason, tuple(excursions),
        limits, curve, bursts=shortly, power=seen, change=changed,
    )  # fmt: skip


def _change(
    found: Aligned, rule: Rule, rules: Rules, *, since: int | None, metrics: int
) -> tuple[Change | None, tuple[float, float]]:
    """The change of the run against its references, None where it has too few steps for one; and what is needed, up
    and down, over the last half. `since`: the first step that counts."""
    none = math.inf, math.inf
    at = np.flatnonzero(found.judged & (found.steps >= (found.steps[0] if since is None else since)))
    known = [one for one in bands.scaled(found.references, rule) if np.isfinite(one).any()]
    if not len(at) or not known:
        return None, none
    # A hole of one reference must not show the level of another.
    centre = np.mean([np.interp(at, np.flatnonzero(own := np.isfinite(one)), one[own]) for one in known], axis=0)
    parts: Splits | None = splits(bands.scaled(found.run, rule)[at] - centre, rules.window)
    if parts is None:
        return None, none
    highest = limit((1 if rule.side == "both" else 2) * SHARE * rules.alpha / metrics)
    least = max(rule.tolerance, rules.reach * rule.spread * math.sqrt(1 + 1 / len(known)))
    up, down = needed(parts, least, highest)
    return (
        change(parts, found.steps[at], rule.side, least, highest),
        (math.inf if rule.side == "low" else up, math.inf if rule.side == "high" else down),
    )


def _beyond(means: Floats, gone: npt.NDArray[np.bool_], limits: Band, rule: Rule) -> tuple[Floats, Floats]:
    """How far each window's mean is above the band and below it, negative inside; -inf on a side that does not count.

    A window that is `gone` is as far away as can be, on the side that counts. One with too few numbers is as the one
    before it.
    """
    none = np.full(len(means), -np.inf)
    above = _forward(means - limits.high) if rule.side != "low" else none
    below = _forward(limits.low - means) if rule.side != "high" else none
    if rule.side == "low":
        return above, np.where(gone, np.inf, below)
    return np.where(gone, np.inf, above), np.where(gone, -np.inf, below)


def _forward(values: Floats) -> Floats:
    """Each NaN becomes the last number before it; -inf where there is none."""
    known = np.isfinite(values)
    if known.all():
        return values
    at = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    filled: Floats = np.where(at >= 0, values[at], -np.inf)
    return filled


def _worst(above: Floats, below: Floats, counted: npt.NDArray[np.bool_], window: int) -> tuple[int, float, bool]:
    """The window that has the level that the run held, as far out as any; that level beyond the band; its side."""
    index = np.flatnonzero(counted)
    found = []
    for over in (above[counted], below[counted]):
        levels = held(over, window)
        first = int(levels.argmax())
        found.append((float(levels[first]), first + int(over[first : first + window].argmin())))
    up = found[0][0] >= found[1][0]
    level, at = found[0 if up else 1]
    return int(index[at]), level, up


def _distance(level: float, *, up: bool, half: float) -> float:
    """A level beyond the band as a distance from the centre, in half-widths of the band."""
    distance = max(level / half + 1, 0.0)
    return distance if up else -distance


def _touches(burst: Burst, excursion: Excursion) -> bool:
    return excursion.first <= burst.last and (excursion.last is None or burst.first <= excursion.last)


def _limits(rule: Rule) -> tuple[float | None, float | None]:
    """The highest and the lowest that a mean may be; where only the low side counts, `limit` is the lowest."""
    if rule.side == "low":
        return None, rule.limit if rule.least is None else rule.least
    return rule.limit, rule.least


def _beyond_limit(means: Floats, rule: Rule) -> npt.NDArray[np.int8]:
    """+1 where a mean is above the limit, -1 where it is below the least that is allowed, in units."""
    beyond = np.zeros(len(means), dtype=np.int8)
    highest, lowest = _limits(rule)
    if highest is not None:
        beyond[means > highest] = 1
    if lowest is not None:
        beyond[means < lowest] = -1
    return beyond


def _excursions(
    side: npt.NDArray[np.int8], found: Aligned, values: Floats, limits: Band, rule: Rule, rules: Rules
) -> tuple[list[Excursion], int | None]:
    """Stretches on one side that last `window` windows, and the first step of a shorter one that the end cuts off."""
    long: list[Excursion] = []
    pending = None
    if not side.any():
        return long, pending
    for low, high in pairwise(np.flatnonzero(np.diff(side, prepend=0, append=0))):
        if side[low] == 0:
            continue
        first = _first(int(low), int(side[low]), found, values, limits, rule, rules)
        ended = high < len(side)
        if high - low >= rules.window:
            last = int(found.steps[high + rules.window - 2]) if ended else None
            long.append(Excursion(first, last, bool(side[low] > 0)))
        elif not ended:
            pending = first
    return long, pending


def _first(position: int, side: int, found: Aligned, values: Floats, limits: Band, rule: Rule, rules: Rules) -> int:
    """First step of an excursion: from the window's last step back, over single steps outside the band or the limit."""
    end = position + rules.window - 1
    own = values[position : end + 1]
    outside = own > limits.high[position] if side > 0 else own < limits.low[position]
    outside |= found.gone[position : end + 1] | (_beyond_limit(found.run[position : end + 1], rule) == side)
    back = 0
    while back < rules.window - 1 and outside[-2 - back]:
        back += 1
    return int(found.steps[end - back])


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
    run, centre, low, high = (bands.plain(values, rule) for values in (means, limits.centre, limits.low, limits.high))
    return Curve(ends, run, centre, low, high)
