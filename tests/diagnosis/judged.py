"""From recorded runs to parts with labels, and from these to counted likelihoods."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from console.diagnosis.facts import Dtype, Facts
from console.diagnosis.instruments.catalogue import PASSIVE
from console.diagnosis.likelihoods import Calibrated
from console.diagnosis.model import NONE
from console.diagnosis.parts import Part, split
from console.diagnosis.watch import Watch
from driftline.frames import Tokens, decode
from tests.diagnosis.corpus import Recorded

SMOOTHING: Final = 0.4
LOCAL: Final = {"placeholder-zero": "last", "in-flight-kv": "seam"}


class Labelled(NamedTuple):
    """A part of a run and the cause that acts on it."""

    cause: str
    part: Part
    visible: bool


def facts(run: Recorded) -> Facts:
    """What the run said of itself."""
    dtype: Dtype = "bfloat16" if run.dtype == "bfloat16" else "float32"
    newest = run.values[-16:]
    return Facts(
        temperature=run.temperature,
        dtype=dtype,
        staleness=float(np.mean([one["staleness/abs_diff_mean"] for one in newest])),
        lag=float(np.mean([one["async/version_lag_mean"] for one in newest])),
    )


def watched(run: Recorded) -> Watch:
    """A watch that has seen all of its frames."""
    watch = Watch()
    for body in run.frames:
        frame = decode(body)
        assert isinstance(frame, Tokens)
        watch.feed(frame)
    return watch


def label(run: Recorded) -> Iterator[Labelled]:
    """The parts of a run with one fault or none, each with its cause."""
    known = facts(run)
    parts = split(watched(run).columns, known)
    if not run.faults:
        yield from (Labelled(NONE, part, False) for part in parts)
        return
    name, _, engine, _ = run.faults[0]
    wanted = LOCAL.get(name, "engine" if engine >= 0 else "lag" if name == "lag" else "rest")
    target = next((part for part in parts if part.name == wanted), parts[-1])
    visible = name == "lag" or target.view.mean > known.floor[0]
    yield Labelled(name, target, visible)
    if target is not parts[-1] and wanted == target.name:
        yield Labelled(NONE, parts[-1], False)


def count(runs: Iterable[Recorded], temper: float) -> Calibrated:
    """Likelihoods counted over runs; parts in which nothing is visible are not counted for their cause."""
    seen: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    parts: Counter[str] = Counter()
    for run in runs:
        for cause, part, visible in label(run):
            if cause != NONE and not visible:
                continue
            parts[cause] += 1
            for one in part.readings:
                seen[cause][one.instrument][one.outcome] += 1
    table = {
        cause: {
            one.name: {
                outcome: round(
                    (seen[cause][one.name][outcome] + SMOOTHING)
                    / (seen[cause][one.name].total() + SMOOTHING * len(one.outcomes)),
                    4,
                )
                for outcome in one.outcomes
            }
            for one in PASSIVE
        }
        for cause in sorted(parts)
    }
    return Calibrated(table, dict(sorted(parts.items())), temper)
