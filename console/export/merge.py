"""Reports put together by trainer step. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from console.export.numbers import Floats, Ints, Numbers


class Merged(NamedTuple):
    """One row a trainer step, ascending, with `step`, `version` and `time` (Unix s), each of shape (rows,).

    Its numbers are those of `reports`, places in the Numbers that it was made of, in the order in which later ones win;
    `row`, ascending, is the row of each, both of shape (reports,).
    """

    reports: Ints
    row: Ints
    step: Ints
    version: Ints
    time: Floats


def rising(steps: Ints, last: int | None = None) -> bool:
    """Whether the reports are one a step, ascending, above the step `last`."""
    return bool((np.diff(steps) > 0).all()) and (last is None or not len(steps) or int(steps[0]) > last)


def merged(numbers: Numbers) -> Merged:
    """One row a trainer step, ascending, of all the reports of a run.

    Frames of the same step are merged; the later value of a name wins. Where a producer returns to a step before its
    newest and sends a name again, its run was resumed from a checkpoint: from there on its earlier reports of that step
    are dropped as a whole, so that no row mixes two lives of the run. (A late number under a name that the step does
    not have yet is added to its row.)
    """
    every = np.arange(numbers.reports)
    if rising(numbers.step):
        return Merged(every, every, numbers.step, numbers.version, numbers.time)
    steps, step_of = np.unique(numbers.step, return_inverse=True)
    _, source = np.unique(step_of.ravel() * (int(numbers.producer.max()) + 1) + numbers.producer, return_inverse=True)
    source = source.ravel()
    newest = np.zeros(numbers.reports, np.int64)
    newest[source] = every  # of the same source the last one stays
    life = np.array(_lives(numbers), np.int64)
    kept = np.flatnonzero(life == life[newest[source]])
    # The producer that reported a step last comes last, so its time and version win.
    order = kept[np.lexsort((numbers.seq[kept], numbers.seq[newest[source]][kept], numbers.step[kept]))]
    row = step_of.ravel()[order]
    last = np.zeros(len(steps), np.int64)
    last[row] = order
    return Merged(order, row, steps, numbers.version[last], numbers.time[last])


def _lives(numbers: Numbers) -> Sequence[int]:
    """For each report, how often its producer had been resumed by then."""
    newest: dict[int, int] = {}
    life: dict[int, int] = {}
    reported: dict[tuple[int, int], _Reported] = {}
    lives = []
    for at, (producer, step) in enumerate(zip(numbers.producer.tolist(), numbers.step.tolist(), strict=True)):
        before = reported.get((producer, step))
        if step < newest.get(producer, step) and before is not None and before.has_name_of(at, numbers):
            life[producer] = life.get(producer, 0) + 1
            newest[producer] = step
        newest[producer] = max(step, newest.get(producer, step))
        now = life.get(producer, 0)
        if before is None or before.life != now:
            before = reported[producer, step] = _Reported(now)
        before.waiting.append(at)
        lives.append(now)
    return lives


class _Reported:
    """A producer's reports of one step in one life; the set of their names is made when it is asked for."""

    __slots__ = ("_names", "life", "waiting")

    def __init__(self, life: int) -> None:
        self.life = life
        self.waiting: list[int] = []
        """Reports whose names are not in the set yet."""
        self._names: set[int] = set()

    def has_name_of(self, at: int, numbers: Numbers) -> bool:
        """Whether a report has a name that one of these has, too."""
        for other in self.waiting:
            self._names |= _names(numbers, other)
        self.waiting.clear()
        return not _names(numbers, at).isdisjoint(self._names)


def _names(numbers: Numbers, at: int) -> frozenset[int]:
    begin = int(numbers.begin[at])
    return _set(numbers.codes[begin : begin + int(numbers.size[at])].tobytes())


@lru_cache(maxsize=64)
def _set(codes: bytes) -> frozenset[int]:
    """Codes as a set, without -1 for a name that does not count; a run that is resumed has few different ones."""
    return frozenset(np.frombuffer(codes, np.int32).tolist()) - {-1}
