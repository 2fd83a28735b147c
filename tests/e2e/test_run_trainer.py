"""The trainer process as it runs: a hub, the real vLLM in a Ray actor, commands, signals, resumption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from driftline.catalog import metrics
from driftline.frames import Effect, Event, FixState, RunState, Span, Tokens
from driftline.rundir import RunDir
from tests.e2e.live_run import LIMIT_S, REPOSITORY, LiveRun, family, gone
from tests.e2e.trained_run import TrainedRun

PHASES = ("pause", "load", "verify", "reset", "resume", "total")

CLOSE = 1e-4
"""Nats. Two float32 backends on the same weights differ by 1e-6 here."""

LOADING = """
[run]
name = "trainer-test"
[model]
warm_start_batches = 1
[engine]
max_num_seqs = 32
max_model_len = 64
kv_cache_gb = 0.25
"""


@pytest.mark.engine
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_a_live_run_from_start_to_stop_and_on_from_its_checkpoint(live: TrainedRun) -> None:
    # One test, because a real engine takes half a minute to start; the parts follow the life of a run.
    trainer = live.trainer
    live.wait(lambda: len(live.steps()) >= 8, trainer, limit=2 * LIMIT_S)
    _every_number_is_there(live)
    _switching_a_fix_shows_in_the_numbers(live, trainer)
    # The run began with requests waited for; from here on they are kept over an update.
    assert live.command("fix.set", fix="inflight-keep", value="on").state == "applied"
    _what_cannot_be_switched_says_so(live)
    _a_sync_by_hand_leaves_every_engine_on_the_trainer_s_version(live)
    _a_pause_stops_generation_and_training(live, trainer)
    processes = family(trainer)
    trainer.send_signal(signal.SIGTERM)
    assert trainer.wait(90) == 0, live.logs()
    assert gone(processes), "an engine or Ray process outlived the trainer"
    last = live.frames(RunState)[-1]
    assert last.status == "finished"
    assert "stopped after step" in last.detail
    assert last.detail.endswith(", by SIGTERM")
    _the_run_goes_on_from_its_checkpoint(live, last.step)


def _every_number_is_there(live: LiveRun) -> None:
    values = live.steps()[8]
    # With prefix-cache-off no prompt token is looked up, so that there is no hit rate; one engine has no shadow.
    missing = {name for name in metrics.BY_NAME if name not in values and not name.startswith("shadow/")}
    assert missing <= {"engine/prefix_hit_rate"}
    assert not [name for name in values if name.startswith("shadow/")]
    # Nothing is in flight across an update yet: both backends agree as float32 does.
    assert max(live.steps()[step]["mismatch/abs_diff_mean"] for step in range(1, 9)) < CLOSE
    token = live.frames(Tokens)[0]
    assert token.n == len(token.pieces) > 0
    spans = {(span.engine, span.phase) for span in live.frames(Span)}
    assert spans == {("engine-0", phase) for phase in PHASES}
    assert {state.fix for state in live.frames(FixState)} >= {"processed-logprobs", "inflight-keep"}


def _mean(live: LiveRun, name: str, first: int, last: int) -> float:
    steps = live.steps()
    values = [steps[step][name] for step in range(first + 1, last + 1) if name in steps.get(step, {})]
    return sum(values) / len(values)


def _switching_a_fix_shows_in_the_numbers(live: LiveRun, trainer: subprocess.Popen[str]) -> None:
    name = "mismatch/abs_diff_mean"
    # Off, where the facts were measured before.
    assert live.command("fix.set", fix="prefix-cache-off", value="on").state == "applied"
    generation = _fix(live, "processed-logprobs").generation
    live.wait_steps(3, trainer)
    before = _mean(live, name, *live.wait_steps(3, trainer))
    ack = live.command("fix.set", fix="processed-logprobs", value="off")
    assert (ack.state, ack.data) == ("applied", {"engine-0.effective": "off"})
    live.wait_steps(3, trainer)
    wrong = _mean(live, name, *live.wait_steps(3, trainer))
    assert wrong > 5 * before
    assert live.command("fix.set", fix="processed-logprobs", value="on").state == "applied"
    live.wait_steps(3, trainer)
    assert _mean(live, name, *live.wait_steps(3, trainer)) < wrong / 5
    _the_effect_was_measured_unasked(live)
    state = _fix(live, "processed-logprobs")
    assert (state.requested, state.effective, state.generation - generation, state.settled) == ("on", "on", 2, True)
    assert state.engines[0].since_version > 0


def _fix(live: LiveRun, name: str) -> FixState:
    return [state for state in live.frames(FixState) if state.fix == name][-1]


def _the_effect_was_measured_unasked(live: LiveRun) -> None:
    newest = live.frames(Effect)[-1]
    closed = [effect for effect in live.frames(Effect) if effect.id != newest.id][-1]
    assert closed.done
    assert closed.changes == (("processed-logprobs", "on", "off"),)
    mismatch, clip, kl = closed.measures
    assert mismatch.after > 5 * mismatch.before
    assert mismatch.low > 0
    assert (clip.metric, kl.metric) == ("policy/clip_fraction", "policy/kl_new_old")
    assert clip.tokens_after > 0
    # Of so few steps the interval of the KL, which moves by learning as well, may reach over 0; the mismatch's may not.
    assert kl.after > kl.before
    assert kl.low < kl.change < kl.high
    assert kl.change > 0
    assert newest.changes == (("processed-logprobs", "off", "on"),)
    assert newest.measures[0].high < 0
    listed = subprocess.run(
        [sys.executable, "-m", "console.cli", "fix", "list", "--json", "--run", str(live.run.path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    effect = next(fix for fix in json.loads(listed.stdout) if fix["id"] == "processed-logprobs")["effect"]
    assert effect["id"] == newest.id
    assert effect["ci"][1] < 0


def _what_cannot_be_switched_says_so(live: LiveRun) -> None:
    ack = live.command("fix.set", fix="async-scheduling-off", value="off")
    assert ack.state == "failed"
    assert "async-scheduling-off cannot be switched off here" in ack.detail


def _a_sync_by_hand_leaves_every_engine_on_the_trainer_s_version(live: LiveRun) -> None:
    ack = live.command("sync")
    assert ack.state == "applied", ack.detail
    assert ack.data["engine-0.total_s"] >= ack.data["engine-0.load_s"] > 0
    assert ack.data["engine-0.digest"]
    assert ack.data["engine-0.gb_per_s"] > 0
    assert ack.data["engine-0.held_s"] > 0
    events = [event for event in live.frames(Event) if event.kind == "sync.done" and event.data["by"] != "trainer"]
    assert events[-1].data["version"] == ack.data["engine-0.version"]


def _a_pause_stops_generation_and_training(live: LiveRun, trainer: subprocess.Popen[str]) -> None:
    assert live.command("pause").state == "applied"
    assert live.frames(RunState)[-1].lease_until > time.time()
    deadline = time.monotonic() + LIMIT_S
    while True:  # what was under way when the pause came still ends
        before = max(live.steps())
        time.sleep(2)
        if max(live.steps()) == before:
            break
        assert time.monotonic() < deadline, "the run went on while it was paused"
    assert live.command("sync").state == "applied"
    assert max(live.steps()) == before
    assert live.command("resume").state == "applied"
    live.wait_steps(2, trainer)


def _the_run_goes_on_from_its_checkpoint(live: LiveRun, step: int) -> None:
    trainer = live.train("--resume", "--steps", str(step + 3))
    assert trainer.wait(2 * LIMIT_S) == 0, live.logs()
    assert [s for s in sorted(live.steps()) if s > step] == [step + 1, step + 2, step + 3]
    # The first tokens come from the restored weights: without a sync they would be off by all that was learnt.
    assert live.steps()[step + 1]["mismatch/abs_diff_mean"] < CLOSE
    assert live.steps()[step + 1]["policy/kl_ref"] > 0
    assert live.frames(RunState)[-1].detail == f"all {step + 3} steps done"


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_a_stop_while_engines_are_loading_ends_everything(tmp_path: Path) -> None:
    """By a command; a signal at that time is in `test_interrupt.py`."""
    live = LiveRun(tmp_path, LOADING)
    try:
        trainer = live.train()
        live.wait(lambda: any("loading vLLM" in s.detail for s in live.frames(RunState)), trainer)
        started = family(trainer)
        assert live.command("stop").state == "applied"
        assert trainer.wait(90) == 0, live.logs()
        assert gone(started)
        assert live.frames(RunState)[-1].status == "finished"
    finally:
        live.close()


def test_a_model_path_that_is_not_there_fails_before_anything_starts(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.logs.mkdir()
    run.config.write_text('[model]\npath = "/no/such/model"\n')
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "--run-dir", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("trainer: ")]
    assert len(lines) == 1
    assert "/no/such/model is not a Hugging Face model directory" in lines[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [("[run]\nsteps = 0\n", "run.steps: expected `int` >= 1"), ("[rum]\n", "unknown key 'rum'")],
)
def test_a_wrong_configuration_is_exit_code_2(tmp_path: Path, text: str, says: str) -> None:
    RunDir(tmp_path).config.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "--run-dir", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert says in done.stderr
    assert "config.toml" in done.stderr
