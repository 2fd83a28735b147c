"""Quantiles of a stream in bounded memory: counts in bins whose width is a fixed part of the value.

A quantile comes back within `ERROR` of the value that has that rank (the scheme of DDSketch, Masson, Rim and Lee, VLDB
2019: bin i holds (g^(i-1), g^i] with g = (1 + ERROR) / (1 - ERROR)).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

ERROR: Final = 0.005
_GROWTH: Final = math.log((1 + ERROR) / (1 - ERROR))
_SMALLEST: Final = 1e-9
"""Smaller values count as zero: a nanosecond."""


class Quantiles:
    """Quantiles of numbers from 0 up; a negative value or NaN is ignored."""

    __slots__ = ("_bins", "_zeros", "count", "largest")

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self._zeros = 0
        self.count = 0
        self.largest = 0.0

    def add(self, value: float) -> None:
        """Add one number."""
        if not 0 <= value < math.inf:
            return
        self.count += 1
        self.largest = max(self.largest, value)
        if value < _SMALLEST:
            self._zeros += 1
        else:
            self._bins[math.ceil(math.log(value) / _GROWTH)] += 1

    def at(self, part: float) -> float | None:
        """The value below which `part` (0 to 1) of all are, by nearest rank; None while there is none."""
        if not self.count:
            return None
        rank = max(math.ceil(part * self.count), 1)
        seen = self._zeros
        if rank <= seen:
            return 0.0
        for place in sorted(self._bins):
            seen += self._bins[place]
            if seen >= rank:
                # The middle of the bin, in the sense that both ends are equally far from it in relation to it.
                middle = 2 * math.exp(place * _GROWTH) / (math.exp(_GROWTH) + 1)
                return min(middle, self.largest)
        return self.largest
