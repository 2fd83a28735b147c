"""The steps of a recorded run by sequence number of its frames. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Timeline(NamedTuple):
    """`seqs` are the numbers of the frames at which a newer step was first reported, `steps` those steps; both ascend.

    `last` is the number of the run's last frame, `begin` and `end` the hub's Unix times of its first and last one.
    """

    seqs: Ints
    steps: Ints
    last: int
    begin: float
    end: float

    @property
    def first_step(self) -> int:
        """The first step that was reported, -1 without one."""
        return int(self.steps[0]) if len(self.steps) else -1

    @property
    def last_step(self) -> int:
        """The newest step that was reported, -1 without one."""
        return int(self.steps[-1]) if len(self.steps) else -1

    def until(self, step: int) -> int:
        """The number of the last frame before the first one of a step newer than `step`."""
        at = int(np.searchsorted(self.steps, step, side="right"))
        return int(self.seqs[at]) - 1 if at < len(self.seqs) else self.last

    def neighbour(self, step: int, count: int) -> int:
        """The step `count` reported steps after `step` (before it if negative), limited to the first and last one."""
        if not len(self.steps):
            return step
        at = int(np.searchsorted(self.steps, step, side="right")) - 1 + count
        return int(self.steps[min(max(at, 0), len(self.steps) - 1)])


def timeline(known: Iterable[tuple[Ints, Ints]], last: int, begin: float, end: float) -> Timeline:
    """Build a timeline from (sequence numbers, steps) of frames that name a step, in any order."""
    parts = list(known)
    if not parts:
        return Timeline(np.empty(0, np.int64), np.empty(0, np.int64), last, begin, end)
    seqs = np.concatenate([seqs for seqs, _ in parts])
    steps = np.concatenate([steps for _, steps in parts])
    order = np.argsort(seqs, kind="stable")
    seqs, steps = seqs[order], np.maximum.accumulate(steps[order])
    newer = np.concatenate(([True], steps[1:] != steps[:-1]))
    return Timeline(seqs[newer], steps[newer], last, begin, end)
