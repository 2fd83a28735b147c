"""What trainers print: lines of verl and slime and the Trainer's dictionaries, with all that stands around them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from console.importing.import_run import import_log, read
from console.importing.rows import LogImportError

PREFIXES = [
    "", "(TaskRunner pid=4242) ", "\x1b[36m(TaskRunner pid=4242, ip=10.0.0.1)\x1b[0m ",
    "2026-01-01 00:00:00,000 INFO x:1 - ", "[2026-01-01 00:00:00] model.py:99 - ",
    "Training:  10%|#   | 4/40 [00:01<00:09,  1.0it/s]\r",
]  # fmt: skip
SUFFIXES = ["", " ", "\r", " [repeated 2x across cluster] (Ray deduplicates logs by default.)"]


def values(path: Path) -> dict[int, dict[str, float]]:
    return {row.step: row.values for row in read(path).rows}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["train.log", "train.txt", "slurm-1.out", "train.err", "train"])
def test_lines_of_verl(tmp_path: Path, prefix: str, suffix: str, name: str) -> None:
    path = tmp_path / name
    lines = [
        f"{prefix}step:{step} - actor/entropy:{step / 4} - actor/lr:np.float64(2e-06) - actor/ppo_kl:-8e-06 -{suffix}"
        for step in (1, 2)
    ]
    path.write_text("hello\n" + "\n".join(lines) + "\nTraining Progress: done\n")
    assert values(path) == {
        step: {"actor/entropy": step / 4, "actor/lr": 2e-6, "actor/ppo_kl": -8e-6} for step in (1, 2)
    }


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        ("0.5", 0.5), ("-8e-06", -8e-6), ("np.float64(0.13)", 0.13), ("np.int64(3)", 3.0), ("np.float32(-1e-3)", -1e-3),
        ("tensor(0.5)", 0.5), ("tensor(0.5, device='cuda:0')", 0.5), ("nan", math.nan), ("-inf", -math.inf), ("7", 7.0),
    ],
)  # fmt: skip
def test_numbers_as_they_are_printed(tmp_path: Path, printed: str, value: float) -> None:
    for line in (f"step:1 - actor/entropy:{printed} - a:1", f"step 1: {{'actor/entropy': {printed}, 'a': 1}}"):
        path = tmp_path / "train.log"
        path.write_text(line + "\n")
        (row,) = read(path).rows
        assert row.values == {"actor/entropy": pytest.approx(value, nan_ok=True), "a": 1.0}


def test_what_verl_prints_that_is_no_number_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text(
        "step:1 - actor/entropy:0.5 - val/best@4:mean:0.25 - note:abc\nstep:2 - val-core/x/acc/mean@1:0.5\n"
    )
    log = read(path)
    assert [row.values for row in log.rows] == [
        {"actor/entropy": 0.5, "val/best@4:mean": 0.25}, {"val-core/x/acc/mean@1": 0.5},
    ]  # fmt: skip
    assert log.left.lines() == ["values that are no single number: 1 (note)"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_lines_of_slime_have_the_step_of_their_kind(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "train.log"
    lines = []
    for rollout in range(3):
        lines.append(f"rollout {rollout}: {{'rollout/raw_reward': {rollout / 4}, 'rollout/response_lengths': 10.0}}")
        lines.append(f"perf {rollout}: {{'perf/update_weights_time': 1.5}}")
        for half in range(2):
            step = 2 * rollout + half
            lines.append(f"step {step}: {{'train/entropy_loss': {step / 8}, 'train/kl': nan, 'train/step': {step}}}")
        lines.append(f"eval {rollout}: {{'eval/aime': 0.5}}")
    path.write_text("".join(f"{prefix}{line}\n" for line in lines))
    log = read(path)
    assert log.kind == "console log of slime"
    found = {name: [row.step for row in log.rows if name in row.values] for name in log.names()}
    assert found["rollout/raw_reward"] == found["perf/update_weights_time"] == found["eval/aime"] == [0, 1, 2]
    assert found["train/entropy_loss"] == found["train/kl"] == list(range(6))
    made = import_log(path, tmp_path / "runs", "slime")
    assert made.labels["reward/mean"] == "by rollout/step"
    assert made.labels["policy/entropy"] == "sequence mean, by train/step"


def lines_of_trl(text: bool) -> list[str]:
    """Three reports, an evaluation and the summary, with numbers as Transformers 4 or (`text`) 5 prints them."""
    shown = (lambda value: f"{value:.4g}") if text else (lambda value: value)
    reports: list[dict[str, object]] = [
        {
            "loss": shown(0.5),
            "reward": shown(at / 4),
            "kl": shown(0.001),
            "reward_std": shown(0.1),
            "epoch": shown(at / 10),
        }
        for at in range(1, 4)
    ]
    return [
        *(str(report) for report in reports),
        str({"eval_loss": shown(0.25), "eval_reward": shown(0.5), "epoch": shown(0.3)}),
        str({"train_runtime": shown(12.5), "train_loss": shown(0.5), "epoch": shown(0.3)}),
    ]


@pytest.mark.parametrize("text", [False, True])
def test_dictionaries_of_the_trainer_are_counted(tmp_path: Path, text: bool) -> None:
    path = tmp_path / "train.log"
    path.write_text("Loading\n{'config': 1}\n" + "\n".join(lines_of_trl(text)) + "\n")
    log = read(path)
    assert [row.step for row in log.rows] == [1, 2, 3]
    assert [row.values["reward"] for row in log.rows] == [0.25, 0.5, 0.75]
    assert (log.rows[2].values["eval_reward"], log.rows[2].values["train_runtime"]) == (0.5, 12.5)
    assert any("have no step, so that their lines are counted" in note for note in log.notes)
    assert import_log(path, tmp_path / "runs", "trl").mapped["kl"] == "policy/kl_ref"


def test_dictionaries_beside_a_progress_bar_have_its_steps(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    bars = [f"\r {at:3}%|##| {at}/40 [00:0{at % 10}<01:00,  1.00s/it]" for at in range(1, 41)]
    text = (
        "".join(bars[:10])
        + "\r\n{'loss': 0.5, 'reward': 0.25}\n"
        + "".join(bars[10:20])
        + "\n{'loss': 0.5, 'reward': 0.5}\n"
    )
    path.write_text(text)
    log = read(path)
    assert {row.step: row.values["reward"] for row in log.rows} == {10: 0.25, 20: 0.5}
    assert any("the steps are those of the progress bar" in note for note in log.notes)


@pytest.mark.parametrize("axis", ["step", "global_step", "current_steps", "train/global_step", "global_step/max_steps"])
def test_printed_dictionaries_with_a_step(tmp_path: Path, axis: str) -> None:
    rows = [{axis: f"{at}/40" if "max" in axis else at, "reward": at / 4, "note": None, "on": True} for at in (5, 10)]
    for name, lines in (("a.log", [str(row) for row in rows]), ("b.log", [json.dumps(row) for row in rows])):
        (tmp_path / name).write_text("".join(f"[rank0] {line}\n" for line in lines))
        found = values(tmp_path / name)
        assert {step: row["reward"] for step, row in found.items()} == {5: 1.25, 10: 2.5}


@pytest.mark.parametrize(
    "text",
    ["", "hello\n", "{'lr': 0.1}\n", "step: 1 loss 0.5\n", "{" * 5000 + "}" * 5000, "\x00\xff", "{'a': [1, 2]}\n"],
)
def test_a_log_without_metrics_says_what_is_read_and_which_logger_to_switch_on(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.log"
    path.write_text(text)
    with pytest.raises(LogImportError, match=r"no metrics in it: .*verl: trainer.logger=\[file\]") as caught:
        read(path)
    assert "\n" not in str(caught.value)
