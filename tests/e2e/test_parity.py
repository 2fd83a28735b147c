"""The article's figure in small, on the real vLLM: a reference, and one run that one command repairs while it goes on.

Half the batch of `driftline parity` and half its steps. The reference is a recording of this very configuration
(`parity_reference.py`); both runs begin with the model that the configuration's seed makes. What is asked of the
learning itself (reward, entropy) takes three seeds and 100 steps; here it is what a backend shows at once: the run on
vLLM's defaults fails by a metric and a step that are named, and the same run is back at the reference on the steps
after the switch. While the backend fails, no correction of the objective gets past the gate; once it has passed, one
does, unasked.

The run is one of `driftline run`, repaired by `driftline fix align`, set back by its `--undo`, and ended by ctrl-C.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from statistics import mean
from typing import Any

import pytest
from msgspec.structs import replace

from console.demo.report import MISMATCH, REWARD, REWARD_GAIN, WINDOW
from console.errors import NOT_PARITY, OK
from console.parity import report
from console.parity.cause import causes
from console.parity.experiment import to_toml
from console.parity.judge import Comparison, compare
from console.parity.rules import load as load_rules
from console.parity.runs import Run, read_run
from driftline.catalog.fixes import OFF, ON
from driftline.frames import Metrics, RunState
from tests.e2e.headless_run import HeadlessRun
from tests.e2e.live_run import REPOSITORY, FollowedRun
from tests.e2e.parity_reference import STEPS, SWITCH, planned, recorded
from tests.e2e.test_align import FIXES, align, effective

WATCHED = 6
"""Steps that the command watches what it has set: the switch is over well before the last steps that are judged."""
MORE = 2000
"""The repaired run is stopped, not run to its end: what comes after STEPS is the gate's."""

BACKEND = ("mismatch/abs_diff_mean", "policy/clip_fraction", "policy/kl_new_old")
RULES = load_rules()

pytestmark = [pytest.mark.engine, pytest.mark.alone, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Shown:
    """The two runs as they were judged, and what the command line said: at the gate before and after the switch, and

    of the switch and of its undoing, as documents; `effective` is by fix after either.
    """

    reference: Run
    repaired: Run
    before: subprocess.CompletedProcess[str]
    aligned: dict[str, Any]
    after: subprocess.CompletedProcess[str]
    undone: dict[str, Any]
    effective: tuple[dict[str, str], dict[str, str]]
    corrected: list[Metrics]
    states: list[RunState]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeadlessRun]:
    _, repaired = planned()
    own = replace(repaired.config, run=replace(repaired.config.run, steps=MORE))
    run = HeadlessRun(tmp_path_factory.mktemp("repaired"), to_toml(own))
    yield run
    run.clear()


