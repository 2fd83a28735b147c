"""Fault 29 with the real trainer, vLLM and Ray: each process of a run killed in each phase of it, as a table.

Nothing may end that was not killed. Ray's own processes are the exception: no engine outlives its raylet, and none can
be found without the GCS. The run then says so, keeps its last step in a checkpoint, and ends in order.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.matrix import CORE, Case
from tests.faults.scale import FULL

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.engine,
    pytest.mark.skipif(
        not FULL, reason="a dozen starts of real engines take a quarter of an hour; `make faults` runs it"
    ),
]

REAL = """
[run]
name = "killed"
steps = 100000
[model]
warm_start_batches = 1
[engine]
max_num_seqs = 16
max_model_len = 64
kv_cache_gb = 0.25
[rollout]
prompts = 4
samples = 4
ahead = 4
"""
HELPERS = (("hub", "hub.back"), ("standby", "standby.died"), ("supervisor", "supervisor.replaced"))
RAY = {"raylet": "Ray's raylet", "gcs": "Ray's gcs_server"}


def test_29_what_is_replaced_while_the_engines_load(case: Callable[..., Case]) -> None:
    run = case(REAL)
    run.until(lambda: "loading vLLM" in run.detail(), "engines that load")
    keep = (*CORE, "raylet", "gcs", "actor")
    for name, sign in HELPERS:
        run.replaced("start", name, others=tuple(other for other in keep if other != name), sign=sign)
    run.replaced("start", "guard", others=keep, sign="guard.died")
    run.replaced("start", "actor", others=(*CORE, "raylet", "gcs"), sign="engine.died")
    run.until(lambda: run.pid("core"), "the core of the engine that took its place")
    run.replaced("start", "core", others=(*CORE, "raylet", "gcs"), sign="engine.died")
    run.until(lambda: run.step() > 2, "steps")
    keep += ("core",)
    for name, sign in HELPERS:
        run.replaced("running", name, others=tuple(other for other in keep if other != name), sign=sign, steps=True)
    run.replaced("running", "guard", others=keep, sign="guard.died", steps=True)
    rest = (*CORE, "raylet", "gcs", "guard")
    run.replaced("running", "core", others=rest, sign="engine.replaced", steps=True)
    run.replaced("running", "actor", others=rest, sign="engine.replaced", steps=True)
    assert run.command("stop", str(run.run.path)).returncode == 0
    run.until(lambda: run.state() == "stopping", "the stop")
    run.kill("hub")
    run.until(run.over, "the end of everything")
    assert run.state() == "finished"
    assert list(run.run.checkpoints.glob("step-*")), "the final checkpoint"


@pytest.mark.parametrize("name", ["trainer", "raylet", "gcs"])
def test_29_what_ends_a_run_while_its_engines_load(case: Callable[..., Case], name: str) -> None:
    run = case(REAL)
    run.until(lambda: "loading vLLM" in run.detail() and run.pid(name), "engines that load")
    run.ends("start", name, says=RAY.get(name, ""))


@pytest.mark.parametrize("name", ["trainer", "raylet", "gcs"])
def test_29_what_ends_a_running_run(case: Callable[..., Case], name: str) -> None:
    run = case(REAL)
    run.until(lambda: run.step() > 2, "steps")
    says = RAY.get(name, "the trainer has died")
    run.ends("running", name, says=says, checkpoint=name != "trainer")


@pytest.mark.parametrize("name", ["trainer", "actor", "core", "guard", "supervisor", "raylet", "gcs"])
def test_29_what_is_killed_while_the_run_ends(case: Callable[..., Case], name: str) -> None:
    """It ends all the same, and leaves nothing."""
    run = case(REAL)
    run.until(lambda: run.step() > 2, "steps")
    pid = run.pid(name)
    assert run.command("stop", str(run.run.path)).returncode == 0
    run.until(lambda: run.state() == "stopping", "the stop")
    run.end_while_stopping(name, pid)
