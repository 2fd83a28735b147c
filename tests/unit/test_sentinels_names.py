"""A mismatch that explodes is found under every framework's name for it: one log each, from step 10 on."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.importing.import_run import import_log
from tests.unit.test_cli import driftline

CASES = Path(__file__).parent / "data" / "cases" / "alarm-other-names"
RAISED_BY = {
    "areal": "mismatch-k1",
    "nemo": "mismatch-error",
    "openinstruct": "mismatch-limit",
    "openrlhf": "mismatch-k1",
    "slime": "mismatch-limit",
    "verl": "mismatch-k3",
}


def test_every_case_is_tried() -> None:
    assert {path.stem for path in CASES.iterdir()} == set(RAISED_BY)


@pytest.mark.parametrize("case", RAISED_BY)
def test_watch_ends_with_an_alarm_at_the_step_where_it_begins(tmp_path: Path, case: str) -> None:
    report = import_log(CASES / f"{case}.jsonl", tmp_path / "runs", case)
    done = driftline("watch", report.run, "--exit-code", cwd=tmp_path)
    (line,) = done.stdout.splitlines()
    assert f"!! {RAISED_BY[case]} at step 10: " in line, "and nothing before, nor a second time for another name"
    assert done.returncode == 7


HEALTHY = '{{"step": {step}, "critic/score/mean": 0.3, "actor/entropy": 0.5, "rollout_corr/kl": {value}}}\n'


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("null", "metric-missing at step 30: mismatch KL (k1, signed) is missing; its last number is of step 29"),
        ("NaN", "mismatch-k1 at step 30: mismatch KL (k1, signed) nan, not a number"),
        ('"NaN"', "mismatch-k1 at step 30: mismatch KL (k1, signed) nan, not a number"),
        ("Infinity", "mismatch-k1 at step 30: mismatch KL (k1, signed) inf, above its limit 0.1"),
        ("", "metric-missing at step 30: mismatch KL (k1, signed) is missing; its last number is of step 29"),
    ],
)
def test_a_mismatch_that_ends_before_the_run_is_an_alarm(tmp_path: Path, after: str, said: str) -> None:
    log = tmp_path / "log.jsonl"
    with log.open("w") as file:
        for step in range(60):
            line = HEALTHY.format(step=step, value="0.0003" if step < 30 else after or "0.0")
            file.write(line if after or step < 30 else line.replace(', "rollout_corr/kl": 0.0', ""))
    report = import_log(log, tmp_path / "runs", "ends")
    done = driftline("watch", report.run, "--exit-code", cwd=tmp_path)
    (line,) = done.stdout.splitlines()
    assert said in line
    assert done.returncode == 7


def test_a_largest_token_above_its_limit_is_an_alarm_only_where_nothing_better_is_reported(tmp_path: Path) -> None:
    for mean, code in ((', "policy/rollout_train_logprobs_abs_diff_mean": 0.01', 0), ("", 7)):
        log = tmp_path / "log.jsonl"
        with log.open("w") as file:
            for step in range(60):
                file.write(f'{{"step": {step}, "policy/rollout_train_logprobs_abs_diff_max": 4.0{mean}}}\n')
        report = import_log(log, tmp_path / "runs", "most")
        assert driftline("watch", report.run, "--exit-code", cwd=tmp_path).returncode == code
