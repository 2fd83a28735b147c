"""Fixes over the whole loop and a policy sampler (no engine): effects, the head on both sides, stale groups."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from driftline.catalog.fixes import BY_ID
from driftline.config import Config, ModelConfig, RolloutConfig, TrainerConfig
from driftline.frames import Command, Effect, EngineFix, Event, FixState
from tests.unit.test_trainer_loop import CONFIG, Run
from tests.unit.trainer_fakes import NAME, RecordingProbe, first_state
from trainer.control.fix_tracker import FixTracker
from trainer.control.sync_driver import Staged
from trainer.learn import tiny_model
from trainer.learn.batch import Sample, collate
from trainer.learn.lm_head import Head
from trainer.learn.policy import Policy
from trainer.learn.versions import Scorer, WeightStore
from trainer.measure.fix_states import HEAD, States, vector
from trainer.report import Reporter

DEFAULTS = msgspec.structs.replace(CONFIG, fixes={})


def begin(path: Path, config: Config = CONFIG) -> Run:
    run = Run(path, config)
    run.control.start()
    return run


def order(run: Run, fix: str, value: str) -> str:
    """Ask for a change and wait until it is applied or staged."""
    command = f"{fix}-{value}-{run.loop.step}"
    run.commands.put(Command(command, "fix.set", {"fix": fix, "value": value}, issuer="op:ana"))
    run.probe.wait(lambda: [f for f in run.probe.frames if isinstance(f, FixState) and f.requested == value])
    run.probe.wait(lambda: run.probe.acks(command)[-1:] and fix in (*run.pool.staged, fix))
    return command


def newest(run: Run) -> Effect:
    return run.probe.of(Effect)[-1]


def test_a_live_change_is_measured_without_being_asked(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.pool.fix_offsets = {"processed-logprobs": -0.25}
    run.loop.run(12)
    command = order(run, "processed-logprobs", "on")
    assert run.probe.answer(command).state == "applied"
    run.loop.run(26)
    effect = newest(run)
    mismatch, clip, kl = effect.measures
    assert effect.changes == (("processed-logprobs", "off", "on"),)
    assert (effect.step, effect.version, effect.by, effect.done) == (12, 12, "op:ana", False)
    assert mismatch.before == pytest.approx(0.25, abs=1e-3)
    assert mismatch.after < 1e-3
    assert -0.26 < mismatch.low < mismatch.high < -0.24
    assert mismatch.tokens_before > 100
    assert mismatch.tokens_after > 20
    assert clip.before == pytest.approx(1, abs=0.2)
    assert clip.high < 0
    assert kl.high < 0
    run.control.close()
    run.desk.fixes.close()
    assert newest(run).done
    assert newest(run).id == effect.id
    assert any(event.kind == "fix.measured" for event in run.probe.of(Event))


def test_the_numbers_of_one_state_add_up_to_those_of_the_step(tmp_path: Path) -> None:
    run = Run(tmp_path)
    seen = []
    run.desk.fixes.add_rows = lambda step, rows: seen.append(rows)
    run.loop.run(3)
    for frame, rows in zip(run.probe.metrics, seen, strict=True):
        assert list(rows) == [vector(run.pool.fixes)]
        tokens, size, whole, counted, clipped, kl = rows[vector(run.pool.fixes)].numbers.sum(axis=0)
        assert size / tokens == pytest.approx(frame.values["mismatch/abs_diff_mean"], rel=1e-5, abs=1e-9)
        assert clipped / counted == pytest.approx(frame.values["policy/clip_fraction"])
        assert kl / whole == pytest.approx(frame.values["policy/kl_new_old"])


def test_the_head_changes_on_both_sides_without_a_blip_in_mismatch_or_staleness(tmp_path: Path) -> None:
    run = begin(tmp_path, DEFAULTS)
    run.loop.run(4)
    assert not run.setup.policy.fp32_head
    command = order(run, HEAD, "on")
    assert not run.setup.policy.fp32_head, "not before a sync"
    run.loop.run(8)
    assert run.setup.policy.fp32_head
    assert run.probe.answer(command).data["trainer.effective"] == "on"
    for frame in run.probe.metrics:
        assert frame.values["mismatch/abs_diff_max"] < 1e-4, frame.step
    assert newest(run).changes == ((HEAD, "off", "on"),)
    assert max(newest(run).measures[0].before, newest(run).measures[0].after) < 1e-4
    state = [state for state in run.probe.of(FixState) if state.fix == HEAD][-1]
    assert {engine.since_version for engine in state.engines} == {4}, (
        "both at one sync, the loop's first when it goes on"
    )
    run.control.close()


def test_a_head_that_stays_is_a_mismatch_that_the_engines_switch_takes_away(tmp_path: Path) -> None:
    trainer = msgspec.structs.replace(CONFIG.trainer, head="float32")
    model = ModelConfig(hidden=32, layers=1, heads=2, warm_start_batches=20)
    run = begin(tmp_path, msgspec.structs.replace(DEFAULTS, trainer=trainer, model=model))
    run.loop.run(12)
    order(run, HEAD, "on")
    run.loop.run(26)
    effect = newest(run)
    assert effect.measures[0].before > 1e-3 > effect.measures[0].after
    assert effect.measures[0].high < 0
    assert "the engines change alone" in effect.detail
    assert [e.engine for e in run.desk.fixes.state(HEAD).engines] == [NAME]
    run.control.close()


def test_tokens_are_scored_with_the_head_that_sampled_them() -> None:
    def policy(float32: bool) -> Policy:
        model = tiny_model.make_model(ModelConfig(hidden=32, layers=1, heads=2), seed=0, max_length=64)
        return Policy(model, temperature=0.7, fp32_head=float32, dtype=torch.float32)

    states, store = States(), WeightStore(2)
    store.publish(3, policy(True).weights())
    off, on = states.number({HEAD: "off"}), states.number({HEAD: "on"})
    numbers = ((off, off, on, on), (on, on, on, on), (-1, off, off, off))
    samples = [Sample((5, 6, 7), (8, 9, 10, 11), (-1.0,) * 4, (3,) * 4, 0.0, "", "", s) for s in numbers]
    batch = collate(samples, 0)
    head = Head(policy(True), "fix")
    heads = head.scoring(batch.states, states)
    assert heads.tolist() == [[False, False, True, True], [True] * 4, [True, False, False, False]]
    scores = Scorer(policy(False), store).score(batch, 3, heads)
    for float32 in (False, True):
        want, here = policy(float32).logprobs(batch), heads == float32
        assert torch.equal(scores.own[here], want[here])
        assert torch.equal(scores.now[here], want[here])
    assert scores.scored.all()
    assert Head(policy(True), "float32").scoring(batch.states, states).all()


def test_stale_groups_are_counted_and_reported_once_a_step(tmp_path: Path) -> None:
    rollout = RolloutConfig(prompts=1, samples=2, ahead=4, max_lag=1, stale="keep")
    config = msgspec.structs.replace(CONFIG, rollout=rollout, trainer=TrainerConfig(threads=1, keep_versions=8))
    kept = Run(tmp_path / "kept", config)
    kept.loop.run(6)
    events = [event for event in kept.probe.of(Event) if event.kind == "rollouts.stale"]
    assert [frame.values["async/stale_groups"] for frame in kept.probe.metrics] == [0, 0, 1, 1, 1, 1]
    assert [event.step for event in events] == [3, 4, 5, 6]
    assert kept.probe.metrics[-1].values["async/version_lag_max"] == 5
    dropping = msgspec.structs.replace(rollout, stale="drop")
    dropped = Run(tmp_path / "dropped", msgspec.structs.replace(config, rollout=dropping))
    dropped.loop.run(6)
    assert max(frame.values["async/version_lag_max"] for frame in dropped.probe.metrics) == 1
    assert sum(frame.values["async/stale_dropped"] for frame in dropped.probe.metrics) > 0
    assert dropped.loop.step == 6
    steps = [event.step for event in dropped.probe.of(Event) if event.kind == "rollouts.stale"]
    assert len(steps) == len(set(steps)) > 0


def seen(*engines: dict[str, str]) -> dict[str, list[EngineFix]]:
    """Reports of engine-0, engine-1, ...: "off" but for what is given."""
    blank = dict.fromkeys(BY_ID, "off")
    return {
        fix: [EngineFix(f"engine-{i}", (blank | values)[fix], "live") for i, values in enumerate(engines)]
        for fix in blank
    }


@pytest.fixture
def fix_tracker() -> tuple[FixTracker, RecordingProbe]:
    probe = RecordingProbe()
    model = tiny_model.make_model(ModelConfig(hidden=32, layers=1, heads=2), seed=0, max_length=32)
    head = Head(Policy(model, temperature=1.0, fp32_head=False, dtype=torch.float32), "fix")
    report = Reporter(probe, first_state())
    return FixTracker(seen({}, {}), {}, {"inflight-keep": "on"}, head, report, version=1, step=1), probe


def test_an_effect_begins_when_all_engines_that_are_up_agree(fix_tracker) -> None:
    desk, probe = fix_tracker
    on = {"async-scheduling-off": "on"}
    desk.observe(seen(on, {}), version=4, step=4)
    assert probe.of(Effect) == []
    assert probe.of(FixState)[-1].effective == "mixed"
    desk.observe(seen(on, on), version=6, step=6)
    (effect,) = probe.of(Effect)
    assert (effect.changes, effect.step) == ((("async-scheduling-off", "off", "on"),), 6)
    state = desk.state("async-scheduling-off")
    assert [engine.since_version for engine in state.engines] == [4, 6]


def test_an_engine_that_dies_and_comes_back_the_same_is_no_change(fix_tracker) -> None:
    desk, probe = fix_tracker
    gone = dict.fromkeys(seen({}), "")
    desk.observe(seen(gone, {}), version=4, step=4)
    assert desk.state(HEAD).effective == ""
    assert desk.state(HEAD).engines[-1].engine == "trainer"
    desk.observe(seen(gone, gone), version=4, step=4)
    desk.observe(seen({}, {}), version=6, step=6)
    assert probe.of(Effect) == []
    published = len(probe.of(FixState))
    desk.observe(seen({}, {}), version=7, step=7)
    assert len(probe.of(FixState)) == published, "nothing new, nothing published"


def test_one_engine_s_report_leaves_the_others_as_they_were(fix_tracker) -> None:
    desk, _ = fix_tracker
    desk.observe({"processed-logprobs": [EngineFix("engine-1", "on", "live")]}, version=3, step=3)
    values = {engine.engine: engine.effective for engine in desk.state("processed-logprobs").engines}
    assert values == {"engine-0": "off", "engine-1": "on"}


def test_what_the_configuration_does_not_name_is_wanted_as_it_is_by_default(fix_tracker) -> None:
    desk, _ = fix_tracker
    assert desk.state("inflight-keep").requested == "on"
    assert desk.state("processed-logprobs").requested == "off"


def test_a_staged_change_without_an_answer_is_withdrawn_at_the_end(tmp_path: Path) -> None:
    run = Run(tmp_path, DEFAULTS)
    before = run.desk.fixes.request("inflight-keep", "wait", "op:ana")
    run.desk.syncs.stage(Staged("c", "inflight-keep", "wait", "op:ana", 0.0, before))
    run.desk.syncs.drop_staged("the run has ended")
    assert run.probe.answer("c").state == "failed"
    assert run.desk.fixes.state("inflight-keep").requested == before.requested
