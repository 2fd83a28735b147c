"""Fault 29: each process of a run killed in each phase of it, as a table. The trainer is a stand-in without engines.

With the real one, vLLM and Ray: `test_matrix_engines.py`, at full scale.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from console.launch import children
from driftline.frames import Event
from tests.environment import WITHOUT_ENGINE
from tests.faults.matrix import CORE, Case
from tests.faults.scale import FULL, scaled

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(WITHOUT_ENGINE, reason="a run checks for torch, vLLM and Ray, which are not installed here"),
]

LIGHT = "[run]\nname = 'killed'\nsteps = 5\n[hub]\ncompact = true\n"


def others(*killed: str) -> tuple[str, ...]:
    return tuple(name for name in CORE if name not in killed)


def helpers_are_replaced(run: Case, phase: str, *, steps: bool) -> None:
    """Those whose death changes nothing for the trainer, one after the other."""
    run.replaced(phase, "hub", others=others("hub"), sign="hub.back", steps=steps)
    run.replaced(phase, "standby", others=CORE, sign="standby.died", steps=steps)
    run.replaced(phase, "compaction", others=CORE, sign="compact.died", steps=steps)
    run.replaced(phase, "supervisor", others=others("supervisor"), sign="supervisor.replaced", steps=steps)
    # The one that took over knows its processes as the first one did.
    if FULL or phase == "start":
        run.replaced(f"{phase}, 2nd", "hub", others=others("hub"), sign="hub.back", steps=steps)


def test_29_what_is_killed_is_replaced_in_every_phase(case: Callable[..., Case]) -> None:
    run = case(LIGHT, manners="phases")
    run.until(lambda: run.state() == "starting", "the start")
    helpers_are_replaced(run, "start", steps=False)
    (run.folder / "pids.go").touch()
    run.until(lambda: run.state() == "running" and run.step() > 2, "steps")
    assert run.wait_started() == 0, (run.folder / "out").read_text()
    helpers_are_replaced(run, "running", steps=True)
    assert run.command("stop", str(run.run.path)).returncode == 0
    run.until(lambda: run.state() == "stopping", "the stop")
    helpers_are_replaced(run, "stopping", steps=False)
    (run.folder / "pids.end").touch()
    run.until(run.over, "the end of everything")
    assert run.state() == "finished"
    again = run.command("stop", str(run.run.path))
    assert (again.returncode, "has ended already" in again.stderr) == (3, True), again.stderr


@pytest.mark.parametrize("phase", scaled(["start", "stopping"], ["start", "running", "stopping"]))
def test_29_a_killed_trainer_ends_the_run_in_order(case: Callable[..., Case], phase: str) -> None:
    run = case(LIGHT, manners="phases")
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
    if phase == "start":
        assert run.wait_started() == 1
        assert "driftline: the run did not start: the trainer has died: " in (run.folder / "out").read_text()


@pytest.mark.parametrize("name", scaled(["supervisor"], ["supervisor", "hub"]))
def test_29_killed_before_there_is_a_trainer(case: Callable[..., Case], name: str) -> None:
    """As soon as it can be found: the hub has bound no sockets yet, as a rule."""
    run = case(LIGHT, manners="forever")
    run.until(lambda: run.pid("standby") and run.pid(name), f"the {name}")
    began, early = time.monotonic(), not run.pid("trainer")
    run.kill(name)
    run.until(lambda: run.step() > 2 and all(run.pid(one) for one in CORE), "steps")
    run.table.add(name, "before the start", "replaced; the run started", time.monotonic() - began)
    assert early
    assert run.wait_started() == 0, (run.folder / "out").read_text()
    trainers = [process for process in children.of_run(run.run) if "trainer" in process.cmdline()]
    assert len(trainers) == 1, "one trainer, whichever supervisor has started it"


def test_29_a_closed_terminal_ends_nothing(case: Callable[..., Case]) -> None:
    run = case(LIGHT, manners="forever", terminal=True)
    run.until(lambda: run.step() > 2 and run.pid("standby"), "steps")
    before = [run.pid(name) for name in (*CORE, "standby")]
    run.close_terminal()
    step = run.step()
    run.until(lambda: run.step() > step + 5, "further steps")
    assert [run.pid(name) for name in (*CORE, "standby")] == before
    assert run.command("stop", str(run.run.path), "--wait").returncode == 0
    assert run.over()


def another_hub_by_hand(run: Case) -> None:
    trainer = run.pid("trainer")
    hub = subprocess.Popen(
        [sys.executable, "-P", "-m", "console.cli", "hub", "--run", str(run.run.path)], env=run.environment
    )
    try:
        step = run.step()
        run.until(lambda: run.step() > step + 3, "further steps, over another hub")
        hub.send_signal(signal.SIGINT)
        assert hub.wait(60) == 130
        assert run.pid("trainer") == trainer, "it was not that command's to end"
    finally:
        hub.kill()
        hub.wait()


def test_29_a_run_goes_on_without_any_supervisor_and_says_so(case: Callable[..., Case]) -> None:
    run = case(LIGHT, manners="phases")
    (run.folder / "pids.go").touch()
    run.until(lambda: run.step() > 2, "steps")
    run.until(lambda: run.pid("standby"), "the standby")
    standby, began = run.pid("standby"), time.monotonic()
    psutil.Process(standby).suspend()  # it must not be quicker than its own end
    run.kill("supervisor")
    psutil.Process(standby).kill()
    run.until(lambda: run.events("supervisor.lost"), "the event")
    step = run.step()
    run.until(lambda: run.step() > step + 3, "further steps")
    run.table.add("both", "running", "went on: hub, trainer; supervisor.lost", time.monotonic() - began)
    assert "NO SUPERVISOR" in run.command("status", "--run", str(run.run.path)).stdout
    if FULL:
        assert "was killed: the run goes on" in run.command("doctor", str(run.run.path)).stdout
    run.kill("hub")
    run.until(lambda: not run.run.live(), "the hub's death")
    said = run.command("status", "--run", str(run.run.path)).stdout
    assert f"NO HUB, its trainer (process {run.pid('trainer')}) goes on" in said
    if FULL:
        another_hub_by_hand(run)
    (run.folder / "pids.end").touch()
    stopped = run.command("stop", str(run.run.path), "--wait")
    assert (stopped.returncode, stopped.stdout) == (0, f"run {run.run.id} has ended\n"), stopped.stderr
    assert run.over()
    assert run.state() == "finished"


def test_29_behind_a_console(case: Callable[..., Case]) -> None:
    run = case(LIGHT, manners="forever", terminal=True, detached=False)
    run.until(lambda: run.step() > 2 and run.pid("console"), "steps behind a console")
    behind = ("trainer", "supervisor", "console")
    run.replaced("behind a console", "hub", others=behind, sign="hub.back", steps=True)
    run.replaced("behind a console", "compaction", others=behind, sign="compact.died", steps=True)
    before, step, began = [run.pid(name) for name in CORE], run.step(), time.monotonic()
    run.kill("console")
    run.until(lambda: run.step() > step + 3, "steps after the console's death")
    assert [run.pid(name) for name in CORE] == before
    run.table.add("console", "behind a console", f"went on: {', '.join(CORE)}", time.monotonic() - began)
    # In the foreground the run ends with its supervisor, in order.
    began = time.monotonic()
    run.kill("supervisor")
    run.until(lambda: not run.pid("trainer") and not run.run.live(), "the end of trainer and hub")
    assert run.state() == "finished"
    run.table.add("supervisor", "in the foreground", "the run ended in order: finished", time.monotonic() - began)


def test_29_stop_by_force_ends_what_does_not_end(case: Callable[..., Case]) -> None:
    run = case(LIGHT, manners="stubborn")
    run.until(lambda: run.step() > 2 and run.pid("standby"), "steps")
    if FULL:
        late = run.command("stop", str(run.run.path), "--wait", "--timeout", "1")
        assert (late.returncode, "--force kills its processes" in late.stderr) == (4, True), late.stderr
    before = [run.pid(name) for name in (*CORE, "standby")]
    assert all(before)
    done = run.command("stop", str(run.run.path), "--force", "--timeout", "1")
    assert (done.returncode, "processes were killed" in done.stdout) == (0, True), done.stderr
    assert run.over()
    assert not [pid for pid in before if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


@pytest.mark.skipif(not FULL, reason="two hubs are waited for, 20 s each; in short: tests/unit/test_hub_deaths.py")
def test_29_a_hub_that_hangs_is_replaced(case: Callable[..., Case]) -> None:
    """It lives, holds its lock and its sockets, and does not answer."""
    run = case(LIGHT, manners="phases")
    run.until(lambda: run.state() == "starting", "the start")
    for phase in ("start", "running"):
        hub = run.pid("hub")
        before, began = run.events("hub.back"), time.monotonic()
        psutil.Process(hub).suspend()
        run.until(lambda hub=hub: run.pid("hub") not in (0, hub), "another hub")
        run.until(lambda before=before: run.events("hub.back") > before, "the event")
        (run.folder / "pids.go").touch()
        run.until(lambda: run.step() > 2, f"steps over it ({phase})")
        run.table.add("hub, hung", phase, "replaced after 20 s of silence; hub.back", time.monotonic() - began)
    died = [frame.text for frame in run.frames() if isinstance(frame, Event) and frame.kind == "hub.died"]
    assert all("its process lives, but it did not answer" in text for text in died)