@pytest.fixture(scope="module")
def shown(run: HeadlessRun, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    reference = recorded(tmp_path_factory.mktemp("reference"))
    with closing(run.follow()) as second:
        second.wait(lambda: max(second.steps(), default=0) >= SWITCH - 4, run.process)
        before = driftline(second, "correction", "set", "tis")
        second.wait(lambda: max(second.steps(), default=0) >= SWITCH, run.process)
        aligned = align(second, "--steps", str(WATCHED))
        home = effective(second)
        # One whose cause has been ruled out was left as it is: the reference has it on.
        for fix in (fix for fix in planned()[1].config.fixes if home[fix] != ON):
            assert second.command("fix.set", fix=fix, value=ON).state == "applied"
        second.wait(lambda: max(second.steps(), default=0) >= STEPS + RULES.window, run.process)
        after = driftline(second, "correction", "set", "icepop", "--wait", "--json", "--take-over")
        second.wait_steps(3, run.process)
        frames, states = second.frames(Metrics), second.frames(RunState)
        runs = read_run(reference), read_run(second.run)
        undone = align(second, "--undo", "--steps", "0")
        return Shown(*runs, before, aligned, after, undone, (home, effective(second)), frames, states)


def driftline(live: FollowedRun, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "console.cli", *arguments, "--run", str(live.run.path)],
        cwd=REPOSITORY, env={**os.environ}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def verdict(comparison: Comparison) -> str:
    """The whole verdict, so that a failure of this test says what was measured."""
    return "\n".join(report.lines(comparison, causes(comparison)))


def test_the_defaults_fail_with_the_metric_and_the_step_named(shown: Shown) -> None:
    found = compare([shown.reference], shown.repaired, RULES, until=SWITCH)
    assert found.verdict == "fail", verdict(found)
    assert report.closing(found).startswith("FAIL: mismatch mean|Δlogp| out of the band since step 1"), verdict(found)
    cause = causes(found)["mismatch/abs_diff_mean"]
    assert cause.kind == "mismatch"
    assert "processed-logprobs" in cause.fixes


def test_the_steps_after_the_switch_pass(shown: Shown) -> None:
    # The command line has kept the switch waiting for a step or two.
    switched = max(change.step for change in shown.repaired.fixes)
    assert SWITCH <= switched < STEPS - 2 * RULES.window
    found = compare([shown.reference], shown.repaired, RULES.only(BACKEND), start=switched + 1, until=STEPS)
    assert found.verdict == "pass", verdict(found)
    ends = found.metrics[0].curve
    assert ends is not None
    # Home at the reference's own size, not merely below the published limit.
    assert ends.run[-1] < RULES.metrics["mismatch/abs_diff_mean"].tolerance, verdict(found)


def test_one_command_has_brought_it_home_and_one_has_set_it_back(shown: Shown) -> None:
    settings = {one["fix"] for one in shown.aligned["settings"]}
    assert "processed-logprobs" in settings
    assert settings <= set(FIXES) | {"inflight-keep"}
    assert all(one["state"] == "applied" for one in shown.aligned["commands"])
    changed = shown.aligned["changes"][MISMATCH]
    assert changed["after"] < changed["before"] / 3
    assert {one["fix"] for one in shown.undone["settings"]} == settings
    home, back = shown.effective
    assert {home[fix] for fix in settings & set(FIXES)} == {ON}
    assert {back[fix] for fix in settings & set(FIXES)} == {OFF}


def test_it_learns_again(shown: Shown) -> None:
    """Half of what the demonstration has to gain (`test_align.py`), which has twice the batch and more steps."""
    reward = {frame.step: frame.values[REWARD] for frame in shown.corrected if REWARD in frame.values}
    wrong, home = (
        mean(reward[step] for step in range(last - WINDOW + 1, last + 1) if step in reward)
        for last in (SWITCH, max(reward))
    )
    print(f"reward {wrong:.2f} before the switch, {home:.2f} in the end")
    assert home - wrong > REWARD_GAIN / 2


def test_the_gate_holds_a_correction_back_while_the_backend_fails(shown: Shown) -> None:
    assert shown.before.returncode == NOT_PARITY, shown.before.stderr
    assert "the backend fails parity: mismatch/abs_diff_mean is" in shown.before.stderr
    assert "--despite-parity" in shown.before.stderr
    assert all(state.correction == "off" for state in shown.states if state.step <= STEPS)


def test_and_lets_it_through_once_the_backend_has_passed(shown: Shown) -> None:
    assert shown.after.returncode == OK, shown.after.stderr
    document = json.loads(shown.after.stdout)
    assert (document["effective"], document["parity"]["verdict"]) == ("icepop", "pass")
    since = document["data"]["since_step"]
    labels = {frame.step: frame.labels["policy/clip_fraction"] for frame in shown.corrected}
    assert labels[since - 1] == "ppo"
    assert labels[since] == "ppo, icepop"
    masked = [frame.values["correction/masked_fraction"] for frame in shown.corrected if frame.step >= since]
    assert masked
    assert all(0 <= share < 0.5 for share in masked)


def test_ctrl_c_leaves_nothing(shown: Shown, run: HeadlessRun) -> None:
    """What is asked of the run has been asked: `shown`."""
    assert shown.states
    run.interrupt()
