"""Fault 29 with the real trainer, vLLM and Ray: each process of a run killed in each phase of it, as a table.

Nothing may end that was not killed. Ray's own processes are the exception: no engine outlives its raylet, and none can
be found without the GCS. The run then says so, keeps its last step in a checkpoint, and ends in order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.faults.matrix import CORE, Case, side_by_side
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


def while_its_engines_load(run: Case, name: str) -> None:
    """What ends a run then."""
    run.until(lambda: "loading vLLM" in run.detail() and run.pid(name), "engines that load")
    run.ends("start", name, says=RAY.get(name, ""))


def while_it_runs(run: Case, name: str) -> None:
    """What ends a run then."""
    run.until(lambda: run.step() > 2, "steps")
    says = RAY.get(name, "the trainer has died")
    run.ends("running", name, says=says, checkpoint=name != "trainer")


def while_it_ends(run: Case, name: str) -> None:
    """It ends all the same, and leaves nothing."""
    run.until(lambda: run.step() > 2, "steps")
    pid = run.pid(name)
    assert run.command("stop", str(run.run.path)).returncode == 0
    run.until(lambda: run.state() == "stopping", "the stop")
    run.end_while_stopping(name, pid)


Part = tuple[Callable[[Case, str], None], str]
PARTS: tuple[Part, ...] = (
    *((while_its_engines_load, name) for name in ("trainer", "raylet", "gcs")),
    *((while_it_runs, name) for name in ("trainer", "raylet", "gcs")),
    *((while_it_ends, name) for name in ("trainer", "actor", "core", "guard", "supervisor", "raylet", "gcs")),
)
PAIRS = tuple(PARTS[at : at + 2] for at in range(0, len(PARTS), 2))


def id_of(pair: tuple[Part, ...]) -> str:
    return "-and-".join(f"{part.__name__}-{name}" for part, name in pair)


@pytest.mark.parametrize("pair", PAIRS, ids=map(id_of, PAIRS))
def test_29_a_kill_and_the_end_of_the_run(case: Callable[..., Case], pair: tuple[Part, ...]) -> None:
    """At most two runs side by side, each with a kill of its own."""
    runs = [case(REAL) for _ in pair]
    side_by_side(*(partial(part, run, name) for run, (part, name) in zip(runs, pair, strict=True)))
