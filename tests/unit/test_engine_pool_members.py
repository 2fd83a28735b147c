"""Deaths, replacements, syncs and rolling restarts in the pool's bookkeeping, over scripted handles (no engines)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from driftline import clocks
from engine.pool import recovery
from engine.pool.recovery import LOADS
from engine.types import DeadCoreError, EngineError, RolloutRequest
from tests.unit.pool_fakes import LIMIT_S, Scripted, ScriptedPool

PROMPT = [1, 2, 3]
WEIGHTS = {"w": torch.ones(4)}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "PAUSE_S", 0.01)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[ScriptedPool]:
    scripted = ScriptedPool(tmp_path, 2)
    yield scripted
    scripted.pool.close()


def busy(scripted: ScriptedPool, groups: int = 8) -> None:
    """Requests on every engine that none of them answers."""
    scripted.run(lambda: [scripted.actor(name).answers.clear() for name in scripted.pool.names])
    for group in range(groups):
        scripted.pool.submit(RolloutRequest(group, PROMPT, 2))


def kill(scripted: ScriptedPool, name: str) -> Scripted:
    actor = scripted.actor(name)
    scripted.run(actor.dead.set)
    return actor


# -- deaths and replacements ------------------------------------------------------------------------------------------


def test_a_dead_engines_groups_go_to_the_others_and_each_comes_once(two: ScriptedPool) -> None:
    busy(two)
    dead = kill(two, "engine-1")
    two.until(lambda: two.of("rollouts.moved"))
    two.run(lambda: [dead.answers.set(), two.actor("engine-0").answers.set()])
    assert set(two.groups(8)) == set(range(8))
    assert two.pool.in_flight == 0
    assert two.pool.take(0.0) == []
    assert two.of("rollouts.moved")[0]["groups"] == 4
    assert two.of("engine.died")[0]["engine"] == "engine-1"
    assert "its process died" in two.of("engine.died")[0]["text"]


def test_with_every_engine_dead_groups_wait_for_a_replacement(tmp_path: Path) -> None:
    one = ScriptedPool(tmp_path, 1)
    try:
        busy(one, 3)
        kill(one, "engine-0")
        assert set(one.groups(3).values()) == {"engine-0"}
        (replaced,) = one.of("engine.replaced")
        assert replaced["down_s"] >= 0
        assert sorted(one.actor("engine-0").served) == [0, 1, 2]
    finally:
        one.pool.close()


def test_a_replacement_has_the_wanted_fixes_and_the_newest_weights(two: ScriptedPool) -> None:
    two.pool.set_fix("processed-logprobs", "on")
    two.pool.stage_fix("inflight-keep", "wait")
    two.pool.sync(WEIGHTS, 7)
    kill(two, "engine-0")
    two.until(lambda: two.of("engine.replaced"))
    fresh = two.actor("engine-0")
    assert fresh.spec.fixes == two.pool.wanted
    assert two.pool.wanted["processed-logprobs"] == "on"
    assert two.pool.wanted["inflight-keep"] == "wait"
    assert (fresh.spec.version, fresh.version, fresh.calls) == (7, 7, ["sync 7"])
    assert two.of("engine.replaced")[0]["version"] == 7


def test_an_engine_that_loads_meanwhile_joins_with_what_was_changed_meanwhile(two: ScriptedPool) -> None:
    two.pool.sync(WEIGHTS, 1)
    two.spawner.script = lambda actor: actor.loaded.clear()
    kill(two, "engine-0")
    two.until(lambda: len(two.actors("engine-0")) == 2)
    two.pool.set_fix("processed-logprobs", "on")
    two.pool.stage_fix("fp32-lm-head", "on")
    assert [report.engine for report in two.pool.sync(WEIGHTS, 2)] == ["engine-1"]
    two.pool.pause(lease_until=time.time() + LIMIT_S)
    assert two.pool.fix_states("fp32-lm-head")["fp32-lm-head"][0].detail == "restarting"
    assert two.pool.fix_states("fp32-lm-head")["fp32-lm-head"][0].effective == ""
    states = {state.engine: state.phase for state in two.pool.stats().engines}
    assert states == {"engine-0": "restarting", "engine-1": "paused"}
    fresh = two.actor("engine-0")
    two.run(fresh.loaded.set)
    two.until(lambda: two.of("engine.replaced"))
    assert (fresh.version, fresh.paused) == (2, True)
    assert fresh.values == two.actor("engine-1").values == two.pool.wanted
    two.pool.resume()
    assert not fresh.paused


def test_no_engine_enters_with_older_weights_than_a_sync_that_came_meanwhile(two: ScriptedPool) -> None:
    """The replacement takes version 1 while a sync of version 2 goes on, and serves with 2."""
    two.pool.sync(WEIGHTS, 1)
    two.spawner.script = lambda actor: actor.sync_takes.clear()
    kill(two, "engine-0")
    two.until(lambda: len(two.actors("engine-0")) == 2 and two.actor("engine-0").calls == ["sync 1"])
    assert [report.engine for report in two.pool.sync(WEIGHTS, 2)] == ["engine-1"]
    fresh = two.actor("engine-0")
    two.run(fresh.sync_takes.set)
    two.until(lambda: two.of("engine.replaced"))
    assert (fresh.calls, fresh.version) == (["sync 1", "sync 2"], 2)


def test_a_replacement_that_does_not_start_is_tried_again_and_counted(two: ScriptedPool) -> None:
    tries = iter([True, True, False])

    def script(actor: Scripted) -> None:
        actor.refuse_start = "no memory" if next(tries) else ""

    two.spawner.script = script
    kill(two, "engine-1")
    two.until(lambda: two.of("engine.replaced"))
    assert len(two.actors("engine-1")) == 4
    assert [event["text"] for event in two.of("engine.died")[1:]] == [
        "engine-1 did not come back: engine-1: no memory"
    ] * 2


def test_after_the_bound_the_next_death_ends_the_run(tmp_path: Path) -> None:
    scripted = ScriptedPool(tmp_path, 2, replacements=1)
    try:
        kill(scripted, "engine-0")
        scripted.until(lambda: scripted.of("engine.replaced"))
        busy(scripted, 1)
        kill(scripted, "engine-1")
        with pytest.raises(EngineError, match=r"engine-1: its process died.*engine\.replacements = 1"):
            scripted.pool.take(LIMIT_S)
        with pytest.raises(EngineError, match="engine-1"):
            scripted.pool.submit(RolloutRequest(9, PROMPT, 1))
        with pytest.raises(EngineError, match="engine-1"):
            scripted.pool.sync(WEIGHTS, 1)
        scripted.until(lambda: scripted.of("engine.gave-up"))
        assert scripted.of("engine.gave-up")[0]["engine"] == "engine-1"
    finally:
        scripted.pool.close()


@pytest.mark.parametrize("calls", range(1, 6))
def test_a_start_that_comes_to_its_end_between_two_looks_at_it(
    two: ScriptedPool, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    # Each name is done once it has been asked `calls` times: also right after "not all are done".
    class Late(Future[Any]):
        asked = 0

        def done(self) -> bool:
            self.asked += 1
            if self.asked == calls:
                self.set_result(two.pool._fleet.members["engine-0"])
            return super().done()

    starts = [Late(), Late()]
    with monkeypatch.context() as patched:
        patched.setattr(two.pool._recovery, "first_start", lambda name: name)
        patched.setattr(two.pool, "stats", lambda: None)
        patched.setattr(two.pool._loop, "schedule", lambda name: starts[two.pool.names.index(name)])
        two.pool._start_engines()


def test_an_engine_that_is_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    made: list[Scripted] = []

    def script(actor: Scripted) -> None:
        made.append(actor)
        if len(made) == 1:
            actor.dead.set()

    one = ScriptedPool(tmp_path, 1, script)
    try:
        assert one.actors("engine-0") == made
        assert len(made) == 2
        [death] = one.of("engine.died")
        assert "its process died" in death["text"]
        assert "it had not started yet, another one is started" in death["text"]
        one.pool.submit(RolloutRequest(0, [1, 2], 1))
        assert one.groups(1) == {0: "engine-0"}
    finally:
        one.pool.close()


def test_an_engine_that_dies_at_every_start_ends_the_start(tmp_path: Path) -> None:
    made: list[Scripted] = []

    def script(actor: Scripted) -> None:
        made.append(actor)
        actor.dead.set()

    with pytest.raises(EngineError, match="engine-0: its process died"):
        ScriptedPool(tmp_path, 1, script, replacements=2)
    assert len(made) == 3


def _killed_while_it_loads(actor: Scripted) -> None:
    async def start() -> EngineError:
        return DeadCoreError(f"{actor.name}: vLLM's engine core was killed by SIGKILL while it loaded; see log")

    actor.do_start = start  # type: ignore[method-assign,assignment]


def test_an_engine_whose_core_is_killed_while_it_loads_is_started_again(tmp_path: Path) -> None:
    made: list[Scripted] = []

    def script(actor: Scripted) -> None:
        made.append(actor)
        if len(made) < LOADS:
            _killed_while_it_loads(actor)

    one = ScriptedPool(tmp_path, 1, script)
    try:
        assert len(made) == LOADS
        deaths = [death["text"] for death in one.of("engine.died")]
        assert len(deaths) == LOADS - 1
        assert all("killed by SIGKILL while it loaded" in text for text in deaths)
        assert all("it had not started yet, another one is started" in text for text in deaths)
        one.pool.submit(RolloutRequest(0, [1, 2], 1))
        assert one.groups(1) == {0: "engine-0"}
    finally:
        one.pool.close()


def test_a_core_that_is_killed_each_time_it_loads_ends_the_start_with_the_reason(tmp_path: Path) -> None:
    made: list[Scripted] = []

    def script(actor: Scripted) -> None:
        made.append(actor)
        _killed_while_it_loads(actor)

    with pytest.raises(EngineError, match=r"killed by SIGKILL while it loaded; see log \(3 times; it is not started"):
        ScriptedPool(tmp_path, 1, script)
    assert len(made) == LOADS


def test_without_ray_every_wait_ends_and_no_engine_is_asked_to_end(two: ScriptedPool) -> None:
    """As the watch over Ray's processes reports it; on real ones it is fault 29."""
    two.pool.submit(RolloutRequest(0, [1, 2], 1))
    two.groups(1)
    text = "Ray's raylet (process 7) has died, and no engine lives without it"
    two.pool._cluster.lost = text
    two.pool._ray_lost(text)
    with pytest.raises(EngineError, match=r"Ray's raylet \(process 7\) has died"):
        two.pool.take(LIMIT_S)
    two.until(lambda: two.of("engine.gave-up"))
    two.run(lambda: two.actor("engine-0").dead.set())  # they follow, and none is replaced
    with pytest.raises(EngineError, match="Ray's raylet"):
        two.pool.sync({}, 1)
    assert two.pool.abandoned
    two.pool.close()
    assert [len(two.actors(name)) for name in two.pool.names] == [1, 1]
    assert not [call for name in two.pool.names for call in two.actor(name).calls if call == "close"]


