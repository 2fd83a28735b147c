"""The measured effect of every change of a fix: the same numbers over tokens sampled under the state before and after.

A token belongs to the vector of all fix values that its engine had when it sampled it, which the engine records
exactly. So "before" are tokens sampled under the vector before the change and "after" those under the vector after
it, whenever they arrive, and whatever else changes later. Sequences whose tokens are of several states give each
state its tokens' mismatch; their clip fraction and KL, which are one sequence's, count for none.

Only what lies close in time is compared, because the policy moves while it is measured: up to N_BEFORE steps before
and N_AFTER after it. The means of both sides are of those steps; the change between them is that at the change, each
side followed along its own trend, so that what learning moves from step to step is not taken for the fix's doing
(`trainer.measure.intervals`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from driftline.frames import Effect, Measure
from trainer.measure import cells as sums
from trainer.measure import intervals
from trainer.measure.cells import Cells, Rows, Side
from trainer.measure.fix_states import UNKNOWN, Vector

N_BEFORE: Final = 20
"""Steps before a change that count: some thousand tokens at 16 prompts x 8 samples, and recent enough that the policy
is still nearly the one that is measured after the change."""
N_AFTER: Final = 20
"""Steps after a change that count, for the same reasons; then the effect is done."""

Changes = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Change:
    """The pool went from one state to another. `changes`: (fix, value before, value after).

    `before` and `after` are the vectors of the engines, `since` and `until` the oldest and newest weight version at
    which an engine changed: it takes one version at a live switch or a sync, several in a rolling restart. `note` is
    for the operator.
    """

    changes: Changes
    before: Set[Vector]
    after: Set[Vector]
    since: int
    until: int
    step: int
    version: int
    time: float
    by: str = ""
    note: str = ""


@dataclass(frozen=True)
class _OpenEffect:
    """An effect whose window after the change still grows; `begin` is the step of the first of its changes."""

    id: str
    change: Change
    begin: int


class Effects:
    """Keeps the recent past of every state and measures one change after the other. Not thread-safe."""

    def __init__(self) -> None:
        self._past: dict[Vector, deque[tuple[int, Cells]]] = {}
        self._open: _OpenEffect | None = None
        self._count = 0

    def add_step(self, step: int, rows: Mapping[Vector, Rows], *, time: float) -> list[Effect]:
        """Take in one step's rows; returns the effect that they changed, if any."""
        for vector, new in rows.items():
            past = self._past.setdefault(vector, deque(maxlen=max(N_BEFORE, N_AFTER)))
            past.append((step, sums.cells(new)))
        if self._open is None or not rows.keys() & (self._open.change.before ^ self._open.change.after):
            return []
        effect = self._measure(self._open, time)
        if effect.steps_after >= N_AFTER:
            return self.finish(time=time)
        return [effect]

    def add_change(self, change: Change) -> list[Effect]:
        """The pool has changed: begin to measure; what was being measured is closed, or merged where it has too few."""
        closed: list[Effect] = []
        opened = self._open
        if opened is not None and len(self._side_after(opened).by_group) < intervals.MIN_GROUPS:
            merged = _merge(opened.change, change)
            self._open = replace(opened, change=merged)
            if not merged.changes:
                return [self._close_undone(opened, change)]
        else:
            closed = self.finish(time=change.time)
            self._count += 1
            self._open = _OpenEffect(f"{change.step}-{self._count}-{int(change.time * 1000):x}", change, change.step)
        return [*closed, self._measure(self._open, change.time)]

    def finish(self, *, time: float) -> list[Effect]:
        """Close what is being measured, with what it has."""
        opened, self._open = self._open, None
        return [self._measure(opened, time, done=True)] if opened is not None else []

    def _close_undone(self, opened: _OpenEffect, change: Change) -> Effect:
        self._open = None
        effect = self._measure(replace(opened, change=replace(change, changes=opened.change.changes)), change.time)
        reason = "it was switched back before enough tokens were sampled in between: nothing to compare"
        return msgspec.structs.replace(effect, measures=(), done=True, detail=reason)

    def _measure(self, opened: _OpenEffect, time: float, *, done: bool = False) -> Effect:
        change = opened.change
        before, after = self._side_before(opened), self._side_after(opened)
        return Effect(
            id=opened.id,
            changes=change.changes,
            step=change.step,
            version=change.version,
            time=time,
            by=change.by,
            steps_before=len(before.steps),
            steps_after=len(after.steps),
            measures=tuple(_measures(before, after)),
            done=done,
            detail=_detail(change, before, after, done),
        )

    def _side_before(self, opened: _OpenEffect) -> Side:
        change, past = opened.change, self._steps(opened.change.before - opened.change.after)
        near = ((step, part) for step, part in past if step > opened.begin - N_BEFORE)
        parts = [(step, part.select(part.last <= change.until)) for step, part in near]
        return sums.side(_of_steps(parts, slice(-N_BEFORE, None)))

    def _side_after(self, opened: _OpenEffect) -> Side:
        change, past = opened.change, self._steps(opened.change.after - opened.change.before)
        parts = [(step, part.select(part.first >= change.since)) for step, part in past]
        return sums.side(_of_steps(parts, slice(N_AFTER)))

    def _steps(self, vectors: Set[Vector]) -> list[tuple[int, Cells]]:
        return [one for vector in vectors for one in self._past.get(vector, ())]


