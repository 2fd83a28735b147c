"""Engines of one pool with fixes of their own, over scripted handles; and `removed` where `on` is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.config import EngineGroup
from driftline.frames import EngineFix, FixState, meets
from engine.types import EngineError
from tests.unit.pool_fakes import ScriptedPool

EACH = (EngineGroup(), EngineGroup(fixes={"processed-logprobs": "on", "prefix-cache-off": "removed"}))


@pytest.fixture
def rig(tmp_path: Path) -> ScriptedPool:
    return ScriptedPool(tmp_path, 2, each=EACH)


def effective(rig: ScriptedPool, fix: str) -> dict[str, tuple[str, str]]:
    return {one.engine: (one.effective, one.wanted) for one in rig.pool.fix_states(fix)[fix]}


def test_an_engine_starts_with_the_fixes_of_its_own(rig: ScriptedPool) -> None:
    try:
        assert rig.actor("engine-0").spec.fixes["processed-logprobs"] == "off"
        assert rig.actor("engine-1").spec.fixes["processed-logprobs"] == "on"
        assert effective(rig, "prefix-cache-off") == {"engine-0": ("off", ""), "engine-1": ("removed", "removed")}
    finally:
        rig.pool.close()


def test_a_change_of_the_pool_leaves_an_engine_with_a_value_of_its_own_alone(rig: ScriptedPool) -> None:
    try:
        assert rig.pool.how("prefix-cache-off", "on") == "live"
        (report,) = rig.pool.set_fix("prefix-cache-off", "on")
        assert (report.engine, report.effective) == ("engine-0", "on")
        assert "set_fix prefix-cache-off on" not in rig.actor("engine-1").calls
        assert effective(rig, "prefix-cache-off")["engine-1"] == ("removed", "removed")
    finally:
        rig.pool.close()


def test_one_engine_is_switched_alone_and_follows_again(rig: ScriptedPool) -> None:
    try:
        (report,) = rig.pool.set_fix("processed-logprobs", "on", "engine-0")
        assert (report.engine, report.effective, report.wanted) == ("engine-0", "on", "on")
        assert rig.pool.wanted["processed-logprobs"] == "off"
        (report,) = rig.pool.set_fix("processed-logprobs", "off", "engine-0")
        assert (report.effective, report.wanted) == ("off", "")
        with pytest.raises(EngineError, match="engine-7"):
            rig.pool.set_fix("processed-logprobs", "on", "engine-7")
    finally:
        rig.pool.close()


def test_a_replacement_comes_up_with_the_fixes_of_its_name(rig: ScriptedPool) -> None:
    try:
        rig.pool.set_fix("processed-logprobs", "on", "engine-0")
        rig.run(rig.actor("engine-0").dead.set)
        rig.until(lambda: len(rig.actors("engine-0")) == 2 and rig.of("engine.replaced"))
        assert rig.actor("engine-0").spec.fixes["processed-logprobs"] == "on"
    finally:
        rig.pool.close()


def test_where_every_engine_has_its_own_value_a_change_of_the_pool_is_refused(tmp_path: Path) -> None:
    rig = ScriptedPool(tmp_path, 1, each=(EngineGroup(fixes={"processed-logprobs": "on"}),))
    try:
        with pytest.raises(EngineError, match="value of its own"):
            rig.pool.set_fix("processed-logprobs", "off")
    finally:
        rig.pool.close()


def test_an_engine_without_a_prefix_cache_has_what_on_wants(tmp_path: Path) -> None:
    rig = ScriptedPool(tmp_path, 2)
    try:
        rig.actor("engine-1").values["prefix-cache-off"] = "removed"
        rig.pool.fix_states()
        assert rig.pool.how("prefix-cache-off", "on") == "live"
        rig.pool.set_fix("prefix-cache-off", "on")
        assert "set_fix prefix-cache-off on" not in rig.actor("engine-1").calls
        assert effective(rig, "prefix-cache-off") == {"engine-0": ("on", ""), "engine-1": ("removed", "")}
    finally:
        rig.pool.close()


def state(requested: str, *engines: EngineFix) -> FixState:
    return FixState("prefix-cache-off", requested, 0, "config", 1.0, "live", engines)


def test_when_a_pool_of_different_engines_is_settled() -> None:
    on, removed = EngineFix("engine-0", "on", "live"), EngineFix("engine-1", "removed", "engine_restart")
    own = EngineFix("engine-1", "off", "live", wanted="off")
    assert state("on", on, removed).settled
    assert state("on", on, removed).effective == "on"
    assert not state("off", on, removed).settled
    assert state("off", on, removed).effective == "mixed"
    assert state("removed", removed).settled
    assert not state("removed", on, removed).settled
    assert state("on", on, own).settled
    assert state("on", on, own).effective == "on"
    assert not state("off", on, own).settled
    assert not state("on").settled
    assert not state("on", on, EngineFix("engine-1", "", "live")).settled
    assert meets("on", "removed")
    assert not meets("off", "removed")
