"""Commands: what each does to the pool and the loop, and what its sender hears."""

from __future__ import annotations

import queue
import threading
import time

import pytest
import torch

from driftline.config import ModelConfig
from driftline.frames import Command, EngineFix, Event, FixState, RunState, Span
from tests.unit.trainer_fakes import NAME, PolicySampler, RecordingProbe, first_state
from trainer import tiny
from trainer.control import Control
from trainer.fixboard import FixBoard
from trainer.policy import Policy
from trainer.report import Reporter
from trainer.sync import SyncDriver
from trainer.versions import WeightStore


class Rig:
    """A control thread over a policy sampler."""

    def __init__(self, lease: float = 600.0) -> None:
        model = tiny.make_model(ModelConfig(hidden=32, layers=1, heads=2), seed=0, max_length=32)
        policy = Policy(model, temperature=1.0, fp32_head=True, dtype=torch.float32)
        self.probe = RecordingProbe()
        self.pool = PolicySampler(policy, max_tokens=2, eos=1)
        self.report = Reporter(self.probe, first_state())
        store = WeightStore(2)
        store.publish(7, policy.weights())
        self.syncs = SyncDriver(self.pool, store, self.report, timeout=1.0)
        board = FixBoard(self.pool.fix_states(), {}, time=0.0, version=7, step=7)
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.control = Control(self.commands, self.pool, self.syncs, board, self.report, lease=lease)
        self.report.state(status="running", step=7, version=7)
        self._count = 0

    def send(self, verb: str, generation: int = -1, deadline: float = 0.0, **args: str) -> str:
        self._count += 1
        name = f"c{self._count}"
        self.commands.put(Command(name, verb, args, generation, deadline, "op:ana"))
        return name

    def fix(self, fix_id: str) -> list[FixState]:
        return [state for state in self.probe.of(FixState) if state.fix == fix_id]


@pytest.fixture
def rig():
    rig = Rig()
    rig.control.start()
    yield rig
    rig.control.close()


def test_every_fix_is_told_at_the_start(rig: Rig) -> None:
    assert len(rig.probe.of(FixState)) == 5
    assert all(state.settled and state.generation == 0 for state in rig.probe.of(FixState))


def test_a_fix_is_requested_then_effective_then_applied(rig: Rig) -> None:
    command = rig.send("fix.set", fix="processed-logprobs", value="on")
    ack = rig.probe.answer(command)
    assert [a.state for a in rig.probe.acks(command)] == ["accepted", "applied"]
    assert ack.data == {f"{NAME}.effective": "on"}
    _, asked, done = rig.fix("processed-logprobs")
    assert (asked.requested, asked.effective, asked.settled) == ("on", "off", False)
    assert (done.requested, done.effective, done.generation, done.by) == ("on", "on", 1, "op:ana")
    assert (done.engines[0].since_version, done.engines[0].since_step) == (7, 7)
    assert any(event.kind == "fix.applied" for event in rig.probe.of(Event))


def test_a_fix_that_an_engine_refuses_fails_with_its_sentence_and_is_not_wanted_any_more(rig: Rig) -> None:
    rig.pool.fail_fix = "engine-0: inflight-keep cannot be switched off here"
    ack = rig.probe.answer(rig.send("fix.set", fix="inflight-keep", value="on"))
    assert (ack.state, ack.detail) == ("failed", rig.pool.fail_fix)
    last = rig.fix("inflight-keep")[-1]
    assert (last.requested, last.effective, last.detail) == ("off", "off", rig.pool.fail_fix)
    assert last.settled


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"fix": "no-such", "value": "on"}, "unknown fix 'no-such'; allowed: processed-logprobs"),
        ({"fix": "fp32-lm-head", "value": "maybe"}, "'maybe' is not a value; allowed: off, on"),
        ({}, "unknown fix ''"),
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(rig: Rig, args: dict[str, str], says: str) -> None:
    ack = rig.probe.answer(rig.send("fix.set", **args))
    assert ack.state == "refused"
    assert says in ack.detail


def test_a_command_that_saw_an_old_generation_is_refused(rig: Rig) -> None:
    first = rig.send("fix.set", generation=0, fix="fp32-lm-head", value="on")
    second = rig.send("fix.set", generation=0, fix="fp32-lm-head", value="off")
    assert rig.probe.answer(first).state == "applied"
    ack = rig.probe.answer(second)
    assert ack.state == "refused"
    assert "generation 1" in ack.detail
    assert rig.pool.fixes["fp32-lm-head"] == "on"


def test_a_command_past_its_deadline_does_nothing(rig: Rig) -> None:
    ack = rig.probe.answer(rig.send("fix.set", deadline=time.time() - 1, fix="fp32-lm-head", value="on"))
    assert ack.state == "expired"
    assert rig.pool.fixes["fp32-lm-head"] == "off"


