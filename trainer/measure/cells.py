"""Sums over prompt groups by fix state and step: what the intervals of effects are made of. Pure numpy.

A *row* is one sequence's share of one fix state in one step. The rows of a step that agree in prompt group and weight
versions are summed to a *cell*. Sequences of one prompt are alike, and so are those of one step, so that neither a
sequence nor, in general, a prompt group counts as independent: a side of a comparison keeps both, its cells summed by
step and by prompt group (`trainer.measure.intervals` says which of them an interval is made of).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

TOKENS, ABS_DIFF, WHOLE_TOKENS, COUNTED, CLIPPED, KL = range(6)
"""Columns of a row: scored tokens and their sum of |d|; then, of a sequence wholly in one state, its tokens, what its
clip fraction is counted over, what of that was clipped, and its sum of k3."""
COLUMNS: Final = 6

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """`numbers` float64 [S, COLUMNS]; `first`, `last` int64 [S]: oldest and newest weight version of its tokens;
    `group` int64 [S]: the prompt group within the step."""

    numbers: Array
    first: Integers
    last: Integers
    group: Integers


@dataclass(frozen=True)
class Cells:
    """The rows of one state in one step by prompt group and weight versions. `numbers` [C, COLUMNS], the rest [C].

    `sequences` and `whole` count the sequences with a scored token and those wholly in one state.
    """

    numbers: Array
    first: Integers
    last: Integers
    group: Integers
    sequences: Integers
    whole: Integers

    def select(self, chosen: npt.NDArray[np.bool_]) -> Cells:
        """Some of the cells."""
        return Cells(**{name: getattr(self, name)[chosen] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Side:
    """One side of a comparison. `steps` int64 [N] ascending; `by_step` [N, COLUMNS]; `by_group` [G, COLUMNS], a prompt
    group of one step a row, and `group_steps` [G] the step of each."""

    steps: Integers
    by_step: Array
    by_group: Array
    group_steps: Integers
    sequences: int = 0
    whole: int = 0

    @property
    def total(self) -> Array:
        """Sums over the whole side, [COLUMNS]."""
        return np.asarray(self.by_step.sum(axis=0))


@dataclass(frozen=True)
class Ratio:
    """A token-weighted mean as a ratio of two columns. `tokens` is the column to report as its tokens, `most` the
    largest value that the mean can have."""

    metric: str
    over: int
    under: int
    tokens: int
    most: float = math.inf


RATIOS: Final = (
    Ratio("mismatch/abs_diff_mean", ABS_DIFF, TOKENS, TOKENS),
    Ratio("policy/clip_fraction", CLIPPED, COUNTED, WHOLE_TOKENS, 1.0),
    Ratio("policy/kl_new_old", KL, WHOLE_TOKENS, WHOLE_TOKENS),
)
"""The metrics of an effect, under the names and by the definitions of `driftline.catalog.metrics`."""


def cells(rows: Rows) -> Cells:
    """The rows of one step and one state as cells."""
    keys = np.stack([rows.group, rows.first, rows.last], axis=1)
    found, at = np.unique(keys, axis=0, return_inverse=True)
    at = at.reshape(-1)
    return Cells(
        numbers=_sum_by(at, rows.numbers, len(found)),
        first=found[:, 1],
        last=found[:, 2],
        group=found[:, 0],
        sequences=np.bincount(at, rows.numbers[:, TOKENS] > 0, len(found)).astype(np.int64),
        whole=np.bincount(at, rows.numbers[:, WHOLE_TOKENS] > 0, len(found)).astype(np.int64),
    )


def side(steps: Iterable[tuple[int, Cells]]) -> Side:
    """The cells of some steps as one side; a step may come in several parts, and one without a cell does not count."""
    present = [(step, part) for step, part in steps if len(part.group)]
    if not present:
        none = np.zeros(0, np.int64)
        return Side(none, np.zeros((0, COLUMNS)), np.zeros((0, COLUMNS)), none)
    numbers = np.concatenate([part.numbers for _, part in present])
    group = np.concatenate([part.group for _, part in present])
    step = np.concatenate([np.full(len(part.group), step, np.int64) for step, part in present])
    found, at = np.unique(step, return_inverse=True)
    groups, group_at = np.unique(np.stack([step, group], axis=1), axis=0, return_inverse=True)
    return Side(
        steps=found,
        by_step=_sum_by(at.reshape(-1), numbers, len(found)),
        by_group=_sum_by(group_at.reshape(-1), numbers, len(groups)),
        group_steps=groups[:, 0],
        sequences=sum(int(part.sequences.sum()) for _, part in present),
        whole=sum(int(part.whole.sum()) for _, part in present),
    )


def mean(side: Side, ratio: Ratio) -> float:
    """The token-weighted mean of one side; NaN where there is nothing to divide by."""
    total = side.total
    return float(total[ratio.over] / total[ratio.under]) if total[ratio.under] else float("nan")


def _sum_by(at: Integers, numbers: Array, count: int) -> Array:
    summed = np.zeros((count, COLUMNS))
    np.add.at(summed, at, numbers)
    return summed
