"""Token pairs of a step as frames: the numbers of all of them, and the tokens of some sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from console.importing.token_files import TokenStep
from driftline.catalog.naming import STALE
from driftline.frames import Metrics, Tokens
from driftline.pairs import formulas, shown
from driftline.pairs.pairs import UNKNOWN

LABEL = STALE["if async"]
"""The files do not say which weights sampled a token: an asynchronous run's staleness is in the numbers."""


def pair_frames(found: TokenStep, rng: np.random.Generator) -> Iterator[Metrics | Tokens]:
    """The frames of one step; none where it has no pair."""
    pairs = found.pairs
    values = formulas.mismatch(pairs.trainer, pairs.rollout)
    if not values:
        return
    yield Metrics(found.step, UNKNOWN, found.time, values, dict.fromkeys(values, LABEL))
    tokens = shown.frame(pairs, step=found.step, version=UNKNOWN, time=found.time, rng=rng)
    if tokens is not None:
        yield tokens


def by_step(rows: Sequence[Metrics], pairs: Iterator[list[Metrics | Tokens]]) -> Iterator[Metrics | Tokens]:
    """Both in the order of steps, those of a step together. `pairs` ascend, and are taken one by one.

    A step that comes again later would be a resumed run's, by which readers drop what was there before. Where the rows
    go back, pairs belong to the last of their lives: a resumed trainer writes over the files.
    """
    back = max((at for at in range(1, len(rows)) if rows[at].step < rows[at - 1].step), default=0)
    first = rows[back].step if back else 0
    waiting = next(pairs, None)
    for at, row in enumerate(rows):
        while waiting is not None and waiting[0].step < row.step and (at >= back or waiting[0].step < first):
            yield from waiting
            waiting = next(pairs, None)
        yield row
    while waiting is not None:
        yield from waiting
        waiting = next(pairs, None)