def _of_steps(parts: Sequence[tuple[int, Cells]], window: slice) -> list[tuple[int, Cells]]:
    """The parts of some of the steps that have cells."""
    present = [(step, part) for step, part in parts if len(part.group)]
    chosen = set(sorted({step for step, _ in present})[window])
    return [(step, part) for step, part in present if step in chosen]


def rows(
    d: npt.NDArray[np.floating],
    scored: npt.NDArray[np.bool_],
    mask: npt.NDArray[np.bool_],
    states: npt.NDArray[np.integer],
    versions: npt.NDArray[np.integer],
    policy: npt.NDArray[np.float64],
    comparable: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.integer],
) -> dict[int, Rows]:
    """Rows of one step by the number of their state.

    `d` [B, R] trainer - rollout under each token's own weights where `scored`; `mask`, `states`, `versions` [B, R];
    `policy` [B, 3]: per sequence what its clip fraction is counted over, what was clipped, and its sum of k3;
    `comparable` [B]: whether those are the sequence's own (its tokens sampled with the head that the trainer has);
    `groups` [B]: the prompt group of each sequence.
    """
    found: dict[int, Rows] = {}
    size = np.abs(d, dtype=np.float64)
    for number in np.unique(states[mask]).tolist():
        if number == UNKNOWN:
            continue
        here = mask & (states == number)
        counted = here & scored
        whole = ((states == number) | ~mask).all(axis=1) & comparable
        numbers = np.zeros((len(mask), sums.COLUMNS))
        numbers[:, sums.TOKENS] = counted.sum(axis=1)
        numbers[:, sums.ABS_DIFF] = np.where(counted, size, 0.0).sum(axis=1)
        numbers[:, sums.WHOLE_TOKENS] = np.where(whole, mask.sum(axis=1), 0)
        numbers[:, (sums.COUNTED, sums.CLIPPED, sums.KL)] = np.where(whole[:, None], policy, 0.0)
        present = here.any(axis=1)
        wide = versions.astype(np.int64)
        first = np.where(here, wide, np.iinfo(np.int64).max).min(axis=1)
        last = np.where(here, wide, -1).max(axis=1)
        found[number] = Rows(numbers[present], first[present], last[present], groups[present].astype(np.int64))
    return found


def _measures(before: Side, after: Side) -> list[Measure]:
    result = []
    for ratio in sums.RATIOS:
        found = intervals.compare(before, after, ratio)
        result.append(
            Measure(
                metric=ratio.metric,
                before=sums.mean(before, ratio),
                after=sums.mean(after, ratio),
                low=found.low,
                high=found.high,
                tokens_before=int(before.total[ratio.tokens]),
                tokens_after=int(after.total[ratio.tokens]),
                change=found.change,
                ratio=found.ratio,
                ratio_low=found.ratio_low,
                ratio_high=found.ratio_high,
                unit=found.unit,
                units_before=found.units_before,
                units_after=found.units_after,
                note=found.note,
            )
        )
    return result


def _merge(old: Change, new: Change) -> Change:
    """Two changes as one: from the state before the first to the state after the second."""
    values: dict[str, tuple[str, str]] = {}
    for fix, before, after in (*old.changes, *new.changes):
        values[fix] = (values[fix][0] if fix in values else before, after)
    changes = tuple((fix, *pair) for fix, pair in values.items() if pair[0] != pair[1])
    notes = dict.fromkeys(note for note in (old.note, new.note) if note)
    return replace(new, changes=changes, before=old.before, until=old.until, note="; ".join(notes))


def _detail(change: Change, before: Side, after: Side, done: bool) -> str:
    """Notes for the reader of the numbers, in one line; empty without any."""
    said = [change.note] if change.note else []
    if len(change.changes) > 1:
        said.append(f"{len(change.changes)} changes, with too few tokens sampled in between to tell them apart")
    if not before.sequences:
        said.append("no token was sampled under the state before the change")
    elif not after.sequences:
        said.append("no token was sampled under the state after it" if done else "no token of the state after it yet")
    parts = max(0, before.sequences - before.whole), max(0, after.sequences - after.whole)
    if any(parts):
        said.append(
            f"{parts[0]} sequences before and {parts[1]} after count for the mismatch only: "
            "their tokens are of several states, or their trainer's head has changed since"
        )
    return "; ".join(said)
