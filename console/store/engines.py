"""History of each engine: a short exact one and a long coarse one, both bounded. Pure.

An engine reports itself a few times a second. The newest reports are kept as they are; of the whole run, means over
equal spans of time, whose length doubles whenever there would be too many of them.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from driftline.frames import EngineState, Phase

RECENT: Final = 240
"""Reports kept as they are: two minutes of two a second."""
BUCKETS: Final = 512
ENGINES_KEPT: Final = 1024
FIRST_BUCKET: Final = 1.0
"""Seconds of a bucket of the long history at first."""


class Reading(NamedTuple):
    """The values that are drawn over time. Rates are per second, fractions from 0 to 1; `time` is Unix time."""

    time: float
    tokens_per_s: float
    kv_use: float
    running: float
    waiting: float
    prefix_hit_rate: float
    gpu_use: float = -1.0


FIELDS: Final = Reading._fields[1:]


class Trace:
    """One engine."""

    def __init__(self) -> None:
        self.recent: deque[Reading] = deque(maxlen=RECENT)
        self.period = FIRST_BUCKET
        self.last_report = 0.0
        """Hub's time of the newest report."""
        self.began = 0.0
        """Hub's time of the first report of the phase it is in."""
        self.restarts = 0
        """How often another process reported under the engine's name."""
        self.lost_preemptions = 0
        """Preemptions that the processes before this one had counted."""
        self._phase: Phase | None = None
        self._pid = 0
        self._preemptions = 0
        # All of its room from the start: as objects it would be five times as much, freed and taken again for ever.
        self._n = 0
        self._keys: npt.NDArray[np.int64] = np.zeros(BUCKETS + 1, np.int64)
        self._counts: npt.NDArray[np.int64] = np.zeros(BUCKETS + 1, np.int64)
        self._sums: npt.NDArray[np.float64] = np.zeros((BUCKETS + 1, len(FIELDS)))

    def record(self, state: EngineState, time: float) -> None:
        """Add one report, stamped by the hub at `time`."""
        self.last_report = time
        if state.phase != self._phase:
            self._phase, self.began = state.phase, time
        if state.pid:
            if self._pid and state.pid != self._pid:
                self.restarts += 1
                self.lost_preemptions += self._preemptions
            self._pid = state.pid
        self._preemptions = state.preemptions
        reading = Reading(
            state.time, state.tokens_per_s, state.kv_use, float(state.running), float(state.waiting),
            state.prefix_hit_rate, state.gpu_use,
        )  # fmt: skip
        if self.recent and state.time <= self.recent[-1].time:
            return  # a repetition, or a clock that was set back: times in a history ascend
        self.recent.append(reading)
        key = int(state.time // self.period)
        if not self._n or self._keys[self._n - 1] != key:
            self._keys[self._n] = key
            self._n += 1
        self._counts[self._n - 1] += 1
        self._sums[self._n - 1] += reading[1:]
        while self._n > BUCKETS:
            self._halve()

    def _halve(self) -> None:
        """Twice as long buckets: a bucket and its neighbour become one."""
        self.period *= 2
        keys = self._keys[: self._n] // 2
        firsts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        counts, sums = np.add.reduceat(self._counts[: self._n], firsts), np.add.reduceat(self._sums[: self._n], firsts)
        self._n = len(firsts)
        for kept, made in ((self._keys, keys[firsts]), (self._counts, counts), (self._sums, sums)):
            kept[: self._n], kept[self._n :] = made, 0

    def whole(self) -> list[Reading]:
        """Means over `period` seconds each for the whole run; spans without a report are missing."""
        n = self._n
        means = (self._sums[:n] / self._counts[:n, None]).tolist()
        return [Reading(key * self.period, *row) for key, row in zip(self._keys[:n].tolist(), means, strict=True)]


class EngineHistory:
    """The engines that have reported, by name: the ENGINES_KEPT that were heard of last."""

    def __init__(self) -> None:
        self.traces: dict[str, Trace] = {}

    def record(self, state: EngineState, time: float) -> str:
        """Add one report of one engine, stamped by the hub at Unix time `time`.

        Return the engine that was dropped for it, the one that was silent for longest, where there are too many; "" as
        a rule.
        """
        trace, gone = self.traces.get(state.engine), ""
        if trace is None:
            if len(self.traces) >= ENGINES_KEPT:
                gone = min(self.traces, key=lambda name: self.traces[name].last_report)
                del self.traces[gone]
            trace = self.traces[state.engine] = Trace()
        trace.record(state, time)
        return gone