def test_a_dead_core_is_a_dead_engine(two: ScriptedPool) -> None:
    """The actor lives on, and both its watch and a request tell that vLLM's core is dead."""
    died, error = asyncio.Event(), DeadCoreError("engine-0: vLLM's engine core died; CPU Generator")
    two.pool.close()
    fresh = ScriptedPool(two.pool._log_dir, 2, script=lambda actor: _core(actor, died, error))
    try:
        for group in range(4):
            fresh.pool.submit(RolloutRequest(group, PROMPT, 1))
        fresh.run(died.set)
        assert set(fresh.groups(4)) == {0, 1, 2, 3}
        fresh.until(lambda: fresh.of("engine.replaced"))
        assert fresh.of("engine.died")[0]["text"] == str(error)
        assert fresh.actors("engine-0")[0].dead.is_set()  # its actor was ended too
    finally:
        fresh.pool.close()


def _core(actor: Scripted, died: asyncio.Event, error: EngineError) -> None:
    if actor.spec.index:
        return

    async def watch() -> EngineError:
        await asyncio.sleep(60)  # the request knows it first
        return error

    async def generate(request: RolloutRequest) -> EngineError:
        await died.wait()
        return error

    actor.do_watch, actor.do_generate = watch, generate


# -- syncs ------------------------------------------------------------------------------------------------------------


