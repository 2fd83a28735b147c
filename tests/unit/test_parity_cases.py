"""Logs of other frameworks whose verdict is known (`data/cases`), imported or in the names of the catalogue."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from console.cli.main import main
from console.parity import report
from console.parity.cause import causes
from console.parity.judge import Comparison, compare
from console.parity.rules import load
from console.parity.runs import Run, Series

CASES = Path(__file__).parent / "data" / "cases"
RULES = load()
MISMATCH = "mismatch/abs_diff_mean"
REWARD, ENTROPY, CLIP = "reward/mean", "policy/entropy", "policy/clip_fraction"

NAMES = {
    "nemo": {
        "train/reward": REWARD, "train/token_mult_prob_error": "mismatch/mult_prob_error",
        "train/gen_kl_error": "mismatch/kl_k3", "train/sampling_importance_ratio": "mismatch/ratio_mean",
    },
    "verl": {
        "critic/score/mean": REWARD, "actor/entropy": ENTROPY, "actor/pg_clipfrac": CLIP,
        "rollout_corr/kl": "mismatch/kl_k1", "rollout_corr/k3_kl": "mismatch/kl_k3",
    },
    "openrlhf": {
        "train/reward": REWARD, "train/vllm_kl": "mismatch/kl_k1", "train/ppo_clip_ratio": CLIP,
        "train/entropy_loss": ENTROPY,
    },
    "openinstruct": {
        "objective/verifiable_reward": REWARD, "debug/vllm_vs_local_logprob_diff_mean": MISMATCH,
        "debug/vllm_vs_local_logprob_diff_max": "mismatch/abs_diff_max", "policy/entropy_avg": ENTROPY,
        "policy/clipfrac_avg": CLIP,
    },
    "areal": {
        "ppo_actor/task_reward/avg": REWARD, "ppo_actor/update/behave_imp_weight/avg": "correction/weight_mean",
        "ppo_actor/update/entropy/avg": ENTROPY, "ppo_actor/update/clip_ratio/avg": CLIP,
    },
    "slime": {
        "rollout/raw_reward": REWARD, "train/train_rollout_logprob_abs_diff": MISMATCH,
        "train/entropy_loss": ENTROPY, "train/pg_clipfrac": CLIP,
    },
}  # fmt: skip
"""By framework, its names and the catalogue's. `train/entropy_loss` and others as in each framework's own code."""


def rows(case: str, name: str) -> list[dict[str, Any]]:
    lines = (CASES / case / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def as_run(name: str, table: list[dict[str, Any]], names: dict[str, str]) -> Run:
    """Rows as a run; a name that a row lacks, or has as null, is missing at its step."""
    series = {}
    for own, known in names.items():
        there = [row for row in table if row.get(own) is not None]
        if there:
            steps, values = [row["step"] for row in there], [row[own] for row in there]
            series[known] = Series(np.array(steps, np.int64), np.array(values, np.float64))
    return Run(name, series)


def imported(root: Path, case: str, name: str) -> str:
    assert main(["import", str(CASES / case / f"{name}.jsonl"), "--as", name]) == 0
    return next(path.name for path in root.iterdir() if path.name.startswith(f"{name}-"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path))
    return tmp_path


def text(comparison: Comparison) -> str:
    return "\n".join(report.lines(comparison, causes(comparison)))


# -- vime 64


def test_a_mismatch_that_rises_fails_since_the_step_it_left(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference, run = imported(root, "vime-64", "vllm"), imported(root, "vime-64", "sglang")
    capsys.readouterr()
    assert main(["compare", reference, run]) == 5
    assert capsys.readouterr().out.splitlines()[-1] == "FAIL: mismatch mean|Δlogp| out of the band since step 12"


def test_a_short_burst_is_named_and_the_line_agrees_with_its_verdict(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, run = imported(root, "vime-64", "ref-1695"), imported(root, "vime-64", "resume-1695")
    capsys.readouterr()
    assert main(["compare", reference, run]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("PASS; a burst of mismatch mean|Δlogp| at steps 20 to 22; not recorded, not judged: ")
    assert "mismatch mean|Δlogp|: a burst at steps 20 to 22, 3 steps above the band, as far as 2; too short" in "".join(
        lines
    )
    assert main(["compare", reference, run, "--json"]) == 0
    metrics = {one["metric"]: one for one in json.loads(capsys.readouterr().out)["metrics"]}
    found = metrics[MISMATCH]
    assert found["bursts"] == [{"first": 20, "last": 22, "steps": 3, "peak": 2.0, "side": "above"}]
    assert abs(found["distance"]) < 1
    assert found["value"] < RULES.metrics[MISMATCH].limit
    assert metrics[REWARD]["bursts"] == []


@pytest.mark.parametrize("length", range(1, 16))
def test_a_burst_of_any_length_is_named_or_fails(length: int) -> None:
    table = rows("vime-64", "ref-1695")
    run = [dict(row) for row in rows("vime-64", "resume-1695")]
    for row in run:
        row["train/train_rollout_logprob_abs_diff"] = 2.0 if 25 <= row["step"] < 25 + length else 0.011
    comparison = compare(
        [as_run("ref", table, NAMES["slime"])], as_run("run", run, NAMES["slime"]), RULES.only([MISMATCH])
    )
    found = comparison.metrics[0]
    if found.verdict == "fail":
        assert abs(found.distance) > 1
        assert length > 3
    else:
        assert found.verdict == "pass"
        assert [(one.first, one.last) for one in found.bursts] == [(25, 24 + length)]
        assert abs(found.distance) <= 1
        assert "a burst" in report.closing(comparison)
    assert (found.verdict == "fail") == (length >= 5)


# -- NaN, null, absent


def test_a_mismatch_that_is_nan_from_a_step_on_fails(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference, run = imported(root, "nan-logprobs", "ref"), imported(root, "nan-logprobs", "nan")
    capsys.readouterr()
    assert main(["compare", reference, run]) == 5
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "FAIL: mismatch mean|Δlogp| out of the band since step 30"
    assert "mismatch mean|Δlogp|: no number from step 30 on" in out


def lose(change: Callable[[dict[str, Any], str], None], steps: range) -> list[dict[str, Any]]:
    table = [dict(row) for row in rows("nan-logprobs", "ref")]
    for row in table:
        if row["step"] in steps:
            change(row, "mismatch/abs_diff_mean")
    return table


def null(row: dict[str, Any], name: str) -> None:
    row[name] = None


def absent(row: dict[str, Any], name: str) -> None:
    del row[name]


def nan(row: dict[str, Any], name: str) -> None:
    row[name] = float("nan")


OWN = {
    "reward/all/mean": REWARD, "entropy/all/mean": ENTROPY, MISMATCH: MISMATCH, CLIP: CLIP,
    "policy/kl_new_old": "policy/kl_new_old",
}  # fmt: skip


@pytest.mark.parametrize("steps", [range(30, 60), range(52, 60), range(20, 35), range(15), range(25, 50)])
@pytest.mark.parametrize("change", [null, absent, nan])
@pytest.mark.parametrize("where", ["run", "reference"])
def test_a_metric_that_stops_or_has_a_hole_never_passes(
    change: Callable[[dict[str, Any], str], None], steps: range, where: str
) -> None:
    whole = as_run("whole", rows("nan-logprobs", "ref"), OWN)
    lost = as_run("lost", lose(change, steps), OWN)
    references, run = ([whole], lost) if where == "run" else ([lost], whole)
    comparison = compare(references, run, RULES)
    found = next(one for one in comparison.metrics if one.metric == MISMATCH)
    assert found.verdict in (("fail", "not enough data") if change is nan and where == "run" else ("not enough data",))
    assert comparison.verdict == found.verdict
    # Which steps it is about stands in the text.
    words = text(comparison)
    assert str(steps[0]) in found.reason or f"after step {steps[0] - 1}" in found.reason
    assert report.steps_of(found) in words
    assert found.reason in words


@pytest.mark.parametrize("where", ["both", "run"])
def test_a_metric_that_stops_in_all_runs_while_others_go_on_never_passes(where: str) -> None:
    lost = as_run("lost", lose(absent, range(30, 60)), OWN)
    reference = as_run("lost-too", lose(absent, range(30, 60)), OWN) if where == "both" else lost
    comparison = compare([reference], lost, RULES)
    found = next(one for one in comparison.metrics if one.metric == MISMATCH)
    assert found.verdict == "not enough data"
    assert found.reason == f"no run has {MISMATCH} after step 29, they go on to step 59"


def test_a_run_that_ends_earlier_is_judged_as_far_as_it_goes_and_says_so() -> None:
    whole = as_run("whole", rows("nan-logprobs", "ref"), OWN)
    young = as_run("young", rows("nan-logprobs", "ref")[:41], OWN)
    comparison = compare([whole], young, RULES)
    assert comparison.verdict == "pass"
    assert "0-40" in text(comparison)


# -- the mismatch under other names


@pytest.mark.parametrize("framework", NAMES)
def test_a_mismatch_that_explodes_fails_under_every_name(framework: str) -> None:
    table = rows("alarm-other-names", framework)
    calm = [{**table[0], "step": row["step"]} for row in table]
    reference, run = (as_run(name, own, NAMES[framework]) for name, own in (("calm", calm), ("run", table)))
    found = compare([reference], run, RULES)
    assert found.verdict == "fail"
    failed = [one for one in found.metrics if one.verdict == "fail"]
    assert all(RULES.metrics[one.metric].backend for one in failed)
    assert {one.first for one in failed} == {10}
    assert all(cause.kind == "mismatch" for cause in causes(found).values())
    again = compare([reference], as_run("again", calm, NAMES[framework]), RULES)
    assert again.verdict == "pass"
    assert "not recorded, not judged" in report.closing(again), "no framework logs all of it"


@pytest.mark.parametrize("framework", ["nemo", "verl"])
def test_it_does_so_through_the_importer(root: Path, framework: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = rows("alarm-other-names", framework)
    calm = root.parent / f"{root.name}-calm.jsonl"
    calm.write_text("\n".join(json.dumps({**table[0], "step": row["step"]}) for row in table), encoding="utf-8")
    assert main(["import", str(calm), "--as", "calm"]) == 0
    run = imported(root, "alarm-other-names", framework)
    reference = next(path.name for path in root.iterdir() if path.name.startswith("calm-"))
    capsys.readouterr()
    assert main(["compare", reference, run]) == 5
    assert " out of the band since step 10" in capsys.readouterr().out.splitlines()[-1]
    assert main(["compare", reference, reference]) == 0


def test_without_any_mismatch_the_backend_was_not_compared() -> None:
    names = {own: known for own, known in OWN.items() if known != MISMATCH}
    runs = [as_run(name, rows("nan-logprobs", "ref"), names) for name in ("one", "two")]
    comparison = compare(runs[:1], runs[1], RULES)
    assert comparison.verdict == "not enough data"
    assert report.closing(comparison).startswith("NOT ENOUGH DATA: mismatch: not recorded under any name")


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("mismatch/kl_k3", (4e-4, 0.02)), ("mismatch/kl_k1", (1e-4, 0.2)), ("mismatch/kl_k1", (1e-4, -0.2)),
        ("mismatch/mult_prob_error", (1.01, 1.08)), ("mismatch/ratio_mean", (1.0, 3.0)),
        ("mismatch/ratio_mean", (1.0, 3e-7)), ("mismatch/abs_diff_p99", (0.05, 1.0)),
        ("mismatch/abs_diff_max", (0.5, 20.0)), ("correction/weight_mean", (1.0, 4.0)),
        ("correction/weight_mean", (1.0, 0.1)),
    ],
)  # fmt: skip
def test_every_name_of_the_mismatch_fails_and_passes_by_itself(metric: str, values: tuple[float, float]) -> None:
    random = np.random.default_rng(3)

    def run(level: float) -> Run:
        noise = 1 + 0.05 * random.normal(size=80)
        return Run("run", {metric: Series(np.arange(80), level * noise if abs(level) < 0.5 else level + 0.0 * noise)})

    good, bad = values
    rules = RULES.only([metric])
    assert compare([run(good)], run(good), rules).verdict == "pass"
    assert compare([run(good)], run(bad), rules).verdict == "fail"
    if RULES.metrics[metric].limit is not None:
        assert compare([run(bad)], run(bad), rules).verdict == "fail", "a limit holds whatever the reference does"
