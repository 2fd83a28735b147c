"""The pool's control logic without Ray: errors, rollback, liveness. What an engine does is tested on the real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from driftline.config import EngineConfig, SamplingConfig
from driftline.frames import EngineFix
from engine.calls import LoopThread, unwrap
from engine.pool import EnginePool, _Member
from engine.types import EngineError, Group, RolloutRequest

PROMPT = [1, 2, 3]


class Remote:
    """Gives a coroutine method the `.remote(...)` that the pool calls."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self._method = method

    def remote(self, *args: Any) -> Awaitable[Any]:
        return self._method(*args)


class Scripted:
    """Stands in for an actor handle in the pool's bookkeeping; it is not an engine and samples nothing."""

    def __init__(self, name: str, *, broken: bool = False) -> None:
        self.name, self.value, self.broken = name, "off", broken
        self.served = 0
        self.hold = asyncio.Event()
        for method in ("generate", "set_fix", "fix_states"):
            setattr(self, method, Remote(getattr(self, f"_{method}")))

    async def _generate(self, request: RolloutRequest) -> Group | EngineError:
        if self.broken:
            return EngineError(f"{self.name}: its process died")
        await self.hold.wait()
        self.served += 1
        return Group(request.group, self.name, request.prompt_ids, [], 0.0, 0.0)

    async def _set_fix(self, fix_id: str, value: str) -> EngineFix | EngineError:
        if self.broken and value == "on":
            return EngineError(f"{self.name}: refused")
        self.value = value
        return EngineFix(self.name, self.value, "live")

    async def _fix_states(self) -> dict[str, EngineFix]:
        return {"processed-logprobs": EngineFix(self.name, self.value, "live")}


def make_pool(tmp_path: Path, *actors: Scripted) -> EnginePool:
    """A pool over scripted handles, with its real thread, queues and checks, but no Ray."""
    pool = EnginePool(
        EngineConfig(count=max(1, len(actors))),
        SamplingConfig(),
        model=tmp_path,
        dtype="float32",
        fixes={},
        connection=None,
        keys=None,
        log_dir=tmp_path,
        on_progress=lambda _: None,
    )
    pool._members = [_Member(actor.name, actor) for actor in actors]
    if actors:
        pool._loop.start()
    return pool


@pytest.fixture
def two(tmp_path: Path) -> Any:
    actors = (Scripted("engine-0"), Scripted("engine-1"))
    pool = make_pool(tmp_path, *actors)
    yield pool, *actors
    pool._loop.stop()


def release(pool: EnginePool, *actors: Scripted) -> None:
    async def let_go() -> None:
        for actor in actors:
            actor.hold.set()

    pool._loop.wait(let_go(), 10)


def test_requests_go_to_the_engine_with_the_fewest_sequences(two: Any) -> None:
    pool, first, second = two
    pool.submit(RolloutRequest(0, PROMPT, 8))
    for group in (1, 2):
        pool.submit(RolloutRequest(group, PROMPT, 4))
    assert pool.in_flight == 3
    assert pool.take(0.0) == []
    release(pool, first, second)
    engines = {}
    while len(engines) < 3:
        engines |= {group.group: group.engine for group in pool.take(10)}
    assert engines == {0: "engine-0", 1: "engine-1", 2: "engine-1"}
    assert pool.in_flight == 0


def test_a_dead_engine_ends_a_waiting_take_at_once(two: Any) -> None:
    pool, first, _ = two
    first.broken = True
    pool.submit(RolloutRequest(0, PROMPT, 1))
    with pytest.raises(EngineError, match="engine-0: its process died"):
        pool.take(60)
    with pytest.raises(EngineError, match="engine-0: its process died"):
        pool.submit(RolloutRequest(1, PROMPT, 1))


def test_a_fix_is_switched_on_all_engines_or_none(two: Any) -> None:
    pool, first, second = two
    assert [state.effective for state in pool.set_fix("processed-logprobs", "on")] == ["on", "on"]
    pool.set_fix("processed-logprobs", "off")
    second.broken = True
    with pytest.raises(EngineError, match=r"not switched on: engine-1: refused; every engine is as it was"):
        pool.set_fix("processed-logprobs", "on")
    assert (first.value, second.value) == ("off", "off")


def test_a_fix_that_reads_back_otherwise_is_an_error_and_undone(two: Any) -> None:
    pool, first, second = two

    async def lies(fix_id: str, value: str) -> EngineFix:
        return EngineFix("engine-1", "off", "live")

    second.set_fix = Remote(lies)
    with pytest.raises(EngineError, match="engine-1: it reads back 'off'"):
        pool.set_fix("processed-logprobs", "on")
    assert first.value == "off"


def test_a_pool_that_is_not_started_or_closed_says_so(tmp_path: Path) -> None:
    pool = make_pool(tmp_path)
    for use in (lambda: pool.submit(RolloutRequest(0, PROMPT, 1)), lambda: pool.pause(), lambda: pool.sync({}, 1)):
        with pytest.raises(EngineError, match="not started"):
            use()
    pool.close()
    pool.close()
    for use in (lambda: pool.take(60), lambda: pool.resume(), lambda: pool.submit(RolloutRequest(0, PROMPT, 1))):
        with pytest.raises(EngineError, match="closed"):
            use()


def test_a_missing_model_starts_nothing(tmp_path: Path) -> None:
    pool = make_pool(tmp_path)
    with pytest.raises(EngineError, match=r"holds no config\.json"):
        pool.start()
    assert not pool._loop.running


def test_closing_wakes_a_waiting_take(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, *_ = two

    async def nothing() -> None:
        pass

    monkeypatch.setattr(pool, "_end_engines", nothing)
    errors: list[EngineError] = []

    def wait() -> None:
        try:
            pool.take(60)
        except EngineError as error:
            errors.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    pool.close()
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
