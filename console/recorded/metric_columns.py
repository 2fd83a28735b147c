"""Many Metrics frames at once, as columns, from which a console that opens a run fills its series. Pure.

Frames that carry the same names are one `Stretch`; a run has several where some names come only now and then. Together
they represent frames in one order, and a store gets the same result from them as from the frames one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from driftline.catalog.metrics import resolve
from driftline.frames import Metrics, Stamped

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Stretch(NamedTuple):
    """Frames of the same names: places in the order of all frames, ascending, steps and times (s), each of shape (n,).

    `values` are float64 of shape (n,) by canonical name, `labels` those that each of the frames has.
    """

    places: Ints
    steps: Ints
    times: Floats
    values: dict[str, Floats]
    labels: dict[str, str]

    def cut(self, begin: int, end: int) -> Stretch:
        """The frames with places in [begin, end)."""
        part = slice(*np.searchsorted(self.places, (begin, end)).tolist())
        values = {name: column[part] for name, column in self.values.items()}
        return Stretch(self.places[part], self.steps[part], self.times[part], values, self.labels)


class Portion(NamedTuple):
    """Some frames in a row: Metrics as stretches, whose places are the frames' numbers, and all others but tokens.

    `first` and `last` are number and hub time of the first and the last frame of any kind; `damaged` are frames that
    could not be decoded and are not among the others.
    """

    stretches: list[Stretch]
    others: list[Stamped]
    first: tuple[int, float]
    last: tuple[int, float]
    damaged: int = 0


class Column(NamedTuple):
    """One name of some stretches, in the order of the frames."""

    steps: Ints
    values: Floats


def stretches_of_frames(frames: Iterable[tuple[int, Metrics]]) -> list[Stretch]:
    """Frames with their places, as stretches."""
    groups: dict[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], list[tuple[int, Metrics]]] = defaultdict(list)
    for place, frame in frames:
        groups[tuple(frame.values), tuple(frame.labels.items())].append((place, frame))
    return [
        Stretch(
            np.array([place for place, _ in some], np.int64),
            np.array([frame.step for _, frame in some], np.int64),
            np.array([frame.time for _, frame in some], np.float64),
            {resolve(name): np.array([frame.values[name] for _, frame in some], np.float64) for name in names},
            {resolve(name): label for name, label in labels},
        )
        for (names, labels), some in groups.items()
    ]


def in_turn(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The stretches that have frames, in the order of their first ones."""
    return sorted((one for one in stretches if len(one.places)), key=lambda one: int(one.places[0]))


def ascents(stretches: Sequence[Stretch]) -> Iterator[list[Stretch]]:
    """The same frames in parts with ascending steps: where a run goes back to a checkpoint, a new part begins."""
    places, order = _ordered(stretches)
    steps = np.concatenate([one.steps for one in stretches])[order]
    falls = np.flatnonzero(steps[1:] < steps[:-1]) + 1
    if not len(falls):
        yield list(stretches)
        return
    limits = [int(places[0]), *places[falls].tolist(), int(places[-1]) + 1]
    for begin, end in pairwise(limits):
        yield in_turn([one.cut(begin, end) for one in stretches])


def moments(stretches: Sequence[Stretch], rate: str) -> tuple[Ints, Floats, Floats, Bools]:
    """Steps, times and values of the name `rate`, and which have it, of all frames in their order; shapes (n,)."""
    _, order = _ordered(stretches)
    nothing = np.full(max(len(one.steps) for one in stretches), np.nan)
    return (
        np.concatenate([one.steps for one in stretches])[order],
        np.concatenate([one.times for one in stretches])[order],
        np.concatenate([one.values.get(rate, nothing[: len(one.steps)]) for one in stretches])[order],
        np.concatenate([np.full(len(one.steps), rate in one.values) for one in stretches])[order],
    )


def columns(stretches: Sequence[Stretch]) -> dict[str, Column]:
    """Every name of the stretches, in the order in which the names first come."""
    having: dict[str, list[Stretch]] = {}
    for one in stretches:
        for name in one.values:
            having.setdefault(name, []).append(one)
    found = {}
    for name, some in having.items():
        if len(some) == 1:
            found[name] = Column(some[0].steps, some[0].values[name])
        else:
            _, order = _ordered(some)
            steps = np.concatenate([one.steps for one in some])[order]
            found[name] = Column(steps, np.concatenate([one.values[name] for one in some])[order])
    return found


def _ordered(stretches: Sequence[Stretch]) -> tuple[Ints, Ints]:
    """Places of all frames, ascending, and for each the index of its frame in the concatenated stretches."""
    places = np.concatenate([one.places for one in stretches])
    order = np.argsort(places, kind="stable")
    return places[order], order
