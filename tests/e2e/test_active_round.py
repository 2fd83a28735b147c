"""An active round in a live run: the real vLLM and the trainer score recorded tokens again, and the run goes on."""

from __future__ import annotations

import pytest

from console.diagnosis import active
from driftline.frames import Ack
from tests.e2e.live_run import LIMIT_S
from tests.e2e.test_run_trainer import CLOSE
from tests.e2e.trained_run import TrainedRun
from trainer.measure.attribution import LAYERS

ENGINE_S = 10.0
"""The bound of a round, in seconds of an engine's time."""
STEPS = 6


@pytest.mark.engine
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_a_round_finds_nothing_in_a_healthy_run_and_raw_logprobs_in_one_that_has_them(live: TrainedRun) -> None:
    trainer = live.trainer
    live.wait(lambda: len(live.steps()) >= 4, trainer, limit=2 * LIMIT_S)
    _finds_nothing(live)
    assert live.command("fix.set", fix="processed-logprobs", value="off").state == "applied"
    live.wait_steps(2, trainer)
    try:
        _finds_raw_logprobs(live)
    finally:
        assert live.command("fix.set", fix="processed-logprobs", value="on").state == "applied"
    live.wait_steps(2, trainer)
    ack = live.command("diagnose", tokens="0")
    assert ack.state == "refused"
    assert "allowed: 1 to" in ack.detail


def _round(live: TrainedRun) -> Ack:
    ack = live.command("diagnose", tokens="96")
    assert ack.state == "applied", ack.detail
    accepted = [one for one in live.frames(Ack) if one.id == ack.id and one.state == "accepted"]
    assert any("requests of one token to each engine" in one.detail for one in accepted)
    assert 0 < float(ack.data["engine-0.seconds"]) < ENGINE_S
    assert sum(float(ack.data[f"share.{layer}"]) for layer in LAYERS) == pytest.approx(float(ack.data["total"]))
    return ack


def _finds_nothing(live: TrainedRun) -> None:
    data = _round(live).data
    outcomes = {one.instrument: one.outcome for one in active.readings(data)}
    assert outcomes == {
        "mode": "processed", "rescored": "nothing", "sampling": "same", "cache": "alike", "weights": "equal",
        "engine again": "repeats", "head": "fits", "remainder": "floor", "trainer again": "repeats",
        "trainer temperature": "same", "old weights": "none", "seam": "no",
    }  # fmt: skip
    assert float(data["total"]) < CLOSE
    assert int(data["engine-0.compared"]) > 10


def _finds_raw_logprobs(live: TrainedRun) -> None:
    figures = _round(live).data
    outcomes = {one.instrument: one.outcome for one in active.readings(figures)}
    assert outcomes["mode"] == "raw"
    assert (outcomes["weights"], outcomes["cache"], outcomes["remainder"]) == ("equal", "alike", "floor")
    found = active.attribution(figures)
    assert found is not None
    assert found.fraction("semantics") == pytest.approx(1.0, abs=0.02)
    # What the round says the switch will change is what it then changes, as far as both can be measured.
    name, trainer = "mismatch/abs_diff_mean", live.trainer
    first, last = live.wait_steps(STEPS, trainer)
    wrong = sum(live.steps()[step][name] for step in range(first + 1, last + 1)) / (last - first)
    share = next(one for one in found.shares if one.layer == "semantics")
    assert share.low * 0.8 < wrong < share.high * 1.2
