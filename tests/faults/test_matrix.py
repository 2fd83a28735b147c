"""Fault 29: each process of a run killed in each phase of it, as a table.

Short, the trainer is a stand-in (tests/standin) without engines; at full scale the real one with vLLM and Ray is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from driftline.frames import Event
from tests.environment import WITHOUT_ENGINE
from tests.faults.matrix import Case, Table
from tests.faults.scale import FULL

pytestmark = [
    pytest.mark.timeout(3000),
    pytest.mark.skipif(WITHOUT_ENGINE, reason="a run checks for torch, vLLM and Ray, which are not installed here"),
]

LIGHT = "[run]\nname = 'killed'\nsteps = 5\n[hub]\ncompact = true\n"
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
CORE = ("hub", "trainer", "supervisor")


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    made = Table()
    yield made
    print(f"\n{made}")


@pytest.fixture
def case(tmp_path: Path, table: Table) -> Iterator[Callable[..., Case]]:
    made: list[Case] = []

    def make(config: str = LIGHT, **options: object) -> Case:
        made.append(Case(tmp_path / f"{len(made)}", table, config, **options))  # type: ignore[arg-type]  # passed on
        return made[-1]

    yield make
    for one in made:
        one.close()


def others(*killed: str) -> tuple[str, ...]:
    return tuple(name for name in CORE if name not in killed)


def helpers_are_replaced(run: Case, phase: str, *, steps: bool) -> None:
    """Those whose death changes nothing for the trainer, one after the other."""
    run.replaced(phase, "hub", others=others("hub"), sign="hub.back", steps=steps)
    run.replaced(phase, "standby", others=CORE, sign="standby.died", steps=steps)
    run.replaced(phase, "compaction", others=CORE, sign="compact.died", steps=steps)
    run.replaced(phase, "supervisor", others=others("supervisor"), sign="supervisor.replaced", steps=steps)
    # The one that took over knows its processes as the first one did.
    run.replaced(f"{phase}, 2nd", "hub", others=others("hub"), sign="hub.back", steps=steps)


def test_29_without_engines_what_is_killed_is_replaced_in_every_phase(case: Callable[..., Case]) -> None:
    run = case(manners="phases")
    run.until(lambda: run.state() == "starting", "the start")
    helpers_are_replaced(run, "start", steps=False)
    (run.folder / "pids.go").touch()
    run.until(lambda: run.state() == "running" and run.step() > 2, "steps")
    assert run.starter.wait(60) == 0, (run.folder / "out").read_text()
    helpers_are_replaced(run, "running", steps=True)
    assert run.command("stop", str(run.run.path)).returncode == 0
    run.until(lambda: run.state() == "stopping", "the stop")
    helpers_are_replaced(run, "stopping", steps=False)
    (run.folder / "pids.end").touch()
    run.until(run.over, "the end of everything")
    assert run.state() == "finished"
    again = run.command("stop", str(run.run.path))
    assert (again.returncode, "has ended already" in again.stderr) == (3, True), again.stderr


@pytest.mark.parametrize("phase", ["start", "running", "stopping"])
def test_29_without_engines_a_killed_trainer_ends_the_run_in_order(case: Callable[..., Case], phase: str) -> None:
    run = case(manners="phases")
    run.until(lambda: run.state() == "starting", "the start")
    if phase != "start":
        (run.folder / "pids.go").touch()
        run.until(lambda: run.state() == "running" and run.step() > 2, "steps")
    if phase == "stopping":
        psutil.Process(run.pid("trainer")).terminate()
        run.until(lambda: run.state() == "stopping", "the stop")
        # The trainer is not the child of the supervisor that has to end what it leaves.
        run.kill("supervisor")
    run.ends(phase, "trainer", says="the trainer has died: ")


def test_29_without_engines_a_run_goes_on_without_any_supervisor_and_says_so(case: Callable[..., Case]) -> None:
    run = case(manners="phases")
    (run.folder / "pids.go").touch()
    run.until(lambda: run.step() > 2, "steps")
    psutil.Process(run.pid("standby")).suspend()  # it must not be quicker than its own end
    standby = run.pid("standby")
    run.kill("supervisor")
    psutil.Process(standby).kill()
    run.until(lambda: run.events("supervisor.lost"), "the event")
    step = run.step()
    run.until(lambda: run.step() > step + 3, "further steps")
    assert "NO SUPERVISOR" in run.command("status", "--run", str(run.run.path)).stdout
    assert "was killed: the run goes on" in run.command("doctor", str(run.run.path)).stdout
    (run.folder / "pids.end").touch()
    stopped = run.command("stop", str(run.run.path), "--wait")
    assert (stopped.returncode, stopped.stdout) == (0, f"run {run.run.id} has ended\n"), stopped.stderr
    assert run.over()
    assert run.state() == "finished"


def test_29_without_engines_behind_a_console(case: Callable[..., Case]) -> None:
    run = case(manners="forever", terminal=True)
    run.until(lambda: run.step() > 2 and run.pid("console"), "steps behind a console")
    behind = ("trainer", "supervisor", "console")
    run.replaced("behind a console", "hub", others=behind, sign="hub.back", steps=True)
    run.replaced("behind a console", "compaction", others=behind, sign="compact.died", steps=True)
    hub, trainer, step = run.pid("hub"), run.pid("trainer"), run.step()
    run.kill("console")
    run.until(lambda: run.step() > step + 3, "steps after the console's death")
    assert (run.pid("hub"), run.pid("trainer")) == (hub, trainer)
    # In the foreground the run ends with its supervisor, in order.
    run.kill("supervisor")
    run.until(lambda: not run.pid("trainer") and not run.run.live(), "the end of trainer and hub")
    assert run.state() == "finished"


def test_29_a_hub_that_hangs_is_replaced(case: Callable[..., Case]) -> None:
    """It lives, holds its lock and its sockets, and does not answer."""
    run = case(manners="phases")
    run.until(lambda: run.state() == "starting", "the start")
    for phase in ("start", "running"):
        hub = run.pid("hub")
        before = run.events("hub.back")
        psutil.Process(hub).suspend()
        run.until(lambda hub=hub: run.pid("hub") not in (0, hub), "another hub")
        run.until(lambda before=before: run.events("hub.back") > before, "the event")
        (run.folder / "pids.go").touch()
        run.until(lambda: run.step() > 2, f"steps over it ({phase})")
    died = [frame.text for frame in run.frames() if isinstance(frame, Event) and frame.kind == "hub.died"]
    assert all("its process lives, but it did not answer" in text for text in died)


@pytest.mark.skipif(not FULL, reason="some twenty starts of real engines take half an hour; `make faults` runs it")
@pytest.mark.engine
class TestWithEngines:
    """The same, with the real trainer, vLLM and Ray."""

    def test_29_what_is_replaced_while_the_engines_load(self, case: Callable[..., Case]) -> None:
        run = case(REAL)
        run.until(lambda: "loading vLLM" in run.detail(), "engines that load")
        keep = (*CORE, "raylet", "gcs", "actor")
        for name, sign in (("hub", "hub.back"), ("standby", "standby.died"), ("supervisor", "supervisor.replaced")):
            run.replaced("start", name, others=tuple(other for other in keep if other != name), sign=sign)
        run.replaced("start", "guard", others=keep, sign="guard.died")
        run.replaced("start", "actor", others=(*CORE, "raylet", "gcs"), sign="engine.died")
        run.until(lambda: run.step() > 2, "steps")
        keep += ("core",)
        for name, sign in (("hub", "hub.back"), ("standby", "standby.died"), ("supervisor", "supervisor.replaced")):
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

    @pytest.mark.parametrize("name", ["trainer", "raylet", "gcs", "core"])
    def test_29_what_ends_a_run_while_its_engines_load(self, case: Callable[..., Case], name: str) -> None:
        run = case(REAL)
        run.until(lambda: "loading vLLM" in run.detail() and run.pid(name), "engines that load")
        run.ends("start", name, says={"raylet": "Ray's raylet", "gcs": "Ray's gcs_server"}.get(name, ""))

    @pytest.mark.parametrize("name", ["trainer", "raylet", "gcs"])
    def test_29_what_ends_a_running_run(self, case: Callable[..., Case], name: str) -> None:
        run = case(REAL)
        run.until(lambda: run.step() > 2, "steps")
        says = {"raylet": "Ray's raylet", "gcs": "Ray's gcs_server"}.get(name, "the trainer has died")
        run.ends("running", name, says=says, checkpoint=name != "trainer")

    @pytest.mark.parametrize("name", ["trainer", "actor", "core", "guard", "supervisor", "raylet", "gcs"])
    def test_29_what_is_killed_while_the_run_ends(self, case: Callable[..., Case], name: str) -> None:
        """It ends all the same, and leaves nothing."""
        run = case(REAL)
        run.until(lambda: run.step() > 2, "steps")
        pid = run.pid(name)
        assert run.command("stop", str(run.run.path)).returncode == 0
        run.until(lambda: run.state() == "stopping", "the stop")
        run.end_while_stopping(name, pid)
