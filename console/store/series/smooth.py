"""Exponential moving average, debiased, as in the common training dashboards.

    num_i = w num_{i-1} + (1 - w) x_i      den_i = w den_{i-1} + (1 - w)      y_i = num_i / den_i

with num, den starting at 0: dividing by `den`, which is 1 - w^i where nothing is missing, takes away the pull towards
the start (as Adam's bias correction does). A value that is not finite adds nothing to either sum and is NaN in
the result, so that a gap stays a gap and the average goes on behind it. The weight is per point, whatever the steps
between two points are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from console.store.series.pyramid import Values

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

_BLOCK: Final = 32
SEGMENT: Final = 4096
"""Values between two indices from which an average can be continued."""


@lru_cache(maxsize=32)
def _response(decay: float) -> tuple[Floats, Floats]:
    """Response to a block of inputs (lower triangular, transposed), and the decay of the previous state over it."""
    powers: Floats = np.power(decay, np.arange(_BLOCK + 1), dtype=np.float64)
    lag = np.arange(_BLOCK)[None, :] - np.arange(_BLOCK)[:, None]
    return np.asarray(np.where(lag >= 0, powers[np.maximum(lag, 0)], 0.0), np.float64), powers[1:]


def _decayed(inputs: Floats, decay: float, state: float) -> Floats:
    """s_i = decay * s_{i-1} + inputs_i with s_{-1} = state, shape (n,); in blocks, so that the loop is numpy's."""
    n = len(inputs)
    if n <= _BLOCK:
        response, fade = _response(decay)
        return np.asarray(inputs @ response[:n, :n] + state * fade[:n])
    blocks = -(-n // _BLOCK)
    padded = np.zeros(blocks * _BLOCK)
    padded[:n] = inputs
    response, fade = _response(decay)
    local = padded.reshape(blocks, _BLOCK) @ response
    # The last of each block is itself such a series, with the decay of a whole block.
    ends = _decayed(local[:, -1].copy(), decay**_BLOCK, state)
    before = np.concatenate([[state], ends[:-1]])
    local += before[:, None] * fade
    return np.asarray(local.reshape(-1)[:n])


class Average:
    """The average of one growing array of values, continued from call to call."""

    __slots__ = ("_n", "_states", "_values", "weight")

    def __init__(self, weight: float) -> None:
        """`weight` in [0, 1): how much of the average before is kept. Raises ValueError for any other."""
        if not 0 <= weight < 1:
            raise ValueError(f"the weight of a moving average is in [0, 1), not {weight}")
        self.weight = weight
        self._n = 0
        # Half of the memory, and seven digits are more than a screen shows.
        self._values: Singles = np.empty(SEGMENT, np.float32)
        self._states: list[tuple[float, float]] = [(0.0, 0.0)]

    def update(self, values: Values, changed_from: int | None = None) -> Singles:
        """The average of all of `values`; `changed_from` is the first that was rewritten since the last call."""
        n = len(values)
        self._n = min(self._n, n, n if changed_from is None else changed_from)
        if self._n < n:
            if n > len(self._values):
                room = np.empty(max(n, 2 * len(self._values)), np.float32)
                room[: self._n] = self._values[: self._n]
                self._values = room
            # Taken up at the start of a segment, so that no sums have to be kept for every value.
            segment = min(self._n // SEGMENT, len(self._states) - 1)
            del self._states[segment + 1 :]
            for begin in range(segment * SEGMENT, n, SEGMENT):
                self._advance(values, begin, min(begin + SEGMENT, n))
            self._n = n
        return self._values[:n]

    def _advance(self, values: Values, begin: int, stop: int) -> None:
        part = values[begin:stop]
        finite = np.isfinite(part)
        share = 1.0 - self.weight
        state = self._states[begin // SEGMENT]
        with np.errstate(over="ignore", invalid="ignore"):
            sums = _decayed(np.where(finite, part, 0.0) * share, self.weight, state[0])
            weights = _decayed(finite * share, self.weight, state[1])
            # Where the first value is not finite there is nothing to divide by, nor anything to show.
            mean = np.divide(sums, weights, out=np.full(len(part), np.nan), where=weights > 0)
        # Values returned before stay equal to the last bit: blocks of another length round differently.
        new = max(self._n - begin, 0)
        with np.errstate(over="ignore"):
            self._values[begin + new : stop] = np.where(finite, mean, np.nan)[new:]
        if stop - begin == SEGMENT:
            self._states.append((float(sums[-1]), float(weights[-1])))


def ema(values: Values, weight: float) -> Singles:
    """The debiased moving average of an array, shape (n,)."""
    return Average(weight).update(values)