def test_a_failed_load_is_repeated_and_counted(two: ScriptedPool) -> None:
    two.actor("engine-1").bad_loads = 2
    reports = two.pool.sync(WEIGHTS, 1, retries=2)
    assert [(r.engine, r.ok, r.attempts) for r in reports] == [("engine-0", True, 1), ("engine-1", True, 3)]
    two.actor("engine-1").bad_loads = 5
    reports = two.pool.sync(WEIGHTS, 2, retries=1)
    assert [(r.ok, r.attempts, r.version_after) for r in reports] == [(True, 1, 2), (False, 2, 1)]
    two.pool.submit(RolloutRequest(0, PROMPT, 1))
    two.pool.submit(RolloutRequest(1, PROMPT, 1))
    assert set(two.groups(2).values()) == {"engine-0"}  # the other may be held for its weights


def test_one_digest_serves_every_sync_of_a_version(two: ScriptedPool, monkeypatch: pytest.MonkeyPatch) -> None:
    digests: list[int] = []
    from engine.pool import weight_sync

    real = weight_sync.digest
    monkeypatch.setattr(weight_sync, "digest", lambda weights: digests.append(1) or real(weights))
    two.actor("engine-0").bad_loads = 1
    first = two.pool.sync(WEIGHTS, 1)
    two.pool.sync(WEIGHTS, 1)
    assert len(digests) == 1
    assert {report.digest for report in first} == {real(WEIGHTS)}
    two.pool.sync(dict(WEIGHTS), 1)
    assert len(digests) == 2


