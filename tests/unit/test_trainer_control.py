"""Commands: what each does to the pool and the loop, and what its sender hears."""

from __future__ import annotations

import queue
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from driftline import clocks
from driftline.config import ModelConfig
from driftline.frames import Command, EngineFix, Event, FixState, RunState, Span
from engine import EngineError
from tests.unit.trainer_fakes import NAME, PolicySampler, RecordingProbe, desk, first_state
from trainer.control.command_thread import CommandThread
from trainer.control.deadline import by_monotonic
from trainer.control.fix_state import FixTable
from trainer.learn import tiny_model
from trainer.learn.lm_head import TRAINER, Head
from trainer.learn.policy import Policy
from trainer.learn.versions import WeightStore
from trainer.report import Reporter


class Rig:
    """A control thread over a policy sampler."""

    def __init__(self, lease: float = 600.0, head: str = "fix") -> None:
        model = tiny_model.make_model(ModelConfig(hidden=32, layers=1, heads=2), seed=0, max_length=32)
        policy = Policy(model, temperature=1.0, fp32_head=head == "float32", dtype=torch.float32)
        self.probe = RecordingProbe()
        self.pool = PolicySampler(policy, max_tokens=2, eos=1)
        self.report = Reporter(self.probe, first_state())
        store = WeightStore(2)
        store.publish(7, policy.weights())
        self.report.state(status="running", step=7, version=7)
        made = desk(self.pool, store, self.report, Head(policy, head), version=7, step=7)
        self.desk, self.syncs, self.head = made.fixes, made.syncs, made.head
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.control = CommandThread(self.commands, self.pool, self.syncs, self.desk, self.report, lease=lease)
        self._count = 0

    def send(self, verb: str, generation: int = -1, deadline: float = 0.0, **args: str) -> str:
        self._count += 1
        name = f"c{self._count}"
        self.commands.put(by_monotonic(Command(name, verb, args, generation, deadline, "op:ana")))
        return name

    def fix(self, fix_id: str) -> list[FixState]:
        return [state for state in self.probe.of(FixState) if state.fix == fix_id]


@pytest.fixture
def rig():
    rig = Rig()
    rig.control.start()
    yield rig
    rig.control.close()


def test_every_fix_is_reported_at_the_start(rig: Rig) -> None:
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
    rig.pool.fail_fix = "engine-0: processed-logprobs cannot be switched on here"
    ack = rig.probe.answer(rig.send("fix.set", fix="processed-logprobs", value="on"))
    assert (ack.state, ack.detail) == ("failed", rig.pool.fail_fix)
    last = rig.fix("processed-logprobs")[-1]
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


def test_one_engine_alone_is_switched_and_the_pools_request_stays(rig: Rig) -> None:
    ack = rig.probe.answer(rig.send("fix.set", fix="processed-logprobs", value="on", engine=NAME))
    assert (ack.state, ack.data) == ("applied", {f"{NAME}.effective": "on"})
    last = rig.fix("processed-logprobs")[-1]
    assert (last.requested, last.engines[0].effective, last.engines[0].wanted) == ("off", "on", "on")
    assert last.settled
    ack = rig.probe.answer(rig.send("fix.set", fix="fp32-lm-head", value="on", engine=NAME))
    assert ack.state == "refused"
    assert "takes effect by next_sync" in ack.detail


def test_the_share_of_shadow_scoring_is_set_at_once(rig: Rig) -> None:
    ack = rig.probe.answer(rig.send("shadow.set", share=".25"))
    assert (ack.state, ack.data) == ("applied", {"share": 0.25})
    assert rig.pool.shadow_share == 0.25
    state = rig.probe.of(RunState)[-1]
    assert (state.shadow_share, state.shadow_by) == (0.25, "op:ana")
    assert any(event.kind == "shadow.set" for event in rig.probe.of(Event))
    ack = rig.probe.answer(rig.send("shadow.set", share="3"))
    assert (ack.state, ack.detail) == (
        "refused",
        "shadow share: '3' is no fraction; allowed: 0 to 1, such as .25, or off",
    )
    rig.pool.shadow_fails = "shadow scoring takes two engines"
    ack = rig.probe.answer(rig.send("shadow.set", share="1"))
    assert (ack.state, ack.detail) == ("refused", rig.pool.shadow_fails)
    assert rig.probe.of(RunState)[-1].shadow_share == 0.25


