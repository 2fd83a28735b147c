"""The pool's control logic without Ray: errors, rollback, liveness. What an engine does is tested on the real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from driftline.config import EngineConfig, SamplingConfig
from engine.cluster.ray_calls import LoopThread, unwrap
from engine.pool.pool import EnginePool
from engine.types import EngineError, RolloutRequest
from tests.unit.pool_fakes import LIMIT_S, ScriptedPool

PROMPT = [1, 2, 3]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[ScriptedPool]:
    scripted = ScriptedPool(tmp_path, 2)
    yield scripted
    scripted.pool.close()


def unstarted(folder: Path) -> EnginePool:
    return EnginePool(
        EngineConfig(), SamplingConfig(), model=folder, dtype="float32", fixes={}, connection=None, keys=None,
        log_dir=folder, on_progress=lambda _: None,
    )  # fmt: skip


def test_requests_go_to_the_engine_with_the_fewest_sequences(two: ScriptedPool) -> None:
    first, second = two.actor("engine-0"), two.actor("engine-1")
    two.run(lambda: (first.answers.clear(), second.answers.clear()))
    two.pool.submit(RolloutRequest(0, PROMPT, 8))
    for group in (1, 2):
        two.pool.submit(RolloutRequest(group, PROMPT, 4))
    assert two.pool.in_flight == 3
    assert two.pool.take(0.0) == []
    two.run(lambda: (first.answers.set(), second.answers.set()))
    assert two.groups(3) == {0: "engine-0", 1: "engine-1", 2: "engine-1"}
    assert two.pool.in_flight == two.pool.outstanding == 0


def test_a_pause_behind_a_long_sync_waits_for_it_and_costs_no_engine(
    two: ScriptedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large model's load, or a sync that waits for long responses, takes longer than any other control call may."""
    monkeypatch.setattr("engine.pool.members.CONTROL_S", 0.05)
    slow = two.actor("engine-0")
    two.run(slow.sync_takes.clear)
    with ThreadPoolExecutor(3) as threads:
        synced = threads.submit(two.pool.sync, {"w": torch.zeros(2)}, 1, timeout=LIMIT_S)
        two.until(lambda: "sync 1" in slow.calls)
        paused = threads.submit(two.pool.pause)
        read = threads.submit(two.pool.fix_states)
        with pytest.raises(TimeoutError):
            paused.result(0.5)
        two.run(slow.sync_takes.set)
        assert [report.paused for report in paused.result(LIMIT_S)] == [True, True]
        assert [report.ok for report in synced.result(LIMIT_S)] == [True, True]
        assert [fix.effective for fix in read.result(LIMIT_S)["processed-logprobs"]] == ["off", "off"]
    assert two.of("engine.died") == []


def test_a_request_that_a_living_engine_cannot_serve_ends_a_waiting_take(two: ScriptedPool) -> None:
    async def refuses(request: RolloutRequest) -> Any:
        return EngineError(f"engine-0: group {request.group} failed: no")

    two.actor("engine-0").do_generate = refuses
    two.pool.submit(RolloutRequest(0, PROMPT, 1))
    with pytest.raises(EngineError, match="engine-0: group 0 failed: no"):
        two.pool.take(60)
    with pytest.raises(EngineError, match="engine-0: group 0 failed: no"):
        two.pool.submit(RolloutRequest(1, PROMPT, 1))


def test_a_fix_is_switched_on_all_engines_or_none(two: ScriptedPool) -> None:
    first, second = two.actor("engine-0"), two.actor("engine-1")
    assert [state.effective for state in two.pool.set_fix("processed-logprobs", "on")] == ["on", "on"]
    assert two.pool.wanted["processed-logprobs"] == "on"
    two.pool.set_fix("processed-logprobs", "off")
    second.refuse_fix = ("on",)
    with pytest.raises(EngineError, match=r"not switched on: engine-1: refused; engine-0, engine-1 as before"):
        two.pool.set_fix("processed-logprobs", "on")
    assert (first.values["processed-logprobs"], second.values["processed-logprobs"]) == ("off", "off")
    assert two.pool.wanted["processed-logprobs"] == "off"


def test_a_fix_that_reads_back_otherwise_is_an_error_and_undone(two: ScriptedPool) -> None:
    two.actor("engine-1").lie_fix = "off"
    with pytest.raises(EngineError, match="engine-1: it reads back 'off'"):
        two.pool.set_fix("processed-logprobs", "on")
    assert two.actor("engine-0").values["processed-logprobs"] == "off"


def test_a_fix_change_asks_every_engine_once(two: ScriptedPool) -> None:
    two.pool.set_fix("processed-logprobs", "on")
    for name in two.pool.names:
        assert two.actor(name).calls == ["set_fix processed-logprobs on"]


def test_an_engine_that_cannot_be_set_back_is_built_anew(two: ScriptedPool) -> None:
    first, second = two.actor("engine-0"), two.actor("engine-1")
    first.refuse_fix, second.refuse_fix = ("off",), ("on",)
    with pytest.raises(EngineError, match=r"engine-1: refused; engine-1 as before; engine-0 built anew"):
        two.pool.set_fix("processed-logprobs", "on")
    two.until(lambda: two.of("engine.replaced"))
    (event,) = two.of("fix.set-back")
    assert (event["engine"], event["fix"], event["value"]) == ("engine-0", "processed-logprobs", "off")
    assert two.actor("engine-0") is not first
    assert [s.effective for s in two.pool.fix_states("processed-logprobs")["processed-logprobs"]] == ["off", "off"]


