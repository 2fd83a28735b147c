"""Logs of odd values under odd names: an import is a run that can be read, or one sentence; never another exception."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from console.export import frame
from console.importing.import_run import import_log
from console.importing.rows import LogImportError
from console.store.load import load
from driftline.rundir import find
from tests.unit.import_logs import event, history, metric, wandb_file

NAMES = [
    "step", "_step", "global_step", "train/step", "rollout/step", "timing/step", "time", "timestamp", "_timestamp",
    "version", "seq", "policy_version", "reward", "kl", "train/kl", "ratio", "entropy", "epoch", "a", "", "x" * 500,
    "a\nb", "\ud800",
]  # fmt: skip
VALUES: list[Any] = [
    0, 1, 2, 3, -1, 1.5, 1e308, -1e308, math.nan, math.inf, 10**400, 2**63, 2**53 + 1, "1", "12/40", "nan", "abc",
    "\ud800", None, True, [1], {"a": 1}, {"_type": "x"}, {"step": 3}, {"a": {"b": {"c": [1]}}}, "2026-01-01", 1.79e18,
    1.79e9,
]  # fmt: skip
KINDS = ["log.jsonl", "trainer_state.json", "run-x.wandb", "train.log", "log.csv", "events.out.tfevents.1"]


def content(kind: str, dice: random.Random) -> bytes:
    """A log of a kind with some entries."""
    rows = [
        {dice.choice(NAMES): dice.choice(VALUES) for _ in range(dice.randrange(6))} for _ in range(dice.randrange(1, 8))
    ]
    if kind == "log.jsonl":
        text = "\n".join(map(json.dumps, rows))
    elif kind == "trainer_state.json":
        text = json.dumps({"log_history": rows})
    elif kind == "train.log":
        lines = [dice.choice(["", "step 1: ", "step:1 - a:"]) + repr(row) for row in rows]
        text = "\n".join([*lines, dice.choice(["", "step:2 - reward:0.5"])])
    elif kind == "log.csv":
        cells = [[str(dice.choice(VALUES)) for _ in range(dice.randrange(len(NAMES) + 3))] for _ in rows]
        text = "\n".join(",".join(line) for line in [[name.replace("\n", " ") for name in NAMES], *cells])
    elif kind == "run-x.wandb":
        calls = (history(dice.choice([None, 1, 2, 3]), row) for row in rows)
        return wandb_file([metric(dice.choice(["a", "*"]), dice.choice(["step", "never"])), *calls])
    else:
        tags, steps, times = (
            ["a", "reward", "step", "kl", ""],
            [0, 1, -1, 2**62],
            [0, 1e308, math.nan, 1.79e9, 1.79e18, -1],
        )
        events = (event(dice.choice(steps), dice.choice(tags), dice.random(), dice.choice(times)) for _ in rows)
        return b"".join(events)[: dice.randrange(400)]
    return text.encode("utf-8", "replace")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_odd_logs(tmp_path: Path, kind: str, seed: int) -> None:
    dice = random.Random(f"{kind} {seed}")
    read, refusals = 0, []
    for at in range(12):
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / kind).write_bytes(content(kind, dice))
        path = folder if dice.random() < 0.3 else folder / kind
        try:
            made = import_log(path, tmp_path / "runs", "odd", dice.choice([None, None, "a", "step"]))
        except LogImportError as error:
            refusals.append(str(error))
            continue
        read += 1
        run = find(made.path)
        assert frame(run, "metrics").height == made.steps
        assert load(run).model.head > 0
    assert all(refusal and "\n" not in refusal for refusal in refusals)
    assert read, "not every one of them is refused"
