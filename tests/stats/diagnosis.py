"""How often the diagnosis is right, over simulated runs that the calibration has not seen (tests/diagnosis).

`RUNS=40 HEALTHY=10000 make stats` makes it as large as docs/diagnosis.md states it; the default takes some minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import torch

from console.diagnosis.likelihoods import calibrated
from tests.diagnosis.__main__ import Seen, answer, judge, table
from tests.diagnosis.corpus import FOREIGN, KNOWN, PAIRS, STEPS, record

SEED: Final = 50_000
"""Calibration uses seeds below 1,000."""
RUNS: Final = int(os.environ.get("RUNS", "4"))
HEALTHY: Final = int(os.environ.get("HEALTHY", "280"))


def tables() -> Iterator[str]:
    """The confusion table, and false alarms over healthy steps."""
    torch.set_num_threads(1)
    yield "\n".join(
        [f"cause                  runs right  otherwise   (seeds {SEED} to {SEED + RUNS - 1})", *confusions(RUNS)]
    )
    steps, alarms = healthy(HEALTHY)
    yield f"healthy: {steps} steps, a diagnosis after each run of {STEPS}: {alarms} with a cause or an unknown one"


def confusions(runs: int, names: tuple[str, ...] = (*KNOWN, *PAIRS, *FOREIGN)) -> Iterator[str]:
    """Lines of the confusion table."""
    found, seen = [], Seen()
    for name in sorted(names, key=lambda one: "+" in one):
        for seed in range(SEED, SEED + runs):
            run = record(name.split("+"), seed, wide=False)
            if seen.shows(run, seed):
                found.append((name, answer(judge(run, calibrated()))))
    yield from table(found)
    yield f"left out: {seen.left_out} runs in which a fault moves no logprob of its tokens beyond the floor"


def healthy(steps: int, first: int = SEED) -> tuple[int, int]:
    """Steps of healthy runs, and how many of these runs had a false alarm."""
    runs = -(-steps // STEPS)
    alarms = sum(
        judge(record(["none"], seed, wide=False), calibrated()).verdict not in ("normal", "not enough data")
        for seed in range(first, first + runs)
    )
    return runs * STEPS, alarms
