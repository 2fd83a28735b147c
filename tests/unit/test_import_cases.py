"""Logs as people have them (tests/unit/data/cases), each doing what the README there says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from console.cli.main import main
from console.errors import ALARM, FAILED, NOT_PARITY
from console.export import frame
from console.importing.import_run import ImportReport, import_log, read
from console.importing.rows import LogImportError
from driftline.rundir import find

CASES = Path(__file__).parent / "data" / "cases"


def imported(case: str, tmp_path: Path, **asked: Any) -> tuple[ImportReport, pl.DataFrame]:
    made = import_log(CASES / case, tmp_path / "runs", "case", **asked)
    return made, frame(find(made.path), "metrics").sort("step")


def measured(table: pl.DataFrame) -> set[str]:
    """The columns with a number: the table has a column for every metric of the catalogue."""
    return {name for name in table.columns if table[name].count()}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_kl_of_an_asynchronous_trl_run_is_of_the_new_policy_and_the_engine(tmp_path: Path) -> None:
    made, table = imported("async-kl/trainer_state.json", tmp_path)
    assert made.mapped["kl"] == "policy/kl_new_old"
    assert {"policy/kl_new_old", "ratio"} <= measured(table)
    assert "policy/kl_ref" not in measured(table)
    assert made.kept == ("ratio",)


def test_two_launches_of_one_output_folder_are_one_run_and_the_later_wins(tmp_path: Path) -> None:
    made, table = imported("hf-two-launches/out", tmp_path)
    assert table["step"].to_list() == list(range(1, 61))
    assert {"reward/mean", "policy/entropy", "mismatch/abs_diff_mean"} <= measured(table)
    launches = [
        read(CASES / "hf-two-launches/out/runs" / name) for name in ("Nov28_10-00-00_host", "Nov28_12-00-00_host")
    ]
    first, second = ({row.step: row.values["train/reward"] for row in log.rows} for log in launches)
    assert max(first) >= min(second) == 21, "the two have steps in common"
    assert dict(zip(table["step"], table["reward/mean"], strict=True)) == first | second
    assert "the log goes back from step 30 to 21: where both have a step, the later counts" in made.notes
    assert "runs/Nov28_10-00-00_host, runs/Nov28_12-00-00_host" in made.notes[0]


@pytest.mark.parametrize("folder", ["hf-two-launches/ck", "hf-two-launches/ck/checkpoint-40"])
def test_a_folder_with_a_trainer_state_is_read(tmp_path: Path, folder: str) -> None:
    made, table = imported(folder, tmp_path)
    assert (made.kind, made.steps) == ("Trainer state", 40)
    assert "mismatch/abs_diff_mean" in measured(table)


def test_a_mismatch_that_becomes_nan_fails_and_raises_an_alarm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path / "runs"))
    ids = [imported(f"nan-logprobs/{name}.jsonl", tmp_path)[0].run for name in ("ref", "nan")]
    assert run(capsys, "compare", *ids)[0] == NOT_PARITY
    assert run(capsys, "watch", ids[1], "--once", "--exit-code")[0] == ALARM


def test_an_importance_ratio_of_trl_says_that_it_is_of_sequences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path / "runs"))
    made, table = imported("trl-5312/trainer_state.json", tmp_path)
    assert made.labels["mismatch/ratio_mean"] == "sequences, truncated"
    assert table["mismatch/ratio_mean"][-1] < 1e-3
    assert run(capsys, "watch", made.run, "--once", "--exit-code")[0] == ALARM


def test_what_the_trainer_prints_is_read_and_its_steps_are_said_to_be_counted(tmp_path: Path) -> None:
    made, printed = imported("trl-5312/train.log", tmp_path)
    _, logged = imported("trl-5312/trainer_state.json", tmp_path)
    assert len(measured(printed)) > 12
    assert printed.drop("time", "version").equals(logged.drop("time", "version"))
    assert any("have no step, so that their lines are counted" in note for note in made.notes)


def test_two_seeds_in_a_tensorboard_folder_are_refused_with_their_names(tmp_path: Path) -> None:
    for folder, names in (("two-runs-tb", "logs/seed1, logs/seed2"), ("two-runs-tb/logs", "seed1, seed2")):
        with pytest.raises(LogImportError, match=f"2 runs in it: {names}; name one by its path, or with --only NAME"):
            imported(folder, tmp_path)
    for asked in ({"only": "seed2"}, {"only": "logs/seed2"}):
        made, table = imported("two-runs-tb", tmp_path, **asked)
        assert (made.steps, {"reward/mean", "policy/entropy"} <= measured(table)) == (40, True)
    own = imported("two-runs-tb/logs/seed2", tmp_path)[1]
    assert own["reward/mean"].equals(table["reward/mean"])


def test_the_console_log_of_verl_is_read(tmp_path: Path) -> None:
    made, table = imported("verl-console/train.log", tmp_path)
    assert (made.kind, made.steps, made.first, made.last) == ("console log of verl", 40, 1, 40)
    assert {
        "policy/entropy", "policy/clip_fraction", "policy/kl_ref", "mismatch/kl_k1", "mismatch/kl_k3", "reward/mean",
    } <= measured(table)  # fmt: skip
    assert table["policy/entropy"].null_count() == 0
    assert table["policy/grad_norm"][0] == 0.13, "printed as np.float64(0.13)"
    assert table["reward/mean"][0] == -0.016
    assert any("lines without metrics were skipped" in note for note in made.notes)


def test_each_metric_of_a_slime_run_in_wandb_keeps_its_own_step(tmp_path: Path) -> None:
    made, table = imported("wandb-step-slime", tmp_path)
    reward = table.filter(pl.col("reward/mean").is_not_null())
    assert reward["step"].to_list() == list(range(40))
    assert reward["reward/mean"].to_list() == pytest.approx([0.3 + 0.005 * at for at in range(40)])
    entropy = table.filter(pl.col("policy/entropy").is_not_null())
    assert entropy["step"].to_list() == list(range(80)), "two optimiser steps a rollout"
    assert made.labels["reward/mean"] == "by rollout/step"
    assert made.labels["policy/entropy"] == "sequence mean, by train/step"
    assert any("8 names by train/step" not in note and "by rollout/step" in note for note in made.notes)


@pytest.mark.parametrize(
    ("step", "reward_at", "entropies"),
    [("rollout/step", {30: 30}, 0), ("train/step", {}, 80), ("_step", {30: 123}, 80)],
)
def test_a_step_asked_for_is_taken_and_what_does_not_have_it_is_counted(
    tmp_path: Path, step: str, reward_at: dict[int, int], entropies: int
) -> None:
    made, table = imported("wandb-step-slime", tmp_path, step=step)
    rewards = table.filter(pl.col("reward/mean").is_not_null())["step"]
    assert {rollout: rewards[rollout] for rollout in reward_at} == reward_at
    assert table["policy/entropy"].count() == entropies
    left = [line for line in made.left_out if "entries without a step" in line]
    assert bool(left) == (step != "_step")


def test_the_download_of_a_chart_of_wandb(tmp_path: Path) -> None:
    made, table = imported("wandb-ui-csv/one.csv", tmp_path)
    assert made.mapped == {"train/reward": "reward/mean"}
    assert table["step"].to_list() == list(range(60))
    assert made.kept == ()
    assert made.left_out == (
        "values of the chart's __MIN and __MAX columns: 120 (train/reward__MIN, train/reward__MAX)",
    )


def test_a_chart_of_two_runs_asks_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path / "runs"))
    path = str(CASES / "wandb-ui-csv/two.csv")
    code, _, said = run(capsys, "import", path, "--as", "x")
    assert code == FAILED
    assert "2 runs in it: grpo-a, grpo-b; choose one with --only NAME" in said
    code, out, _ = run(capsys, "import", path, "--as", "x", "--only", "grpo-b", "--json")
    report = json.loads(out)
    assert (code, report["steps"], report["mapped"]) == (0, 40, {"train/entropy": "policy/entropy"})
    code, _, said = run(capsys, "import", path, "--as", "x", "--only", "grpo-c")
    assert code == FAILED
    assert "there is no run 'grpo-c' in it; it has: grpo-a, grpo-b" in said
