"""Windows of consecutive values as arrays. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=np.generic)

_INDEXED = 1_000
"""Values up to which windows are taken by a table of indices, which is kept for the next array of that length."""


def windows(values: npt.NDArray[T], width: int) -> npt.NDArray[T]:
    """The windows of the last axis, (..., n) -> (..., n - width + 1, width); not to be written to.

    `sliding_window_view` spends longer on its checks than a judgement of a run of usual length spends on the values.
    """
    n = values.shape[-1]
    if n > _INDEXED:
        return np.lib.stride_tricks.sliding_window_view(values, width, axis=-1)
    return np.asarray(values[..., _index(n, width)])


@lru_cache(maxsize=64)
def _index(n: int, width: int) -> npt.NDArray[np.intp]:
    index: npt.NDArray[np.intp] = np.add.outer(np.arange(n - width + 1), np.arange(width))
    return index


def lowest(values: npt.NDArray[T], width: int) -> npt.NDArray[T]:
    """The smallest value of each window, (n) -> (n - width + 1): by halves, so that its cost is log2 of the width."""
    found, reach = values, 1
    while 2 * reach <= width:
        found = np.minimum(found[:-reach], found[reach:])
        reach *= 2
    if rest := width - reach:
        found = np.minimum(found[:-rest], found[rest:])
    return found
