"""Engines of another vLLM beside this one in one pool. Skipped where that environment has not been made."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

from driftline import environments
from engine import Group
from engine.types import EngineError, RolloutRequest
from tests.e2e.engine_support import (
    CLOSE,
    LIMIT_S,
    PROMPT,
    VOCABULARY,
    engine_collect,
    engine_gap,
    engine_reference,
    engine_rollouts,
)
from tests.e2e.shadow_rig import GROUPS, Rig, two_engines

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

V0, FIRST = "vllm-0.8.5.post2", "vllm-0.18.1"


def why_not(name: str) -> str:
    """Why no engine can run in an environment here; "" where one can."""
    try:
        environments.check(environments.find(name, os.environ))
    except environments.EnvironmentUnusableError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module", params=[FIRST, V0])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    if sentence := why_not(request.param):
        pytest.skip(sentence)
    with two_engines(tmp_path_factory.mktemp(request.param), request.param) as rig:
        yield rig


def is_v0(rig: Rig) -> bool:
    return rig.pool.infos[1].vllm.startswith("0.8.5")


def test_it_says_what_it_is(rig: Rig) -> None:
    info, state = rig.pool.infos[1], rig.pool.stats().engines[1]
    assert state.environment in (V0, FIRST)
    assert info.vllm == state.vllm != rig.pool.infos[0].vllm
    assert state.environment.removeprefix("vllm-").startswith(info.vllm.partition("+")[0])
    fixes = {fix_id: states[1] for fix_id, states in rig.pool.fix_states().items()}
    print({fix_id: (one.effective, one.how, one.detail) for fix_id, one in fixes.items()})
    assert fixes["fp32-lm-head"].effective == "on"
    assert "Driftline's code" in fixes["fp32-lm-head"].detail
    assert fixes["inflight-keep"].effective == "on"
    if is_v0(rig):
        assert fixes["processed-logprobs"].how == "not_available"
        assert "V0: processed by itself" in fixes["processed-logprobs"].detail
        assert fixes["prefix-cache-off"].effective == "removed"
        assert "V0: off by default" in fixes["prefix-cache-off"].detail
        assert "V0 has no async scheduling" in fixes["async-scheduling-off"].detail
        with pytest.raises(EngineError, match="cannot be switched off here: V0: processed by itself"):
            rig.pool.set_fix("processed-logprobs", "off", "engine-1")
    else:
        assert {one.effective for one in fixes.values()} == {"on"}


def test_its_logprobs_are_the_model_s_before_and_after_a_sync(rig: Rig) -> None:
    before = engine_rollouts(rig.pool, 8)
    assert {group.engine for group in before} == {"engine-0", "engine-1"}
    gap = engine_gap(rig.model, before)
    assert gap.mean() < CLOSE, f"{gap.mean()}"
    reports = rig.sync(1)
    assert [report.ok for report in reports] == [True, True]
    assert len({report.digest for report in reports}) == 1
    assert {report.verified for report in reports} == {"held"}
    after = engine_rollouts(rig.pool, 8)
    assert {int(version) for group in after for sequence in group.sequences for version in sequence.versions} == {1}
    assert (gap := engine_gap(rig.model, after)).mean() < CLOSE, f"after the sync: {gap.mean()}"


def test_the_two_agree_token_by_token(rig: Rig) -> None:
    for pair, found in rig.compared().items():
        assert found.mean() < CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"


def test_raw_logprobs_of_this_vllm_show_against_it(rig: Rig) -> None:
    rig.pool.set_fix("processed-logprobs", "off", "engine-0")
    try:
        for pair, found in rig.compared().items():
            assert found.mean() > 100 * CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"
    finally:
        rig.pool.set_fix("processed-logprobs", "on", "engine-0")
    for pair, found in rig.compared().items():
        assert found.mean() < CLOSE, f"{pair}, back on: {found.mean()}"


def test_a_stale_prefix_cache_of_this_vllm_shows_against_it(rig: Rig) -> None:
    """Every engine has the prompts' blocks of the older weights cached, but only engine-0 reads them.

    All begin alike: each has them, whichever has sampled or scored which prompt.
    """
    drawn = np.random.default_rng(5).integers(2, VOCABULARY, (GROUPS, PROMPT))
    drawn[:, :-8] = drawn[0, :-8]
    prompts = drawn.tolist()
    rig.pool.set_fix("prefix-cache-off", "off", "engine-0")
    try:
        rig.compared(prompts=prompts)
        assert all(report.ok for report in rig.sync(2))
        for pair, found in rig.compared(prompts=prompts).items():
            assert found.mean() > 100 * CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"
    finally:
        rig.pool.set_fix("prefix-cache-off", "on", "engine-0")
    for pair, found in rig.compared(prompts=prompts).items():
        assert found.mean() < CLOSE, f"{pair}, back on: {found.mean()}"


def straddling(rig: Rig, version: int) -> list[Group]:
    """Groups of engine-1 that were in flight across a sync to this version."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        assert time.monotonic() < deadline, "no group was in flight across a sync"
        for group in range(16):
            rig.pool.submit(RolloutRequest(group, np.random.default_rng(group).integers(2, 99, PROMPT).tolist(), 8))
        reports = rig.sync(version)
        assert all(report.ok for report in reports), reports
        found = [
            group
            for group in engine_collect(rig.pool, 16)
            if group.engine == "engine-1" and any(len(set(one.versions.tolist())) > 1 for one in group.sequences)
        ]
        if found:
            return found
        version += 1


def test_a_token_says_which_weights_sampled_it_also_in_a_sequence_across_a_sync(rig: Rig) -> None:
    before = rig.model
    for group in straddling(rig, 3):
        assert not group.aborted
        for sequence, reference in zip(group.sequences, engine_reference(before, group), strict=True):
            assert (np.diff(sequence.versions) >= 0).all()
            old = sequence.versions < sequence.versions.max()
            if old.any() and not old.all():
                assert np.abs(sequence.logprobs - reference)[old].max() < 10 * CLOSE
                assert np.abs(sequence.logprobs - reference)[~old].max() > 100 * CLOSE


def test_it_pauses_between_steps_and_goes_on(rig: Rig) -> None:
    for group in range(16):
        rig.pool.submit(RolloutRequest(group, np.random.default_rng(group).integers(2, 99, PROMPT).tolist(), 8))
    held = {report.engine: report for report in rig.pool.pause()}
    assert held["engine-1"].paused
    while rig.pool.take(1.0):
        pass  # what was through already
    assert rig.pool.in_flight > 0
    assert {state.phase for state in rig.pool.stats().engines} == {"paused"}
    rig.pool.resume()
    deadline = time.monotonic() + LIMIT_S
    while rig.pool.outstanding:
        assert time.monotonic() < deadline
        assert not any(group.aborted for group in rig.pool.take(1.0))


def test_a_bfloat16_head_shows_and_a_float32_one_ends_it(rig: Rig) -> None:
    assert rig.pool.apply_fix("fp32-lm-head", "off") == "next_sync"
    assert all(report.ok for report in rig.sync(20))
    half = engine_gap(rig.model, [group for group in engine_rollouts(rig.pool, 8) if group.engine == "engine-1"])
    rig.pool.apply_fix("fp32-lm-head", "on")
    assert all(report.ok for report in rig.sync(21))
    whole = engine_gap(rig.model, [group for group in engine_rollouts(rig.pool, 8) if group.engine == "engine-1"])
    print(f"head bfloat16 {half.mean():.2g}, float32 {whole.mean():.2g}")
    assert whole.mean() < CLOSE < half.mean()