def test_a_command_that_saw_an_old_generation_is_refused(rig: Rig) -> None:
    first = rig.send("fix.set", generation=0, fix="prefix-cache-off", value="on")
    second = rig.send("fix.set", generation=0, fix="prefix-cache-off", value="off")
    assert rig.probe.answer(first).state == "applied"
    ack = rig.probe.answer(second)
    assert ack.state == "refused"
    assert "generation 1" in ack.detail
    assert rig.pool.fixes["prefix-cache-off"] == "on"


def test_a_command_past_its_deadline_does_nothing(rig: Rig) -> None:
    ack = rig.probe.answer(rig.send("fix.set", deadline=time.time() - 1, fix="processed-logprobs", value="on"))
    assert ack.state == "expired"
    assert rig.pool.fixes["processed-logprobs"] == "off"


def test_a_sync_by_hand_sends_the_newest_weights_and_returns_the_phases(rig: Rig) -> None:
    ack = rig.probe.answer(rig.send("sync"))
    assert ack.state == "applied"
    assert rig.pool.syncs == [7]
    assert ack.data[f"{NAME}.pause_s"] == 0.1
    assert ack.data[f"{NAME}.version"] == 7
    assert (ack.data["sync"], ack.data["version"]) == ("sync-1", 7)
    assert ack.data[f"{NAME}.gb_per_s"] == pytest.approx(1000 / 0.2 / 1e9)
    names = ("held_s", "digest", "reset", "straddling", "attempts", "ok", "in_flight", "bytes")
    assert [ack.data[f"{NAME}.{name}"] for name in names] == [0.65, "d1", "freed", 5, 1, True, 3, 1000]
    spans = {span.phase: span for span in rig.probe.of(Span)}
    assert list(spans) == ["pause", "load", "verify", "reset", "resume", "total"]
    assert spans["load"].start == pytest.approx(100.1)
    assert spans["resume"].start == pytest.approx(100.4)
    assert spans["total"].start == 100.0
    assert (spans["verify"].result, spans["reset"].result, spans["load"].result) == ("d1", "freed", "")
    assert {span.straddling for span in spans.values()} == {5}
    latest = rig.syncs.take_latest()
    assert (latest["sync/total_s"], latest["sync/verify_s"], latest["sync/reset_s"]) == (0.7, 0.06, 0.04)
    assert rig.syncs.take_latest() == {}


def test_a_pause_holds_the_loop_until_it_is_resumed(rig: Rig) -> None:
    assert rig.probe.answer(rig.send("pause")).state == "applied"
    assert rig.pool.paused
    passed = threading.Event()
    thread = threading.Thread(target=lambda: (rig.control.wait_while_paused(), passed.set()))
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
    rig.control.wait_while_paused()
    assert not rig.pool.paused
    rig.control.close()