def test_weights_that_no_engine_could_load_are_not_given_to_a_replacement(two: ScriptedPool) -> None:
    two.pool.sync(WEIGHTS, 1)
    for name in two.pool.names:
        two.actor(name).bad_loads = 9
    assert not any(report.ok for report in two.pool.sync(WEIGHTS, 2, retries=0))
    kill(two, "engine-0")
    two.until(lambda: two.of("engine.replaced"))
    assert two.actor("engine-0").version == 1


def test_an_engine_that_dies_in_a_sync_is_left_out(two: ScriptedPool) -> None:
    second = two.actor("engine-1")
    two.run(second.sync_takes.clear)

    async def later() -> None:
        while not second.calls:
            await asyncio.sleep(0)
        second.dead.set()

    two.pool._loop.schedule(later())
    assert [report.engine for report in two.pool.sync(WEIGHTS, 3)] == ["engine-0"]
    two.until(lambda: two.of("engine.replaced"))
    assert two.actor("engine-1").version == 3


def test_a_hung_engine_counts_as_dead(two: ScriptedPool) -> None:
    second = two.actor("engine-1")
    two.run(second.sync_takes.clear)
    assert [report.engine for report in two.pool.sync(WEIGHTS, 3, timeout=1.0)] == ["engine-0"]
    two.until(lambda: two.of("engine.replaced"))
    assert "no answer within 1 s" in two.of("engine.died")[0]["text"]
    assert second.dead.is_set()


def test_a_sync_waits_for_an_engine_to_come_back(tmp_path: Path) -> None:
    one = ScriptedPool(tmp_path, 1)
    try:
        one.spawner.script = lambda actor: actor.loaded.clear()
        kill(one, "engine-0")
        one.until(lambda: len(one.actors("engine-0")) == 2)
        with pytest.raises(EngineError, match=r"no engine came up within 0\.1 s: engine-0 starting"):
            one.pool.sync(WEIGHTS, 1, timeout=0.1)
        with pytest.raises(EngineError, match="no engine is up"):
            one.pool.set_fix("processed-logprobs", "on")
        one.run(one.actor("engine-0").loaded.set)
        assert [report.version_after for report in one.pool.sync(WEIGHTS, 1, timeout=LIMIT_S)] == [1]
    finally:
        one.pool.close()


def test_with_a_barrier_all_are_let_go_together(two: ScriptedPool) -> None:
    two.actor("engine-1").bad_loads = 1
    two.pool.sync(WEIGHTS, 1, barrier=True)
    assert two.actor("engine-0").calls == ["sync 1", "release"]
    assert two.actor("engine-1").calls == ["sync 1", "sync 1", "release"]
    assert not any(two.actor(name).held for name in two.pool.names)
    two.pool.sync(WEIGHTS, 2)
    assert two.actor("engine-0").calls[2:] == ["sync 2"]


def test_groups_that_a_pause_cut_short_are_run_again_and_reported_once_a_sync(two: ScriptedPool) -> None:
    two.actor("engine-0").abort = 2
    two.actor("engine-1").abort = 1
    # On the pool's thread, so that none has come back before the last is sent: each engine is given three.
    two.run(lambda: [two.pool.submit(RolloutRequest(group, PROMPT, 1)) for group in range(6)])
    assert set(two.groups(6)) == set(range(6))
    assert two.of("rollouts.aborted") == []
    two.pool.sync(WEIGHTS, 1)
    two.pool.sync(WEIGHTS, 2)
    two.until(lambda: two.of("rollouts.aborted"))
    assert [event["groups"] for event in two.of("rollouts.aborted")] == [3]


