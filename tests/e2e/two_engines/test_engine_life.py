"""How engines of a pool die, are replaced and end: the engines of this folder, one after the other."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil
import pytest

from engine import EngineError
from engine.weights.publish import digest
from tests.e2e import engine_support as support
from tests.e2e.engine_support import CLOSE
from tests.e2e.two_engines.pair import Pair

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

FEW = 2
"""Groups in flight that leave most of the machine to an engine that loads."""


def test_two_engines_share_the_work(pair: Pair) -> None:
    pool = pair.pool
    assert [line.split(":")[0] for line in pair.said if "ready in" in line] == pool.names == ["engine-0", "engine-1"]
    groups = support.engine_rollouts(pool, 16)
    assert {group.engine for group in groups} == set(pool.names)
    assert support.engine_gap(pair.model, groups).mean() < CLOSE
    first = {s.ids.tobytes() for g in groups if g.engine == "engine-0" for s in g.sequences}
    assert not first & {s.ids.tobytes() for g in groups if g.engine == "engine-1" for s in g.sequences}

    reports = pair.sync(barrier=True)
    assert [(r.engine, r.ok, r.version_after) for r in reports] == [(name, True, pair.version) for name in pool.names]
    assert {report.digest for report in reports} == {digest(pair.model.state_dict())}
    assert [s.effective for s in pool.set_fix("processed-logprobs", "off")] == ["off", "off"]
    assert [s.effective for s in pool.set_fix("processed-logprobs", "on")] == ["on", "on"]
    assert support.engine_gap(pair.model, support.engine_rollouts(pool, 8)).mean() < CLOSE

    ours = pair.processes()
    assert len(ours) > 6  # two actors, cores and workers, and Ray
    commands = [" ".join(process.cmdline()) for process in ours]
    assert any("raylet" in command for command in commands)
    assert not [one for one in commands if any(script in one for script in ("monitor.py", "dashboard.py"))]
    assert support.engine_sockets(ours) == set()
    assert len({info.pid for info in pool.infos}) == 2
    assert len({info.node_id for info in pool.infos}) == 1


def test_groups_that_a_sync_aborts_are_run_again(pair: Pair) -> None:
    pair.pool.stage_fix("inflight-keep", "off")
    pair.until(lambda: pair.pool.stats().running > 16)
    pair.flow()
    reports = pair.sync()
    assert all(report.ok for report in reports)
    assert sum(report.aborted for report in reports) > 0
    assert pair.effective()["inflight-keep"] == ["off", "off"]
    pair.settle()
    pair.pool.stage_fix("inflight-keep", "on")
    pair.sync()
    assert sum(event["groups"] for event in pair.of("rollouts.aborted")) > 0
    assert pair.effective()["inflight-keep"] == ["on", "on"]


def test_a_rolling_restart_loses_nothing_and_syncs_go_on(pair: Pair) -> None:
    pids = [info.pid for info in pair.pool.infos]
    pair.until(lambda: pair.pool.stats().running > 16)
    future = pair.pool.restart_fix("prefix-cache-off", "removed")
    partial = 0
    while not future.done():
        pair.flow(FEW)
        with suppress(TimeoutError):
            future.exception(1.0)  # leaves the cores to the engine that loads
        reports = pair.sync()
        assert reports
        assert all(report.ok for report in reports), reports
        partial += len(reports) == 1
        pair.processes()
    reports = future.result()
    assert partial > 0
    assert [report.engine for report in reports] == pair.pool.names
    assert all(report.down_s > 0 for report in reports)
    assert sum(report.moved for report in reports) > 0
    assert pair.effective()["prefix-cache-off"] == ["removed", "removed"]
    assert pair.effective()["fp32-lm-head"] == ["on", "on"]
    pair.settle()
    assert {group.engine for group in pair.groups.values()} == set(pair.pool.names)
    assert not {info.pid for info in pair.pool.infos} & set(pids)
    assert not support.engine_left(p for p in pair.seen if p.pid in pids)
    fresh = support.engine_rollouts(pair.pool, 8)
    assert support.engine_gap(pair.model, fresh).mean() < CLOSE
    assert all((s.versions == pair.version).all() for g in fresh for s in g.sequences)
    figures = ", ".join(
        f"{report.engine} down {report.down_s:.1f} s, {report.moved} groups moved" for report in reports
    )
    print(f"rolling restart: {figures}")


def test_a_killed_engine_is_replaced_as_it_should_be(pair: Pair) -> None:
    pair.pool.set_fix("processed-logprobs", "off")
    pair.until(lambda: pair.pool.stats().running > 16)
    dead = next(info for info in pair.pool.infos if info.engine == "engine-1")
    os.kill(dead.pid, signal.SIGKILL)
    pair.until(lambda: pair.of("engine.died"))
    assert pair.pool.fix_states("processed-logprobs")["processed-logprobs"][1].effective == ""
    assert [report.engine for report in pair.sync()] == ["engine-0"]
    pair.until(lambda: pair.of("engine.replaced"), FEW)
    (replaced,) = pair.of("engine.replaced")
    assert (replaced["engine"], replaced["version"]) == ("engine-1", pair.version)
    assert [state.version for state in pair.pool.stats().engines] == [pair.version, pair.version]
    effective = pair.effective()
    for fix, value in pair.pool.wanted.items():
        assert effective[fix] == ([value, value] if fix != "async-scheduling-off" else ["on", "on"])
    assert effective["prefix-cache-off"] == ["removed", "removed"]
    assert effective["processed-logprobs"] == ["off", "off"]
    pair.settle()
    pair.pool.set_fix("processed-logprobs", "on")
    groups = support.engine_rollouts(pair.pool, 16)
    assert {group.engine for group in groups} == set(pair.pool.names)
    assert support.engine_gap(pair.model, groups).mean() < CLOSE
    assert {report.digest for report in pair.sync()} == {digest(pair.model.state_dict())}
    pair.processes()
    moved = sum(event["groups"] for event in pair.of("rollouts.moved"))
    print(f"replacement after kill -9: down {replaced['down_s']:.1f} s; groups moved so far: {moved}")


def test_a_hung_engine_counts_as_dead(pair: Pair) -> None:
    hung = psutil.Process(pair.pool.infos[1].pid)
    hung.suspend()
    assert [report.engine for report in pair.sync(timeout=15.0)] == ["engine-0"]
    pair.until(lambda: len(pair.of("engine.died")) == 2, FEW)
    assert "engine-1: no answer within 15 s" in pair.of("engine.died")[1]["text"]
    pair.until(lambda: not support.engine_left([hung]), FEW)


def test_the_bound_ends_the_run_and_closing_in_a_replacement_leaves_nothing(pair: Pair) -> None:
    pool = pair.pool  # engine-1 is being replaced for the second time
    pair.until(lambda: pool._fleet.members["engine-1"].stage == "loading vLLM and the model", FEW)
    pair.processes()
    cores = [p for p in psutil.Process(pool.infos[0].pid).children() if "EngineCore" in " ".join(p.cmdline())]
    cores[0].kill()  # the actor around it lives on
    with pytest.raises(EngineError, match=r"engine-0: vLLM's engine core died.*engine\.replacements = 2"):
        pair.until(lambda: False)
    with pytest.raises(EngineError, match="engine-0"):
        pair.sync()
    pair.processes()
    pool.close()
    pool.close()
    assert not support.engine_left(pair.seen)
    assert not set(psutil.Process().children(recursive=True)) - pair.outside
    with pytest.raises(EngineError):
        pool.take(0.1)