def test_a_run_whose_engine_stays_paused_after_the_lease_is_not_said_to_be_paused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An engine with damaged weights refuses to go on; the loop and the other engines do go on."""
    rig = Rig(lease=0.1)

    def refuses() -> None:
        raise EngineError(f"{NAME}: stays paused: the load of version 3 failed half-way; sync again")

    monkeypatch.setattr(rig.pool, "resume", refuses)
    rig.control.start()
    rig.probe.answer(rig.send("pause"))
    rig.control.wait_while_paused()
    rig.probe.wait(lambda: rig.report.run.status == "running")
    assert (rig.report.run.paused_by, rig.report.run.lease_until) == ("", 0.0)
    (failed,) = [event for event in rig.probe.of(Event) if event.kind == "run.resume-failed"]
    assert "stays paused" in failed.text
    rig.control.close()


def test_a_stop_lets_a_paused_loop_go(rig: Rig) -> None:
    rig.probe.answer(rig.send("pause"))
    command = rig.send("stop")
    rig.probe.wait(lambda: rig.control.stopping)
    rig.control.wait_while_paused()
    assert [ack.state for ack in rig.probe.acks(command)] == ["accepted"], "applied only once everything has ended"
    assert rig.control.stop_commands == [command]


def test_a_signal_lets_a_paused_loop_go(rig: Rig) -> None:
    rig.probe.answer(rig.send("pause"))
    rig.control.stop()
    rig.control.wait_while_paused()
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
        command = rig.send("fix.set", fix="processed-logprobs", value="on")
        rig.probe.wait(lambda: bool(rig.probe.acks(command)))
        assert not threading.Event().wait(0.1)
        assert rig.pool.fixes["processed-logprobs"] == "off"
    assert rig.probe.answer(command).state == "applied"


def test_a_fix_of_the_next_sync_is_answered_by_the_sync_that_made_it_so(rig: Rig) -> None:
    command = rig.send("fix.set", fix="inflight-keep", value="wait")
    rig.probe.wait(lambda: rig.fix("inflight-keep")[-1].requested == "wait")
    asked = rig.fix("inflight-keep")[-1]
    assert (asked.effective, asked.settled) == ("off", False)
    ack = rig.probe.answer(rig.send("sync"))
    assert ack.state == "applied"
    applied = rig.probe.answer(command)
    assert [a.state for a in rig.probe.acks(command)] == ["accepted", "applied"]
    assert applied.data == {"sync": "sync-1", "version": 7, f"{NAME}.effective": "wait"}
    assert rig.fix("inflight-keep")[-1].settled
    assert any(event.kind == "fix.applied" for event in rig.probe.of(Event))


def test_the_head_changes_on_both_sides_at_a_sync_of_the_loop_s_own_only(rig: Rig) -> None:
    command = rig.send("fix.set", fix="fp32-lm-head", value="on")
    by_hand = rig.send("sync")
    rig.probe.wait(lambda: len(rig.probe.acks(by_hand)) == 2)
    assert "at the end of the trainer's step" in rig.probe.acks(by_hand)[-1].detail
    assert rig.pool.syncs == []
    rig.syncs.sync(8, "trainer")
    assert (rig.pool.fixes["fp32-lm-head"], rig.head.float32) == ("off", False), "no boundary: the head stays staged"
    assert not any(ack.state == "applied" for ack in rig.probe.acks(command))
    rig.control.between_steps()
    assert (rig.pool.fixes["fp32-lm-head"], rig.head.float32) == ("on", True)
    assert rig.probe.answer(by_hand).state == "applied"
    assert rig.probe.answer(command).data[f"{TRAINER}.effective"] == "on"
    state = rig.fix("fp32-lm-head")[-1]
    assert [(engine.engine, engine.effective) for engine in state.engines] == [(NAME, "on"), (TRAINER, "on")]
    assert not rig.syncs.needs_boundary


def test_a_sync_by_hand_that_waits_for_a_boundary_is_made_by_a_loop_that_is_paused_between_steps(rig: Rig) -> None:
    rig.probe.answer(rig.send("pause"))
    passed = threading.Event()
    thread = threading.Thread(target=lambda: (rig.control.between_steps(), passed.set()))
    thread.start()
    change, by_hand = rig.send("fix.set", fix="fp32-lm-head", value="on"), rig.send("sync")
    assert rig.probe.answer(by_hand).state == "applied"
    assert rig.probe.answer(change).state == "applied"
    assert not passed.is_set(), "the pause goes on"
    rig.probe.answer(rig.send("resume"))
    thread.join(30)
    assert passed.is_set()


def test_a_head_that_does_not_follow_says_so_and_changes_with_any_sync() -> None:
    rig = Rig(head="float32")
    rig.control.start()
    assert "the engines change alone" in rig.fix("fp32-lm-head")[-1].detail
    command = rig.send("fix.set", fix="fp32-lm-head", value="on")
    assert rig.probe.answer(rig.send("sync")).state == "applied"
    assert rig.probe.answer(command).data == {"sync": "sync-1", "version": 7, f"{NAME}.effective": "on"}
    assert "the engines change alone" in rig.fix("fp32-lm-head")[-1].detail
    rig.control.close()


def test_a_staged_change_is_replaced_by_a_newer_one_and_expires_when_no_sync_comes(rig: Rig, monkeypatch) -> None:
    first = rig.send("fix.set", fix="inflight-keep", value="on")
    second = rig.send("fix.set", deadline=time.time() + 600.0, fix="inflight-keep", value="wait")
    assert "replaced by op:ana" in rig.probe.answer(first).detail
    # Accepted in time; the sync comes too late.
    rig.probe.wait(lambda: rig.fix("inflight-keep")[-1].requested == "wait")
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3600.0))
    rig.probe.answer(rig.send("sync"))
    assert rig.probe.answer(second).state == "expired"
    assert rig.pool.fixes["inflight-keep"] == "off"


def test_what_waits_for_a_sync_is_answered_when_the_run_ends() -> None:
    rig = Rig()
    rig.control.start()
    staged = rig.send("fix.set", fix="fp32-lm-head", value="on")
    by_hand = rig.send("sync")
    rig.probe.wait(lambda: len(rig.probe.acks(by_hand)) == 2)
    rig.control.close()
    assert [rig.probe.answer(command).detail for command in (staged, by_hand)] == ["the run has ended"] * 2
    assert rig.fix("fp32-lm-head")[-1].requested == "off"


def test_a_restart_is_answered_at_its_end_and_keeps_nothing_else_waiting(rig: Rig) -> None:
    restart = rig.send("fix.set", fix="async-scheduling-off", value="on")
    rig.probe.wait(lambda: rig.pool.held is not None)
    assert rig.probe.answer(rig.send("fix.set", fix="processed-logprobs", value="on")).state == "applied"
    assert rig.probe.answer(rig.send("sync")).state == "applied"
    assert rig.probe.answer(rig.send("pause")).state == "applied"
    assert rig.probe.answer(rig.send("resume")).state == "applied"
    again = rig.probe.answer(rig.send("fix.set", fix="async-scheduling-off", value="off"))
    assert (again.state, "rolling restart; wait" in again.detail) == ("refused", True)
    rig.pool.hows["prefix-cache-off"] = "engine_restart"
    other = rig.probe.answer(rig.send("fix.set", fix="prefix-cache-off", value="removed"))
    assert (other.state, other.detail) == ("failed", "a rolling restart for async-scheduling-off is under way; "
                                           "wait for its end")  # fmt: skip
    assert [ack.state for ack in rig.probe.acks(restart)] == ["accepted"]
    rig.pool.end_restart()
    ack = rig.probe.answer(restart)
    assert ack.state == "applied"
    assert (ack.data[f"{NAME}.down_s"], ack.data[f"{NAME}.moved"]) == (12.5, 3)
    assert rig.fix("async-scheduling-off")[-1].settled


def test_a_restart_that_failed_is_not_wanted_any_more(rig: Rig) -> None:
    restart = rig.send("fix.set", fix="async-scheduling-off", value="on")
    rig.probe.wait(lambda: rig.pool.held is not None)
    rig.pool.end_restart("engine-0 did not come up")
    assert rig.probe.answer(restart).detail == "engine-0 did not come up"
    state = rig.fix("async-scheduling-off")[-1]
    assert (state.requested, state.effective) == ("off", "off")


def test_a_run_that_ends_during_a_restart_says_so() -> None:
    rig = Rig()
    rig.control.start()
    restart = rig.send("fix.set", fix="async-scheduling-off", value="on")
    rig.probe.wait(lambda: rig.pool.held is not None)
    rig.control.close()
    assert rig.probe.answer(restart).detail == "the run has ended during the restart"
    rig.pool.end_restart()
    assert len([ack for ack in rig.probe.acks(restart) if ack.state != "accepted"]) == 1


def test_what_cannot_be_switched_fails_with_the_engine_s_sentence(rig: Rig) -> None:
    rig.pool.hows["async-scheduling-off"] = "not_available"
    ack = rig.probe.answer(rig.send("fix.set", fix="async-scheduling-off", value="on"))
    assert (ack.state, ack.detail) == ("failed", f"{NAME}: async-scheduling-off cannot be switched on here")


def test_a_pause_and_a_stop_are_served_while_a_sync_waits(rig: Rig) -> None:
    rig.pool.may_sync.clear()
    sync_driver = rig.send("sync")
    assert rig.pool.syncing.wait(30)
    assert rig.probe.answer(rig.send("pause")).state == "applied"
    rig.send("stop")
    rig.probe.wait(lambda: rig.control.stopping)
    assert [ack.state for ack in rig.probe.acks(sync_driver)] == ["accepted"]
    rig.pool.may_sync.set()
    assert rig.probe.answer(sync_driver).state == "applied", "a sync that was going on at a stop is finished"


def test_a_sync_during_a_sync_waits_its_turn_and_is_then_done(rig: Rig) -> None:
    rig.pool.may_sync.clear()
    loop = threading.Thread(target=lambda: rig.syncs.sync(8, "trainer", boundary=True))
    loop.start()
    assert rig.pool.syncing.wait(30)
    second = rig.send("sync")
    rig.probe.wait(lambda: bool(rig.probe.acks(second)))
    assert [ack.state for ack in rig.probe.acks(second)] == ["accepted"]
    rig.pool.may_sync.set()
    assert rig.probe.answer(second).data["sync"] == "sync-2"
    loop.join(30)
    assert rig.pool.syncs == [7, 7]


def test_pausing_again_renews_the_lease_and_says_so(rig: Rig) -> None:
    first = rig.probe.answer(rig.send("pause")).data
    second = rig.probe.answer(rig.send("pause")).data
    assert (first["renewed"], second["renewed"]) == (False, True)
    assert second["lease_until"] > first["lease_until"]
    assert rig.pool.lease_until == second["lease_until"], "the engines have the lease too"
    assert [e.text.split(",")[0] for e in rig.probe.of(Event) if e.kind == "run.paused"] == [
        "by op:ana", "lease renewed by op:ana",
    ]  # fmt: skip


def test_every_engine_gone_or_back_is_read_back(rig: Rig) -> None:
    rig.pool.fixes["processed-logprobs"] = "on"
    rig.control.engine_event("engine.replaced", NAME)
    rig.probe.wait(lambda: rig.fix("processed-logprobs")[-1].effective == "on")


def test_a_sync_that_failed_is_answered_with_why_and_what_is_staged_waits_for_the_next(rig: Rig) -> None:
    rig.pool.broken_syncs.append(rig.pool.report(ok=False, attempts=3, detail="digest differs"))
    change = rig.send("fix.set", fix="inflight-keep", value="wait")
    ack = rig.probe.answer(rig.send("sync"))
    assert (ack.state, ack.detail) == ("failed", f"{NAME}: digest differs")
    kinds = {event.kind: event for event in rig.probe.of(Event)}
    assert kinds["sync.retried"].data["attempts"] == 3
    assert kinds["sync.failed"].level == "error"
    assert [ack.state for ack in rig.probe.acks(change)] == ["accepted"]
    assert rig.probe.answer(rig.send("sync")).state == "applied"
    assert rig.probe.answer(change).state == "applied"


def test_the_board_says_mixed_while_engines_differ_and_keeps_since_of_the_unchanged() -> None:
    def engines(*values: str) -> list[EngineFix]:
        return [EngineFix(f"engine-{i}", value, "live") for i, value in enumerate(values)]

    board = FixTable({"fp32-lm-head": engines("off", "on")}, {}, time=0.0, version=1, step=1)
    assert board.state("fp32-lm-head").effective == "mixed"
    state = board.observe("fp32-lm-head", engines("on", "on"), time=1.0, version=5, step=5)
    assert state.effective == "on"
    assert [engine.since_version for engine in state.engines] == [5, 1]


def test_what_cannot_be_switched_is_wanted_as_it_is_and_says_why() -> None:
    engines = [EngineFix("engine-0", "on", "not_available", detail="forced off here")]
    board = FixTable({"async-scheduling-off": engines}, {}, time=0.0, version=0, step=0)
    state = board.state("async-scheduling-off")
    assert (state.requested, state.how, state.detail, state.settled) == ("on", "not_available", "forced off here", True)
    asked = FixTable({"async-scheduling-off": engines}, {"async-scheduling-off": "off"}, time=0.0, version=0, step=0)
    assert not asked.state("async-scheduling-off").settled
