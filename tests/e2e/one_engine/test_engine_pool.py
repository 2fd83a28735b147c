"""The engine pool on the real vLLM in Ray actors, on the engine of this folder."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import psutil
import pytest

from driftline.catalog import fixes
from engine import EngineError, RolloutRequest
from engine.weights.publish import digest
from tests.e2e import engine_support as support
from tests.e2e.engine_support import CLOSE
from tests.e2e.one_engine.shared_engine import MAX_TOKENS, SharedEngine, segments

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


class Rig:
    """The shared engine through its pool."""

    def __init__(self, engine: SharedEngine) -> None:
        self._engine, self.pool = engine, engine.pool

    @property
    def model(self) -> Any:
        return self._engine.model

    @property
    def version(self) -> int:
        return self._engine.version

    def sync(self, model: Any) -> Any:
        self._engine.model, self._engine.version = model, self.version + 1
        (report,) = self.pool.sync(model.state_dict(), self.version)
        return report

    def head(self, value: str) -> Any:
        """Let the head change at a sync of the same weights; returns the state that the sync read back."""
        self.pool.stage_fix("fp32-lm-head", value)
        assert self.sync(self.model).ok
        (state,) = self.pool.fix_states("fp32-lm-head")["fp32-lm-head"]
        return state


@pytest.fixture
def rig(engine: SharedEngine) -> Rig:
    """The shared engine with the fixes as they were at its start, nothing in flight and no pause."""
    started = Rig(engine)
    started.pool.resume()
    if started.pool.in_flight:
        support.engine_collect(started.pool, started.pool.in_flight)
    for fix_id, value in (("processed-logprobs", "on"), ("prefix-cache-off", "off")):
        started.pool.set_fix(fix_id, value)
    if started.pool.wanted["fp32-lm-head"] == "off":
        started.head("on")
    return started


def test_groups_come_back_whole(rig: Rig) -> None:
    groups = support.engine_rollouts(rig.pool, 16, n=4)
    assert sorted(group.group for group in groups) == list(range(16))
    assert rig.pool.in_flight == 0
    for group in groups:
        assert group.engine == "engine-0"
        assert len(group.prompt_ids) == support.PROMPT
        assert 0 < group.started <= group.finished
        assert len(group.sequences) == 4
        for sequence in group.sequences:
            assert (sequence.ids.dtype, sequence.logprobs.dtype, sequence.versions.dtype) == (
                np.int32,
                np.float32,
                np.int32,
            )
            assert len(sequence.ids) == len(sequence.logprobs) == len(sequence.versions)
            assert np.all(sequence.logprobs <= 0)
            assert np.all(sequence.versions == rig.version)
            stopped = sequence.ids[-1] == support.EOS
            assert sequence.finish == ("stop" if stopped else "length")
            assert stopped or len(sequence.ids) == MAX_TOKENS
            assert support.EOS not in sequence.ids[:-1]


def test_an_engine_and_its_core_run_at_the_priority_of_the_trainer(rig: Rig) -> None:
    (info,) = rig.pool.infos
    actor = psutil.Process(info.pid)
    assert {process.nice() for process in (actor, *actor.children(recursive=True))} == {psutil.Process().nice()}


def test_engines_do_not_repeat_themselves(rig: Rig) -> None:
    (group,) = support.engine_rollouts(rig.pool, 1, n=8)
    assert len({sequence.ids.tobytes() for sequence in group.sequences}) == 8


def test_processed_logprobs_agree_with_a_float32_forward_and_raw_ones_do_not(rig: Rig) -> None:
    processed = support.engine_gap(rig.model, support.engine_rollouts(rig.pool, 4))
    (state,) = rig.pool.set_fix("processed-logprobs", "off")
    assert state.effective == "off"
    raw = support.engine_gap(rig.model, support.engine_rollouts(rig.pool, 4))
    (state,) = rig.pool.set_fix("processed-logprobs", "on")
    assert state.effective == "on"
    again = support.engine_gap(rig.model, support.engine_rollouts(rig.pool, 4))
    assert processed.mean() < CLOSE
    assert again.mean() < CLOSE
    assert raw.mean() > 5 * processed.mean()
    assert raw.mean() > 100 * CLOSE


def test_a_bfloat16_head_shows_and_goes(rig: Rig) -> None:
    state = rig.head("off")
    assert (state.effective, state.detail) == ("off", "head bfloat16, body float32")
    rough = support.engine_gap(rig.model, support.engine_rollouts(rig.pool, 4))
    state = rig.head("on")
    assert state.effective == "on"
    fine = support.engine_gap(rig.model, support.engine_rollouts(rig.pool, 4))
    assert fine.mean() < CLOSE
    assert rough.mean() > 5 * fine.mean()


def test_requests_stop_reading_the_prefix_cache(rig: Rig) -> None:
    prompt = list(range(2, 2 + 64))

    def hit_rate() -> float:
        rig.pool.stats()
        for group in range(4):
            rig.pool.submit(RolloutRequest(group, prompt, 2))
        support.engine_collect(rig.pool, 4)
        return rig.pool.stats().prefix_hit_rate

    assert hit_rate() > 0
    rig.pool.set_fix("prefix-cache-off", "on")
    assert math.isnan(hit_rate())  # nothing is even looked up
    rig.pool.set_fix("prefix-cache-off", "off")
    assert hit_rate() > 0


def test_every_fix_is_reported_and_the_unavailable_ones_refuse(rig: Rig) -> None:
    states = rig.pool.fix_states()
    assert list(states) == [fix.id for fix in fixes.FIXES]
    assert {name: (s.effective, s.how) for name, (s,) in states.items()} == {
        "processed-logprobs": ("on", "live"),
        "prefix-cache-off": ("off", "live"),
        "async-scheduling-off": ("on", "not_available"),
        "inflight-keep": ("on", "next_sync"),
        "fp32-lm-head": ("on", "next_sync"),
    }
    for change in (rig.pool.set_fix, rig.pool.stage_fix, rig.pool.restart_fix, rig.pool.how):
        with pytest.raises(EngineError, match="engine-0: async-scheduling-off cannot be switched off here: "):
            change("async-scheduling-off", "off")
    for fix_id in ("inflight-keep", "fp32-lm-head"):
        with pytest.raises(EngineError, match=f"engine-0: {fix_id} off takes effect with the next weight sync"):
            rig.pool.set_fix(fix_id, "off")
    with pytest.raises(EngineError, match="unknown fix 'nonsense'"):
        rig.pool.set_fix("nonsense", "on")


def test_a_sync_brings_the_new_weights(rig: Rig) -> None:
    old, before = rig.model, rig.version
    rig.pool.set_fix("prefix-cache-off", "on")  # cached blocks are the old weights'
    report = rig.sync(support.engine_moved(old, head_only=False))
    assert report.ok, report.detail
    assert (report.version_before, report.version_after) == (before, rig.version)
    assert report.bytes >= sum(t.numel() * t.element_size() for t in rig.model.state_dict().values())
    assert 0 < report.pause_s + report.load_s + report.resume_s <= report.total_s * 1.01
    assert len(segments()) <= 1  # at most one is kept, for the next sync
    assert report.digest == digest(rig.model.state_dict())
    assert report.fixes == tuple(states[0] for states in rig.pool.fix_states().values())
    groups = support.engine_rollouts(rig.pool, 4)
    assert all(np.all(s.versions == rig.version) for g in groups for s in g.sequences)
    assert support.engine_gap(rig.model, groups).mean() < CLOSE
    assert support.engine_gap(old, groups).mean() > 100 * CLOSE


def test_every_token_carries_the_version_that_sampled_it(rig: Rig) -> None:
    """Only the head changes: the cached keys and values of sequences in flight stay right, so each token must agree

    exactly with the body and the head of the version it is stamped with, and with no other.
    """
    models = {rig.version: rig.model}
    rig.pool.stats()
    support.engine_submit(rig.pool, 16)
    in_flight = 0
    for _ in range(2):
        generated = 0.0
        while generated < 200 and rig.pool.in_flight:  # tokens, so that both sides of the sync have some
            stats = rig.pool.stats()
            generated += stats.tokens_per_s * stats.interval_s
        report = rig.sync(support.engine_moved(rig.model, head_only=True))
        assert report.ok, report.detail
        in_flight += report.in_flight
        models[rig.version] = rig.model
    groups = support.engine_collect(rig.pool, 16)
    assert in_flight > 0

    right, wrong, straddling = [], [], 0
    for group in groups:
        references = {version: support.engine_reference(model, group) for version, model in models.items()}
        for index, sequence in enumerate(group.sequences):
            assert np.all(np.diff(sequence.versions) >= 0)
            straddling += sequence.versions[0] != sequence.versions[-1]
            for version, reference in references.items():
                gap = np.abs(sequence.logprobs - reference[index])
                right.append(gap[sequence.versions == version])
                wrong.append(gap[sequence.versions != version])
    assert straddling > 0
    assert np.concatenate(right).max() < 10 * CLOSE
    assert np.concatenate(wrong).mean() > 100 * CLOSE


def test_a_pause_holds_everything_and_outlasts_a_sync(rig: Rig) -> None:
    (first,), (second,) = rig.pool.pause(), rig.pool.pause()
    assert (first.paused, first.changed, second.paused, second.changed) == (True, True, True, False)
    support.engine_submit(rig.pool, 2, n=4)
    report = rig.sync(support.engine_moved(rig.model, head_only=True))
    assert report.ok
    assert rig.pool.stats().engines[0].phase == "paused"
    assert rig.pool.take(1.0) == []
    assert rig.pool.in_flight == 2
    (first,), (second,) = rig.pool.resume(), rig.pool.resume()
    assert (first.paused, first.changed, second.paused, second.changed) == (False, True, False, False)
    groups = support.engine_collect(rig.pool, 2)
    assert all(np.all(s.versions == rig.version) for g in groups for s in g.sequences)


def test_incomplete_weights_never_serve_a_token(rig: Rig) -> None:
    good = rig.model
    partial = {name: tensor for name, tensor in good.state_dict().items() if "layers.1.mlp" not in name}
    (report,) = rig.pool.sync(partial, rig.version + 1)
    assert (report.ok, report.attempts) == (False, 3)
    assert report.version_after == rig.version
    assert "no weights came for" in report.detail
    support.engine_submit(rig.pool, 1)
    with pytest.raises(EngineError, match="engine-0: stays paused"):
        rig.pool.resume()
    assert rig.pool.take(1.0) == []
    assert rig.sync(good).ok
    assert support.engine_gap(good, support.engine_collect(rig.pool, 1)).mean() < CLOSE


def test_a_request_that_cannot_be_served_is_refused_at_once(rig: Rig) -> None:
    for request in (RolloutRequest(7, [2] * 256, 1), RolloutRequest(7, [], 1), RolloutRequest(7, [2], 0)):
        with pytest.raises(EngineError, match=r"group 7: .* allowed: at least 1 sample, 1 to 255 tokens"):
            rig.pool.submit(request)
    assert rig.pool.in_flight == 0
