"""Which steps a metric is compared at, and what is missing there. Pure.

A step that a run reported without the metric is missing in it; a step that the run did not report at all is not. What
is missing here and there is left out of the windows' means; a stretch of it, or too much of it, is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from console.parity.runs import Run

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Steps = npt.NDArray[np.int64]

MOST = 0.5
"""Largest share of steps without a number; beyond it a metric is not judged to have passed."""
SILENT = 8
"""Steps at the end without a number from which on a metric has stopped. Chance, at 30 % missing: 7 in 10^5."""
CHANCE = 1e-3
"""A stretch without a number is a hole if what is missing here and there makes one as long less often than this."""


@dataclass(frozen=True)
class Aligned:
    """Values at `steps` (n): the run's (n) and the references' (k, n), NaN where missing.

    `gone`: where the run's value is not a number for so long that this is its value. `judged`: where the run and a
    reference have a number. `trouble`: a clause about what is missing, "" where nothing is that matters.
    """

    steps: Steps
    run: Floats
    references: Floats
    gone: Bools
    judged: Bools
    trouble: str


def reported(runs: Sequence[Run], start: int | None, until: int | None) -> Steps:
    """The steps within the range that the last run and one of the others reported, as far as all of them go."""
    each = [_all_steps(run) for run in runs]
    if any(not len(steps) for steps in each):
        return np.empty(0, np.int64)
    low = max(int(steps[0]) for steps in each)
    high = min(int(steps[-1]) for steps in each)
    *others, own = each
    steps = np.intersect1d(own, np.unique(np.concatenate(others)), assume_unique=True)
    low, high = max(low, low if start is None else start), min(high, high if until is None else until)
    return steps[(steps >= low) & (steps <= high)]


def _all_steps(run: Run) -> Steps:
    if not run.series:
        return np.empty(0, np.int64)
    return np.unique(np.concatenate([series.steps for series in run.series.values()]))


def align(name: str, references: Sequence[Run], run: Run, steps: Steps, window: int) -> Aligned:
    """A metric that all runs have, at the steps of `reported` at which one of them has it."""
    runs = [*references, run]
    placed = [_placed(one, name, steps) for one in runs]
    entries = np.stack([entry for entry, _ in placed])
    at = np.flatnonzero(entries.any(axis=0))
    values, entry = np.stack([value for _, value in placed])[:, at], entries[:, at]
    known = np.isfinite(values)
    gone, trouble = _gone(entry[-1] & ~known[-1], steps[at], run.id, window)
    if not trouble:
        trouble = _stopped(name, at, steps, window)
    for one, own in zip(runs, np.vstack([known[:-1], known[-1] | gone]), strict=True):
        trouble = trouble or _missing(one.id, name, own, steps[at], window)
    judged = known[-1] & known[:-1].any(axis=0)
    clean = np.where(known, values, np.nan)
    return Aligned(steps[at], clean[-1], clean[:-1], gone, judged, trouble)


def _placed(run: Run, name: str, steps: Steps) -> tuple[Bools, Floats]:
    """Whether a run has an entry at each step, and its value."""
    series = run.series[name]
    if np.array_equal(series.steps, steps):
        return np.ones(len(steps), dtype=bool), series.values
    # Both ascend without repetition: a search is all that membership takes.
    at = np.searchsorted(series.steps, steps)
    entry = at < len(series.steps)
    entry[entry] = series.steps[at[entry]] == steps[entry]
    values = np.full(len(steps), np.nan)
    values[entry] = series.values[at[entry]]
    return entry, values


def stretches(mask: Bools) -> list[tuple[int, int]]:
    """First and last index of each run of true values."""
    if not mask.any():
        return []
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return [(int(low), int(high) - 1) for low, high in zip(edges[::2], edges[1::2], strict=True)]


def _gone(bad: Bools, steps: Steps, run: str, window: int) -> tuple[Bools, str]:
    """Where values that are not numbers are the run's state, and a clause about shorter stretches of them."""
    gone, trouble = np.zeros(len(bad), dtype=bool), ""
    for first, last in stretches(bad):
        length = last - first + 1
        if length >= 2 * window or (length >= window and last == len(bad) - 1):
            gone[first : last + 1] = True
        elif length >= window:
            trouble = f"run {run} has no number at steps {steps[first]} to {steps[last]}"
    return gone, trouble


def _stopped(name: str, at: npt.NDArray[np.intp], steps: Steps, window: int) -> str:
    """A clause about steps that were reported, and at which no run has the metric."""
    if len(at) < 2:
        return ""
    cadence = int(np.median(np.diff(at)))
    if len(steps) - 1 - int(at[-1]) >= max(SILENT, 2 * cadence):
        return f"no run has {name} after step {steps[at[-1]]}, they go on to step {steps[-1]}"
    widest = int(np.diff(at).argmax())
    if at[widest + 1] - at[widest] > max(window, 3 * cadence):
        return f"no run has {name} at steps {steps[at[widest] + 1]} to {steps[at[widest + 1] - 1]}"
    return ""


def _missing(run: str, name: str, known: Bools, steps: Steps, window: int) -> str:
    """A clause about steps at which another run has the metric and this one has not."""
    absent = stretches(~known)
    if not absent:
        return ""
    if not known.any():
        return f"run {run} has no number for {name}"
    first, last = absent[-1]
    if last == len(steps) - 1 and last - first + 1 >= SILENT:
        return f"run {run} has no {name} after step {steps[first - 1]}, others go on to step {steps[-1]}"
    share = min(float((~known).mean()), 0.9)
    hole = max(window, math.ceil(math.log(len(steps) / CHANCE) / -math.log(share)))
    for first, last in absent:
        if last - first + 1 >= hole:
            return f"run {run} has no {name} at steps {steps[first]} to {steps[last]}"
    count = int((~known).sum())
    if count > MOST * len(steps):
        return f"run {run} has no {name} at {count} of {len(steps)} steps"
    return ""
