"""When a run measures the cause of its own mismatch by itself: plain rules over the numbers of its steps. Pure.

The rules are those of the console's sentinels in their plainest form: a published limit passed in two of three steps,
or three steps in a row far above what the run has had before. The sentinels are finer, because an alarm of theirs costs
an operator's attention; a false one here costs a round.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Final

from driftline.catalog.metrics import BY_NAME

LIMITED: Final = tuple(f"mismatch/{name}" for name in ("abs_diff_mean", "mult_prob_error", "kl_k3", "abs_diff_p99"))
"""Metrics whose published limit counts."""
MEAN: Final = "mismatch/abs_diff_mean"
HOLD, OF = 2, 3
"""Steps above a limit, of how many."""
ROW: Final = 3
"""Steps in a row, far above those before."""
GROWN: Final = 3.0
LEAST: Final = 1e-3
"""Nats. A mean below it is no mismatch, however much less it was."""
BEFORE: Final = 20
"""Steps that are needed to say how much it was before; their median counts, of at most KEPT."""
KEPT: Final = 200
SETTLED: Final = 10
"""Steps that are seen before the first round: the first updates are large, and a text that was sampled before one of
them shows another difference when it is scored after it."""


class MismatchAlarm:
    """Sees every step. `apart`: seconds between two rounds, at least.

    There is one for each time that the mismatch goes wrong; where that is sooner than `apart` after the last one, it is
    made then, if the mismatch still is.
    """

    def __init__(self, apart: float) -> None:
        self._apart = apart
        self._above: dict[str, deque[bool]] = {name: deque(maxlen=OF) for name in LIMITED}
        self._before: deque[float] = deque(maxlen=KEPT)
        self._row = 0
        self._steps = 0
        self._made = False
        """Whether there was one since the mismatch has gone wrong."""
        self._last = -math.inf

    def due(self, values: Mapping[str, float], now: float) -> str:
        """Take in a step's numbers at monotonic time `now`; the reason for a round, as a clause, "" for none."""
        reason = self._limit(values) or self._jump(values.get(MEAN, math.nan))
        self._steps += 1
        if not reason:
            self._made = False
            return ""
        if self._made or self._steps < SETTLED or now < self._last + self._apart:
            return ""
        self._made, self._last = True, now
        return reason

    def _limit(self, values: Mapping[str, float]) -> str:
        reason = ""
        for name in LIMITED:
            limit, value = BY_NAME[name].alarm, values.get(name, math.nan)
            above = limit is not None and value > limit
            steps = self._above[name]
            steps.append(above)
            if not reason and sum(steps) >= HOLD:
                reason = f"{name} {value:.3g}, above {limit:g} in {sum(steps)} of {len(steps)} steps"
        return reason

    def _jump(self, mean: float) -> str:
        if not math.isfinite(mean):
            return ""
        before = statistics.median(self._before) if len(self._before) >= BEFORE else math.nan
        if mean > max(GROWN * before, LEAST):
            self._row += 1
        else:
            self._row = 0
            self._before.append(mean)
        if self._row < ROW:
            return ""
        return f"{MEAN} {mean:.3g}, {mean / max(before, 1e-12):.0f} times what it was"
