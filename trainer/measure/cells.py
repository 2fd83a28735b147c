"""Sums over sequences by fix state, with a bootstrap that adds up from step to step. Pure numpy.

A *row* is one sequence's share of one fix state in one step. Rows of a step that agree in state and weight versions
are summed to a *cell* at once, plainly and in RESAMPLES bootstrap resamples, so that a window over many steps is a
sum of cells and costs the same however long it is.

The resamples are of sequences, the cluster bootstrap, because tokens of a sequence are not independent of each
other. It is a Poisson bootstrap: each sequence enters each resample Poisson(1) times, independently of the others,
which in the limit is drawing n of n with replacement (Hanley and MacGibbon 2006; Chamandy et al. 2012) and, unlike
that, does not need all sequences at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

RESAMPLES: Final = 1000
"""Enough that the ends of a 95 % interval move by a few percent of its width from seed to seed."""

SEED: Final = 20
_POISSON_ENTRIES: Final = 2**16

MIN_SEQUENCES: Final = 8
"""Below so many sequences on a side there is no interval: a bootstrap of so few is too narrow by far."""

TOKENS, ABS_DIFF, WHOLE_TOKENS, COUNTED, CLIPPED, KL = range(6)
"""Columns of a row: scored tokens and their sum of |d|; then, of a sequence wholly in one state, its tokens, what its
clip fraction is counted over, what of that was clipped, and its sum of k3."""
COLUMNS: Final = 6

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """`numbers` float64 [S, COLUMNS]; `first`, `last` int64 [S]: oldest and newest weight version of its tokens."""

    numbers: Array
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """Rows of one state and one pair of weight versions. `total` [COLUMNS], `resampled` [RESAMPLES, COLUMNS]."""

    first: int
    last: int
    sequences: int
    whole: int
    total: Array
    resampled: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the sum of some cells. `whole` counts the sequences wholly in one state."""

    sequences: int = 0
    whole: int = 0
    steps: int = 0
    total: Array | None = None
    resampled: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Ratio:
    """A token-weighted mean as a ratio of two columns; `tokens` is the column to report as its tokens."""

    metric: str
    over: int
    under: int
    tokens: int


RATIOS: Final = (
    Ratio("mismatch/abs_diff_mean", ABS_DIFF, TOKENS, TOKENS),
    Ratio("policy/clip_fraction", CLIPPED, COUNTED, WHOLE_TOKENS),
    Ratio("policy/kl_new_old", KL, WHOLE_TOKENS, WHOLE_TOKENS),
)
"""The metrics of an effect, under the names and by the definitions of `driftline.catalog.metrics`."""


class Sampler:
    """Draws the resamples. The same seed gives the same resamples, whatever else is drawn between."""

    def __init__(self, seed: int = SEED) -> None:
        self._seed = seed
        self._counts = _poisson_table()

    def cells(self, rows: Rows, step: int, salt: int) -> list[Cell]:
        """The rows of one step and one state as cells, one a pair of versions. `salt` differs between states."""
        rng = np.random.default_rng([self._seed, step, salt])
        cells = []
        for first, last in sorted({*zip(rows.first.tolist(), rows.last.tolist(), strict=True)}):
            numbers = rows.numbers[(rows.first == first) & (rows.last == last)]
            drawn = rng.integers(0, _POISSON_ENTRIES, (RESAMPLES, len(numbers)), dtype=np.uint16)
            cells.append(
                Cell(
                    first=first,
                    last=last,
                    sequences=int((numbers[:, TOKENS] > 0).sum()),
                    whole=int((numbers[:, WHOLE_TOKENS] > 0).sum()),
                    total=numbers.sum(axis=0),
                    resampled=self._counts[drawn] @ numbers.astype(np.float32),
                )
            )
        return cells


def sum_cells(steps: Iterable[Iterable[Cell]]) -> Side:
    """The sum of the cells of some steps; steps without any do not count."""
    present = [cells for step in steps if (cells := list(step))]
    flat = [cell for cells in present for cell in cells]
    if not flat:
        return Side()
    return Side(
        sequences=sum(cell.sequences for cell in flat),
        whole=sum(cell.whole for cell in flat),
        steps=len(present),
        total=np.sum([cell.total for cell in flat], axis=0),
        resampled=np.sum([cell.resampled for cell in flat], axis=0, dtype=np.float64),
    )


def mean(side: Side, ratio: Ratio) -> float:
    """The mean of one side; NaN where there is nothing to divide by."""
    if side.total is None or not side.total[ratio.under]:
        return float("nan")
    return float(side.total[ratio.over] / side.total[ratio.under])


def interval(before: Side, after: Side, ratio: Ratio) -> tuple[float, float]:
    """95 % percentile interval of `after - before`; NaN while a side has fewer than MIN_SEQUENCES sequences."""
    spread = []
    for side in (before, after):
        sequences = side.sequences if ratio.tokens == TOKENS else side.whole
        if sequences < MIN_SEQUENCES or side.resampled is None:
            return float("nan"), float("nan")
        under = side.resampled[:, ratio.under]
        # A resample without any sequence has no mean: once in e^8 at MIN_SEQUENCES. It is left out.
        spread.append(np.divide(side.resampled[:, ratio.over], under, out=np.full_like(under, np.nan), where=under > 0))
    low, high = np.nanquantile(spread[1] - spread[0], (0.025, 0.975))
    return float(low), float(high)


def _poisson_table() -> npt.NDArray[np.float32]:
    """Poisson(1) by inversion: entry u is the count whose cumulative probability first exceeds (u + 1/2) / entries."""
    probabilities = np.exp(-1.0) / np.cumprod([1.0, *range(1, 16)])
    at = (np.arange(_POISSON_ENTRIES) + 0.5) / _POISSON_ENTRIES
    return np.searchsorted(np.cumsum(probabilities), at).astype(np.float32)
