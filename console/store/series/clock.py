"""The time of each step: in seconds since the first, and in tokens sampled until then.

Both never fall with the step, so that either can be the x axis of a chart; while a producer's clock that was
set back catches up, the time stays the same. Tokens are those of the engines: `engine/tokens_per_s` counts the tokens
since the last step by the seconds since then, so its product with those seconds is their number. The first step that is
known has no step before it and counts none; a step without a rate adds none.

A run that goes back to a checkpoint reports its steps again: their values and all later ones are dropped.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

Unit = Literal["step", "time", "tokens"]
Floats = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]

UNITS: Final[tuple[Unit, ...]] = ("step", "time", "tokens")
_FIRST: Final = 256


class Ruler(msgspec.Struct, frozen=True, eq=False):
    """Positions of steps on an x axis of one unit. Equal rulers give every step the same position.

    `steps` ascend strictly, `places` (float64, seconds or tokens) do not fall; both are empty for the unit "step",
    where a step lies at its own number.
    """

    unit: Unit = "step"
    revision: int = 0
    steps: Steps = msgspec.field(default_factory=lambda: np.empty(0, np.int64))
    places: Floats = msgspec.field(default_factory=lambda: np.empty(0))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ruler) and (self.unit, self.revision) == (other.unit, other.revision)

    def __hash__(self) -> int:
        return hash((self.unit, self.revision))

    def place(self, step: float) -> float:
        """The place of a step: interpolated between two known steps, clipped beyond them."""
        if len(self.steps) == 0:
            return float(step)
        # Only two neighbours are needed: np.interp would copy the steps as floats.
        right = int(np.searchsorted(self.steps, math.ceil(step)))
        if right == len(self.steps):
            return float(self.places[-1])
        if right == 0 or self.steps[right] == step:
            return float(self.places[right])
        low, high = int(self.steps[right - 1]), int(self.steps[right])
        below, above = float(self.places[right - 1]), float(self.places[right])
        return below + (above - below) * (step - low) / (high - low)

    def first_step(self, place: float) -> int:
        """The first step that lies at or behind a place; the one after the last where none does."""
        if len(self.steps) == 0:
            return math.ceil(place)
        return int(self.steps_at(np.array([place]))[0])

    def steps_at(self, places: Floats) -> Floats:
        """For each place the first step that lies at or behind it; above all steps where none does. Shape as given."""
        if len(self.steps) == 0:
            return places
        at = np.searchsorted(self.places, places)
        known = self.steps[np.minimum(at, len(self.steps) - 1)].astype(np.float64)
        return np.where(at < len(self.steps), known, float(self.steps[-1]) + 1.0)


class Clock:
    """Seconds and tokens by step, in the order of the reports."""

    def __init__(self) -> None:
        self._n = 0
        self._steps: Steps = np.empty(_FIRST, np.int64)
        self._time: Floats = np.empty(_FIRST)
        self._tokens: Floats = np.empty(_FIRST)
        self._start = 0.0
        self.revision = 0

    def __len__(self) -> int:
        return self._n

    @property
    def start(self) -> float:
        """The time of the first step, from which seconds are counted; 0 before one is known."""
        return self._start

    def put(self, step: int, time: float, tokens_per_s: float = 0.0) -> None:
        """`step` was at `time` (seconds on any clock, the same for all) and sampled at `tokens_per_s` before it."""
        if not math.isfinite(time):
            return
        n = self._n
        if n and step <= self._steps[n - 1]:
            if step == self._steps[n - 1]:
                return  # a second frame of the same step: the first one gave its time
            n = int(np.searchsorted(self._steps[:n], step))
        if n == 0:
            self._start = time
        elif n == len(self._steps):
            self._grow()
        seconds = max(time - self._start, float(self._time[n - 1]) if n else 0.0)
        before, tokens = (float(self._time[n - 1]), float(self._tokens[n - 1])) if n else (seconds, 0.0)
        rate = tokens_per_s if math.isfinite(tokens_per_s) and tokens_per_s > 0 else 0.0
        self._steps[n], self._time[n], self._tokens[n] = step, seconds, tokens + rate * (seconds - before)
        self._n = n + 1
        self.revision += 1

    def extend(self, steps: Steps, times: Floats, rates: Floats) -> None:
        """As `put` for each; the steps do not fall. Shapes (n,) all, a rate that is not finite is none."""
        known = np.isfinite(times)
        steps, times, rates = steps[known], times[known], rates[known]
        if not len(steps):
            return
        self.put(int(steps[0]), float(times[0]), float(rates[0]))  # the run may go back to this step
        n = self._n
        # The first frame of each step gives its time.
        new = np.concatenate(([False], steps[1:] > steps[:-1])) & (steps > self._steps[n - 1])
        steps, times, rates = steps[new], times[new], rates[new]
        if not len(steps):
            return
        while n + len(steps) > len(self._steps):
            self._grow()
        part = slice(n, n + len(steps))
        seconds = np.maximum.accumulate(np.concatenate((self._time[n - 1 : n], times - self._start)))
        sampled = np.where(np.isfinite(rates) & (rates > 0), rates, 0.0) * np.diff(seconds)
        self._steps[part], self._time[part] = steps, seconds[1:]
        # Summed in the order of the steps, as `put` does, so that both are equal to the last bit.
        self._tokens[part] = np.cumsum(np.concatenate((self._tokens[n - 1 : n], sampled)))[1:]
        self._n = n + len(steps)
        self.revision += len(steps)

    def ruler(self, unit: Unit) -> Ruler | None:
        """The x axis of a unit; None while no step has a place on it."""
        if unit == "step":
            return Ruler()
        places = (self._time if unit == "time" else self._tokens)[: self._n]
        if len(places) == 0 or (unit == "tokens" and places[-1] == 0):
            return None
        return Ruler(unit, self.revision, self._steps[: self._n], places)

    def _grow(self) -> None:
        for name in ("_steps", "_time", "_tokens"):
            old = getattr(self, name)
            new = np.empty(2 * len(old), old.dtype)
            new[: self._n] = old[: self._n]
            setattr(self, name, new)