def test_a_sync_by_hand_sends_the_newest_weights_and_returns_the_phases(rig: Rig) -> None:
    ack = rig.probe.answer(rig.send("sync"))
    assert ack.state == "applied"
    assert rig.pool.syncs == [7]
    assert ack.data[f"{NAME}.pause_s"] == 0.1
    assert ack.data[f"{NAME}.version"] == 7
    spans = {span.phase: span for span in rig.probe.of(Span)}
    assert set(spans) == {"pause", "load", "resume", "total"}
    assert spans["load"].start == pytest.approx(100.1)
    assert spans["resume"].start == pytest.approx(100.3)
    assert spans["total"].start == 100.0
    assert rig.syncs.take_latest()["sync/total_s"] == 0.6
    assert rig.syncs.take_latest() == {}


def test_a_pause_holds_the_loop_until_it_is_resumed(rig: Rig) -> None:
    assert rig.probe.answer(rig.send("pause")).state == "applied"
    assert rig.pool.paused
    passed = threading.Event()
    thread = threading.Thread(target=lambda: (rig.control.gate(), passed.set()))
    thread.start()
    paused = rig.probe.of(RunState)[-1]
    assert (paused.status, paused.paused_by) == ("paused", "op:ana")
    assert paused.lease_until > time.time()
    assert not passed.wait(0.2)
    assert rig.probe.answer(rig.send("resume")).state == "applied"
    assert passed.wait(30)
    thread.join(30)
    assert not rig.pool.paused
    assert rig.probe.of(RunState)[-1].status == "running"


def test_resuming_what_is_not_paused_is_refused(rig: Rig) -> None:
    ack = rig.probe.answer(rig.send("resume"))
    assert (ack.state, ack.detail) == ("refused", "the run is not paused")


def test_a_pause_whose_lease_ran_out_ends_by_itself() -> None:
    rig = Rig(lease=0.1)
    rig.control.start()
    rig.probe.answer(rig.send("pause"))
    rig.probe.wait(lambda: any(isinstance(f, Event) and f.kind == "run.resumed" for f in rig.probe.frames))
    rig.control.gate()
    assert not rig.pool.paused
    rig.control.close()


def test_a_stop_lets_a_paused_loop_go(rig: Rig) -> None:
    rig.probe.answer(rig.send("pause"))
    command = rig.send("stop")
    rig.probe.wait(lambda: rig.control.stopping)
    rig.control.gate()
    assert [ack.state for ack in rig.probe.acks(command)] == ["accepted"], "applied only once everything has ended"
    assert rig.control.stop_commands == [command]


def test_a_signal_lets_a_paused_loop_go(rig: Rig) -> None:
    rig.probe.answer(rig.send("pause"))
    rig.control.stop()
    rig.control.gate()
    assert rig.control.stopping


def test_a_mark_is_an_event(rig: Rig) -> None:
    assert rig.probe.answer(rig.send("mark", text="before the change")).state == "applied"
    event = next(event for event in rig.probe.of(Event) if event.kind == "mark")
    assert (event.text, event.step, event.data["by"]) == ("before the change", 7, "op:ana")


def test_commands_left_over_at_the_end_are_answered() -> None:
    rig = Rig()
    command = rig.send("sync")
    rig.control.close()
    assert rig.probe.answer(command).detail == "the run has ended"


def test_a_fix_change_waits_for_a_sync_that_is_under_way(rig: Rig) -> None:
    with rig.syncs.lock:
        command = rig.send("fix.set", fix="fp32-lm-head", value="on")
        rig.probe.wait(lambda: bool(rig.probe.acks(command)))
        assert not threading.Event().wait(0.1)
        assert rig.pool.fixes["fp32-lm-head"] == "off"
    assert rig.probe.answer(command).state == "applied"


def test_the_board_says_mixed_while_engines_differ_and_keeps_since_of_the_unchanged() -> None:
    def engines(*values: str) -> list[EngineFix]:
        return [EngineFix(f"engine-{i}", value, "live") for i, value in enumerate(values)]

    board = FixBoard({"fp32-lm-head": engines("off", "on")}, {}, time=0.0, version=1, step=1)
    assert board.state("fp32-lm-head").effective == "mixed"
    state = board.observe("fp32-lm-head", engines("on", "on"), time=1.0, version=5, step=5)
    assert state.effective == "on"
    assert [engine.since_version for engine in state.engines] == [5, 1]


def test_what_cannot_be_switched_is_wanted_as_it_is_and_says_why() -> None:
    engines = [EngineFix("engine-0", "on", "not_available", detail="forced off here")]
    board = FixBoard({"async-scheduling-off": engines}, {}, time=0.0, version=0, step=0)
    state = board.state("async-scheduling-off")
    assert (state.requested, state.how, state.detail, state.settled) == ("on", "not_available", "forced off here", True)
    asked = FixBoard({"async-scheduling-off": engines}, {"async-scheduling-off": "off"}, time=0.0, version=0, step=0)
    assert not asked.state("async-scheduling-off").settled