def test_an_engine_that_dies_in_a_fix_change_undoes_it(two: ScriptedPool) -> None:
    second = two.actor("engine-1")

    async def dies(fix_id: str, value: str) -> None:
        second.dead.set()
        await asyncio.sleep(60)

    second.do_set_fix = dies
    with pytest.raises(EngineError, match=r"engine-1: its process died.*; engine-0 as before; engine-1 built anew"):
        two.pool.set_fix("processed-logprobs", "on")
    two.until(lambda: two.of("engine.replaced"))
    assert {two.actor(name).values["processed-logprobs"] for name in two.pool.names} == {"off"}


def test_how_a_fix_takes_effect_is_known_without_asking(two: ScriptedPool) -> None:
    ways = {
        ("processed-logprobs", "on"): "live",
        ("prefix-cache-off", "removed"): "engine_restart",
        ("async-scheduling-off", "on"): "engine_restart",
        ("inflight-keep", "wait"): "next_sync",
        ("fp32-lm-head", "on"): "next_sync",
    }
    assert {key: two.pool.how(*key) for key in ways} == ways
    assert [two.actor(name).calls for name in two.pool.names] == [[], []]
    for fix_id, value, why in (
        ("fp32-lm-head", "on", "takes effect with the next weight sync, not at once"),
        ("prefix-cache-off", "removed", "takes effect with a restart of the engine, not at once"),
        ("nonsense", "on", "unknown fix 'nonsense'"),
        ("fp32-lm-head", "maybe", "'maybe' is not a value"),
    ):
        with pytest.raises(EngineError, match=why):
            two.pool.set_fix(fix_id, value)
    with pytest.raises(EngineError, match="does not take effect at a weight sync"):
        two.pool.stage_fix("processed-logprobs", "on")
    with pytest.raises(EngineError, match="not by a restart"):
        two.pool.restart_fix("fp32-lm-head", "on")


def test_a_staged_fix_comes_with_the_next_sync(two: ScriptedPool) -> None:
    two.pool.stage_fix("fp32-lm-head", "off")
    two.pool.stage_fix("fp32-lm-head", "on")
    assert two.pool.staged == {"fp32-lm-head": "on"}
    assert two.pool.wanted["fp32-lm-head"] == "off"
    two.pool.sync({"w": torch.ones(2)}, 1)
    assert two.pool.staged == {}
    assert two.pool.wanted["fp32-lm-head"] == "on"
    assert {two.actor(name).values["fp32-lm-head"] for name in two.pool.names} == {"on"}


def test_the_pools_own_thread_may_not_wait_for_itself(two: ScriptedPool) -> None:
    async def reentrant() -> str:
        try:
            two.pool.pause()
        except EngineError as error:
            return str(error)
        return ""

    assert "cannot wait" in two.pool._loop.wait(reentrant(), 10)


def test_a_pool_that_is_not_started_or_closed_says_so(tmp_path: Path) -> None:
    pool = unstarted(tmp_path)
    uses = (
        lambda: pool.submit(RolloutRequest(0, PROMPT, 1)),
        lambda: pool.pause(),
        lambda: pool.sync({}, 1),
        lambda: pool.how("fp32-lm-head", "on"),
        lambda: pool.restart_fix("prefix-cache-off", "removed"),
        lambda: pool.fix_states(),
    )
    for use in uses:
        with pytest.raises(EngineError, match="not started"):
            use()
    pool.close()
    pool.close()
    for use in (*uses, lambda: pool.take(60), lambda: pool.resume()):
        with pytest.raises(EngineError, match="closed"):
            use()


def test_a_missing_model_starts_nothing(tmp_path: Path) -> None:
    pool = unstarted(tmp_path)
    with pytest.raises(EngineError, match=r"holds no config\.json"):
        pool.start()
    assert not pool._loop.running


def test_closing_wakes_a_waiting_take(two: ScriptedPool) -> None:
    errors: list[EngineError] = []

    def wait() -> None:
        try:
            two.pool.take(60)
        except EngineError as error:
            errors.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    two.pool.close()
    waiter.join(30)
    assert not waiter.is_alive()
    assert [str(error) for error in errors] == ["the engine pool is closed"]


def test_a_loop_thread_waits_no_longer_than_it_says() -> None:
    loop = LoopThread("test")
    loop.start()
    try:
        with pytest.raises(EngineError, match=r"no answer within 0\.05 s"):
            loop.wait(asyncio.sleep(60), 0.05)
        assert loop.wait(asyncio.sleep(0, "answer"), 10) == "answer"
        pending = loop.schedule(asyncio.sleep(60))
    finally:
        loop.stop()
    assert pending.cancelled()
    assert not loop.running
    with pytest.raises(EngineError, match="not running"):
        loop.schedule(asyncio.sleep(0))


def test_unwrap_raises_the_first_error() -> None:
    assert unwrap([1, 2]) == [1, 2]
    with pytest.raises(EngineError, match="b"):
        unwrap(["a", EngineError("b"), EngineError("c")])