def test_a_sync_during_a_sync_waits_for_it(two: ScriptedPool) -> None:
    second, done = two.actor("engine-1"), []
    two.run(second.sync_takes.clear)
    threads = [
        threading.Thread(target=lambda v=version: done.append(two.pool.sync(WEIGHTS, v)[1].version_after))
        for version in (1, 2)
    ]
    threads[0].start()
    two.until(lambda: second.calls == ["sync 1"])
    threads[1].start()
    two.run(second.sync_takes.set)
    for thread in threads:
        thread.join(LIMIT_S)
    assert sorted(done) == [1, 2]  # in the order in which the threads came to go on
    assert second.calls == ["sync 1", "sync 2"]


def test_closing_during_a_sync_ends_it(two: ScriptedPool) -> None:
    second, errors = two.actor("engine-1"), []

    def sync() -> None:
        try:
            two.pool.sync(WEIGHTS, 1)
        except EngineError as error:
            errors.append(str(error))

    two.run(second.sync_takes.clear)
    thread = threading.Thread(target=sync)
    thread.start()
    two.until(lambda: second.calls == ["sync 1"])
    two.pool.close()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert len(errors) == 1
    assert "closed" in errors[0]


def test_a_lease_that_ran_out_is_no_pause_for_who_joins(two: ScriptedPool) -> None:
    two.pool.pause(lease_until=time.time() - 1)
    kill(two, "engine-0")
    two.until(lambda: two.of("engine.replaced"))
    assert not two.actor("engine-0").paused


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_wall_clock_that_jumps_ends_no_pause(two: ScriptedPool, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    two.pool.pause(lease_until=time.time() + LIMIT_S)
    jumped = SimpleNamespace(time=lambda: time.time() + jump, monotonic=time.monotonic)
    monkeypatch.setattr(clocks, "time", jumped)
    kill(two, "engine-0")
    two.until(lambda: two.of("engine.replaced"))
    fresh = two.actor("engine-0")
    assert fresh.paused
    (until,) = [float(call.split()[1]) for call in fresh.calls if call.startswith("pause ")]
    assert until - time.time() == pytest.approx(jump + LIMIT_S, abs=LIMIT_S), "by the wall clock of now"


# -- rolling restarts -------------------------------------------------------------------------------------------------


def test_a_rolling_restart_takes_one_engine_after_the_other(two: ScriptedPool) -> None:
    two.pool.sync(WEIGHTS, 4)
    busy(two, 6)
    out: list[set[str]] = []
    two.spawner.script = lambda _: out.append({m.name for m in two.pool._fleet.serving})
    future = two.pool.restart_fix("prefix-cache-off", "removed")
    reports = future.result(LIMIT_S)
    assert [(report.engine, report.version) for report in reports] == [("engine-0", 4), ("engine-1", 4)]
    assert out == [{"engine-1"}, {"engine-0"}]
    assert two.pool.wanted["prefix-cache-off"] == "removed"
    assert {two.actor(name).spec.fixes["prefix-cache-off"] for name in two.pool.names} == {"removed"}
    assert [state.effective for state in two.pool.fix_states()["prefix-cache-off"]] == ["removed", "removed"]
    assert two.actors("engine-0")[0].calls[-1] == "close"
    assert set(two.groups(6)) == set(range(6))
    two.until(lambda: len(two.of("engine.restarted")) == 2)
    assert [event["engine"] for event in two.of("engine.restarting")] == ["engine-0", "engine-1"]
    assert two.of("engine.died") == []
    assert two.pool.restart_fix("prefix-cache-off", "removed").result(LIMIT_S) == []


def test_an_engine_on_its_way_out_is_not_listened_to(two: ScriptedPool) -> None:
    """It still answers what the other has taken over: each group comes once all the same."""
    busy(two, 6)
    old, closing = two.actor("engine-0"), asyncio.Event()

    async def close() -> None:
        old.answers.set()
        while len(old.served) < 3:
            await asyncio.sleep(0)
        await closing.wait()

    old.do_close = close
    future = two.pool.restart_fix("prefix-cache-off", "removed")
    two.until(lambda: len(old.served) == 3)
    two.run(lambda: [two.actor("engine-1").answers.set(), closing.set()])
    assert set(two.groups(6).values()) == {"engine-1"}
    future.result(LIMIT_S)
    assert two.pool.in_flight == 0
    assert two.pool.take(0.0) == []


def test_syncs_pauses_and_live_switches_go_on_during_a_rolling_restart(two: ScriptedPool) -> None:
    two.spawner.script = lambda actor: actor.loaded.clear()
    future = two.pool.restart_fix("async-scheduling-off", "on")
    two.until(lambda: len(two.actors("engine-0")) == 2)
    with pytest.raises(EngineError, match="a rolling restart for async-scheduling-off is under way"):
        two.pool.restart_fix("prefix-cache-off", "removed")
    with pytest.raises(EngineError, match="under way"):
        two.pool.set_fix("async-scheduling-off", "on")
    assert [report.engine for report in two.pool.sync(WEIGHTS, 1)] == ["engine-1"]
    assert [state.engine for state in two.pool.set_fix("processed-logprobs", "on")] == ["engine-1"]
    two.pool.pause()
    two.pool.resume()
    two.run(two.actor("engine-0").loaded.set)
    two.until(lambda: len(two.actors("engine-1")) == 2)
    two.run(two.actor("engine-1").loaded.set)
    assert len(future.result(LIMIT_S)) == 2
    assert {two.actor(name).version for name in two.pool.names} == {1}
    assert [two.actor(name).values for name in two.pool.names] == [two.pool.wanted] * 2
    assert two.pool.wanted["async-scheduling-off"] == "on"


def test_a_restart_that_fails_brings_every_engine_back_to_the_old_value(two: ScriptedPool) -> None:
    def script(actor: Scripted) -> None:
        removed = actor.spec.fixes["prefix-cache-off"] == "removed"
        actor.refuse_start = "no room" if actor.name == "engine-1" and removed else ""

    two.spawner.script = script
    with pytest.raises(EngineError, match=r"prefix-cache-off was not switched removed: engine-1: no room"):
        two.pool.restart_fix("prefix-cache-off", "removed").result(LIMIT_S)
    assert [two.actor(name).values["prefix-cache-off"] for name in two.pool.names] == ["off", "off"]
    assert two.pool.wanted["prefix-cache-off"] == "off"
    assert two.of("engine.restarted")[-1]["engine"] == "engine-0"  # it had the new value, and went back
    assert [m.name for m in two.pool._fleet.serving] == two.pool.names
    assert two.pool.set_fix("prefix-cache-off", "on")[0].effective == "on"  # the place is free again


def test_an_engine_that_dies_in_a_rolling_restart_comes_back_as_it_should_be(two: ScriptedPool) -> None:
    slow = {"engine-1"}
    two.spawner.script = lambda actor: actor.loaded.clear() if actor.name in slow else None
    future = two.pool.restart_fix("prefix-cache-off", "removed")
    two.until(lambda: len(two.actors("engine-1")) == 2)
    kill(two, "engine-0")  # it has the new value already
    two.until(lambda: two.of("engine.replaced"))
    assert two.actor("engine-0").spec.fixes["prefix-cache-off"] == "removed"
    two.run(two.actor("engine-1").loaded.set)
    assert len(future.result(LIMIT_S)) == 2
    assert {two.actor(name).values["prefix-cache-off"] for name in two.pool.names} == {"removed"}


@pytest.mark.parametrize("what", ["replacement", "rolling restart"])
def test_closing_in_the_middle_ends_every_actor(two: ScriptedPool, what: str) -> None:
    two.spawner.script = lambda actor: actor.loaded.clear()
    future = None
    if what == "replacement":
        kill(two, "engine-0")
    else:
        future = two.pool.restart_fix("prefix-cache-off", "removed")
    two.until(lambda: len(two.actors("engine-0")) == 2)
    made = [actor for name in two.pool.names for actor in two.actors(name)]
    closer = threading.Thread(target=two.pool.close)
    closer.start()
    closer.join(LIMIT_S)
    assert not closer.is_alive()
    assert all(actor.dead.is_set() for actor in made)
    assert [actor for name in two.pool.names for actor in two.actors(name)] == made
    if future is not None:
        with pytest.raises(EngineError, match="closed"):
            future.result(LIMIT_S)
