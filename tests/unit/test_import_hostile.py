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


ODD_STEPS = [math.inf, -math.inf, math.nan, 1e308, 2**53, -1, 1.5, 10**400, "\ud800"]
FORMS = ("jsonl", "state", "csv", "wandb", "verl", "slime", "dictionaries")


def three_entries(folder: Path, form: str, step: str, odd: object) -> Path:
    """A log whose second of three entries has an odd step; its steps are 1 and 2."""
    rows: list[dict[str, Any]] = [{step: 1, "reward": 0.1}, {step: odd, "reward": 9.0}, {step: 2, "reward": 0.2}]
    lines, name = [], "train.log"
    match form:
        case "jsonl":
            name, lines = "log.jsonl", list(map(json.dumps, rows))
        case "state":
            name, lines = "trainer_state.json", [json.dumps({"log_history": rows})]
        case "csv":
            name, lines = "log.csv", [f"{step},reward", *(f"{row[step]},{row['reward']}" for row in rows)]
        case "verl":
            lines = [f"step:{row[step]} - reward:{row['reward']}" for row in rows]
        case "slime":
            lines = [f"step {row[step]}: {{'reward': {row['reward']}}}" for row in rows]
        case "dictionaries":
            lines = [repr(row) for row in rows]
        case _:
            path = folder / "run-x.wandb"
            path.write_bytes(wandb_file([history(None, row) for row in rows]))
            return path
    path = folder / name
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return path


@pytest.mark.parametrize("odd", ODD_STEPS, ids=lambda odd: ascii(odd)[:8])
@pytest.mark.parametrize("step", ["step", "_step"])
@pytest.mark.parametrize("form", FORMS)
def test_an_entry_of_an_odd_step_is_left_out_and_counted(tmp_path: Path, form: str, step: str, odd: object) -> None:
    if step == "_step" and form in ("verl", "slime", "dictionaries"):
        pytest.skip("W&B's own step is not printed in this form")
    made = import_log(three_entries(tmp_path, form, step, odd), tmp_path / "runs", "odd")
    table = frame(find(made.path), "metrics")
    assert table["step"].to_list() == [1, 2]
    said = [*made.left_out, *(note for note in made.notes if "skipped" in note)]
    assert any(": 1" in line or line.startswith("1 ") for line in said), said
    if "carried" not in said and not any("logged without a step" in note for note in made.notes):
        assert table["reward/mean"].to_list() == [0.1, 0.2]
