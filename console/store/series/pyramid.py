"""Lowest and highest value in any range of a long series, without reading the whole range.

Level 1 holds the bounds of every complete block of 16 values, level 2 those of every 16 blocks, and so on. A range is
put together from at most 32 entries of each level, so that W columns cost O(W log n) whatever they span; a new
value costs an amortised 1/15 of an entry, and 16 values one entry of each array (both arrays and the flags: 17 bytes).

Built lazily by the reader, vectorised: appending costs nothing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

FANOUT: Final = 16
_WITHIN: Final = np.arange(FANOUT)


class _Level:
    """Bounds of the complete blocks of one size: +inf and -inf where a block has no value that counts."""

    __slots__ = ("bad", "high", "low", "n")

    def __init__(self) -> None:
        self.n = 0
        self.low: Floats = np.empty(FANOUT)
        self.high: Floats = np.empty(FANOUT)
        self.bad: Bools = np.empty(FANOUT, np.bool_)

    def reserve(self, n: int) -> None:
        if n <= len(self.low):
            return
        room = max(n, 2 * len(self.low))
        for name in ("low", "high", "bad"):
            old = getattr(self, name)
            new = np.empty(room, old.dtype)
            new[: self.n] = old[: self.n]
            setattr(self, name, new)


class Pyramid:
    """Bounds of one array of values. With `positive` only values above 0 count: what a log axis can show."""

    __slots__ = ("_levels", "positive")

    def __init__(self, *, positive: bool = False) -> None:
        self.positive = positive
        self._levels: list[_Level] = []

    @property
    def nbytes(self) -> int:
        """Memory of all levels."""
        return sum(level.low.nbytes + level.high.nbytes + level.bad.nbytes for level in self._levels)

    def counts(self, values: Values) -> Bools:
        """Which of the values count."""
        finite = np.isfinite(values)
        return finite & (values > 0) if self.positive else finite

    def sync(self, values: Values, changed: tuple[int, int] | None = None) -> None:
        """Update from the new values at the end of `values`, and those rewritten in [changed[0], changed[1]).

        `values` never get shorter from call to call.
        """
        begin, stop = changed if changed is not None else (0, 0)
        size = len(values)
        at = 0
        while size >= FANOUT:
            if at == len(self._levels):
                self._levels.append(_Level())
            level, total = self._levels[at], size // FANOUT
            level.reserve(total)
            begin, stop = begin // FANOUT, min(-(-stop // FANOUT), level.n)
            if begin < stop:
                self._fill(at, values, begin, stop)
            if level.n < total:
                self._fill(at, values, level.n, total)
                level.n = total
            size, at = total, at + 1

    def _fill(self, at: int, values: Values, begin: int, stop: int) -> None:
        level = self._levels[at]
        part = slice(begin * FANOUT, stop * FANOUT)
        if at == 0:
            raw = values[part]
            good = self.counts(raw)
            if good.all():
                low = high = raw
                level.bad[begin:stop] = False
            else:
                low, high = np.where(good, raw, np.inf), np.where(good, raw, -np.inf)
                level.bad[begin:stop] = (~good).reshape(-1, FANOUT).any(axis=1)
        else:
            below = self._levels[at - 1]
            low, high = below.low[part], below.high[part]
            level.bad[begin:stop] = below.bad[part].reshape(-1, FANOUT).any(axis=1)
        level.low[begin:stop] = low.reshape(-1, FANOUT).min(axis=1)
        level.high[begin:stop] = high.reshape(-1, FANOUT).max(axis=1)

    def bounds(self, values: Values, left: Ints, right: Ints) -> tuple[Floats, Floats, Bools]:
        """Lowest and highest value that counts in each [left, right) (int64 of shape (W,)), and whether one does not.

        float64 of shape (W,), +inf and -inf where none counts. `values` must be what was given to `sync`.
        """
        if len(left) == 1:  # the range of an axis: slices, no index of what to gather
            one = self._stretch(values, int(left[0]), int(right[0]))
            return np.array([one[0]]), np.array([one[1]]), np.array([one[2]])
        low, high = np.full(len(left), np.inf), np.full(len(left), -np.inf)
        bad = np.zeros(len(left), np.bool_)
        targets = np.flatnonzero(left < right)
        begin, stop = left[targets], right[targets]
        for at in range(len(self._levels) + 1):
            if len(targets) == 0:
                break
            # Complete blocks of the next level are left to it; at most 31 entries are not in one.
            inner, outer = -(-begin // FANOUT), stop // FANOUT
            climbs = inner < outer if at < len(self._levels) else np.zeros(len(targets), np.bool_)
            head = np.where(climbs, inner * FANOUT, np.minimum(begin + FANOUT, stop))
            tail = np.where(climbs, outer * FANOUT, head)
            index = np.concatenate([begin, tail])[:, None] + _WITHIN
            inside = index < np.concatenate([head, stop])[:, None]
            self._gather(at, values, index, inside, np.concatenate([targets, targets]), low, high, bad)
            targets, begin, stop = targets[climbs], inner[climbs], outer[climbs]
        return low, high, bad

    def _stretch(self, values: Values, left: int, right: int) -> tuple[float, float, bool]:
        """`bounds` of one stretch."""
        low, high, bad = np.inf, -np.inf, False
        for at in range(len(self._levels) + 1):
            inner, outer = -(-left // FANOUT), right // FANOUT
            climbs = inner < outer and at < len(self._levels)
            ends = ((left, inner * FANOUT), (outer * FANOUT, right)) if climbs else ((left, right),)
            for begin, stop in ends:
                if begin >= stop:
                    continue
                if at == 0:
                    entries = values[begin:stop]
                    good = self.counts(entries)
                    if not good.all():
                        bad, entries = True, entries[good]
                    lows = highs = entries
                else:
                    level = self._levels[at - 1]
                    lows, highs = level.low[begin:stop], level.high[begin:stop]
                    bad = bad or bool(level.bad[begin:stop].any())
                if len(lows):
                    low, high = min(low, float(lows.min())), max(high, float(highs.max()))
            if not climbs:
                break
            left, right = inner, outer
        return low, high, bad

    def _gather(
        self, at: int, values: Values, index: Ints, inside: Bools, targets: Ints, low: Floats, high: Floats, bad: Bools
    ) -> None:
        """Fold entries of one level into the bounds: rows of `index`, if `inside`, belong to columns `targets`."""
        if at == 0:
            entries = values[np.minimum(index, len(values) - 1)]
            good = self.counts(entries)
            flags = inside & ~good
            inside = inside & good
            lows = highs = entries
        else:
            level = self._levels[at - 1]
            index = np.minimum(index, level.n - 1)
            lows, highs = level.low[index], level.high[index]
            flags = inside & level.bad[index]
        half = len(targets) // 2
        lows = np.where(inside, lows, np.inf).min(axis=1)
        highs = np.where(inside, highs, -np.inf).max(axis=1)
        # The two halves of `targets` are the same columns: folded one after the other, each with distinct indices.
        for part in (slice(None, half), slice(half, None)):
            columns = targets[part]
            low[columns] = np.minimum(low[columns], lows[part])
            high[columns] = np.maximum(high[columns], highs[part])
            bad[columns] |= flags[part].any(axis=1)

    def find(self, values: Values, left: int, right: int, *, forward: bool = True, at: int = 0) -> int:
        """Index of the first (or last) value that counts in [left, right), -1 without one.

        With `at` above 0 all indices are of blocks of that level.
        """
        if at == len(self._levels) or right - left < 2 * FANOUT:
            return self._scan(at, values, left, right, forward=forward)
        inner, outer = -(-left // FANOUT), right // FANOUT
        ends = [(left, inner * FANOUT), (outer * FANOUT, right)]
        near, far = ends if forward else reversed(ends)
        hit = self._scan(at, values, *near, forward=forward)
        if hit >= 0:
            return hit
        block = self.find(values, inner, outer, forward=forward, at=at + 1)
        if block >= 0:
            return self._scan(at, values, block * FANOUT, (block + 1) * FANOUT, forward=forward)
        return self._scan(at, values, *far, forward=forward)

    def _scan(self, at: int, values: Values, left: int, right: int, *, forward: bool) -> int:
        entries = self.counts(values[left:right]) if at == 0 else self._levels[at - 1].low[left:right] < np.inf
        found = np.flatnonzero(entries)
        return left + int(found[0 if forward else -1]) if len(found) else -1
