"""A run does not depend on its hub: however often that dies, in whatever phase, the run goes on and loses nothing.

Hub and supervisor are the real ones. The trainer's process is a stand-in (tests/standin) with a real probe.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from console.cli.main import main
from console.launch import hub_care, pulse
from console.launch.console_child import ConsoleChild
from console.launch.foreground import Session
from console.launch.restarts import Backoff, Restarts
from console.launch.supervisor import Supervisor
from console.process.signals import Signals
from driftline.config import HubConfig
from driftline.frames import Event, Frame, Metrics, RunState, Stamped
from driftline.journal.journal import read
from driftline.producer.probe import Probe
from driftline.rundir import RunDir, create

ROOT = Path(__file__).parent.parent.parent
LIMIT = 60.0
QUICK = Backoff((0.0, 0.01, 0.02, 0.05))


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"waited {LIMIT:.0f} s for: {what}"
        time.sleep(0.02)


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], RunDir]:
    """Make a run whose trainer is the stand-in with these manners."""

    def make(manners: str) -> RunDir:
        monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests' / 'standin'}{os.pathsep}{ROOT}")
        monkeypatch.setenv("STANDIN", manners)
        monkeypatch.setenv("STANDIN_PIDS", str(tmp_path / "pids"))
        return create(tmp_path / "runs", "run")

    return make


def frames(run: RunDir) -> list[Frame]:
    return [stamped.frame() for stamped in read(run.journal)]


def events(run: RunDir, kind: str) -> list[str]:
    return [frame.text for frame in frames(run) if isinstance(frame, Event) and frame.kind == kind]


def test_a_few_deaths_in_a_month_never_add_up() -> None:
    restarts = Restarts(Backoff((0.0, 1.0, 5.0), window=600.0))
    for day in range(31):
        now = day * 86_400.0
        assert restarts.died(now) == 0.0, "the window is empty again"
        assert restarts.due(now)
        restarts.started()
        assert not restarts.due(now)


def test_pauses_grow_to_a_bound_and_fall_back_after_a_while_of_health() -> None:
    restarts = Restarts(Backoff((0.0, 1.0, 5.0), window=60.0))
    now, pauses = 0.0, []
    for _ in range(100):
        pauses.append(restarts.died(now))
        now += pauses[-1]
        assert restarts.waiting
        assert restarts.due(now)
        restarts.started()
    assert pauses == [0.0, 1.0] + [5.0] * 98
    assert 10 <= restarts.deaths <= 14, "those of the window alone"
    assert "deaths within 1 min" in restarts.text(5.0)
    assert restarts.died(now + 61.0) == 0.0


def test_a_hub_killed_six_times_in_a_row_ends_nothing_and_nothing_is_lost(
    standin: Callable[[str], RunDir], capfd: pytest.CaptureFixture[str]
) -> None:
    run = standin("forever")
    killed: list[int] = []
    last: list[int] = []
    seen: list[int] = []

    def hook(_stamped: Stamped, frame: Frame) -> None:
        if not isinstance(frame, Metrics):
            return
        seen.append(frame.step)
        pid = run.connection().pid
        if len(killed) < 6 and pid not in killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
        elif len(killed) == 6 and pid not in killed and not last:
            last.append(frame.step)
        if last and frame.step >= last[0] + 5:
            session.supervisor._children["trainer"].terminate()

    with Signals() as signals, Session(run, signals, hook=hook, hub_backoff=QUICK) as session:
        assert session.start(HubConfig(), steps=None)
        assert session.watch() == 0, "the trainer ended it"
        assert session.state is not None
        assert session.state.status == "finished"
    assert len(killed) == len(set(killed)) == 6
    done = session.state.step
    steps = [frame.step for frame in frames(run) if isinstance(frame, Metrics)]
    assert steps == list(range(1, done + 1)), "each once, in order"
    assert seen == steps, "also in the console"
    deaths = events(run, "hub.died")
    assert len(deaths) == 6
    assert all("killed by SIGKILL" in text and "the run goes on without it" in text for text in deaths)
    assert deaths[0].startswith("the hub has died and is started again at once;")
    assert "in 0.05 s, 6 deaths within 10 min" in deaths[5]
    assert 1 <= len(events(run, "hub.back")) <= 6
    err = capfd.readouterr().err
    assert all(f"driftline: {text}" in err for text in deaths), "each is said"
    log = (run.logs / "trainer.log").read_text()
    assert all(f" INFO supervisor: hub.died: {text}" in log for text in deaths), "also in the trainer's log"


def test_while_no_hub_can_be_had_the_run_goes_on_and_the_attempts_too(standin: Callable[[str], RunDir]) -> None:
    run = standin("forever")
    with Supervisor(run, hub_backoff=QUICK) as supervisor:
        assert supervisor.start_hub(cancelled=lambda: False)
        supervisor.start_trainer()
        until(lambda: any(isinstance(frame, Metrics) for frame in frames(run)), "the first step")
        with open(run.lock, "rb+") as lock:
            os.kill(run.connection().pid, signal.SIGKILL)
            supervisor._children["hub"].wait(LIMIT)
            fcntl.flock(lock, fcntl.LOCK_EX)
            said: list[str] = []

            def refused() -> bool:
                said.extend(filter(None, [supervisor.keep_hub()]))
                return len(said) == 8

            until(refused, "eight hubs that find the run taken")
            assert all("the hub has died and is started again" in text for text in said)
            assert "exit code 3" in said[-1]
            assert supervisor.poll("trainer") is None
        head = len(frames(run))
        until(lambda: supervisor.keep_hub().startswith("the hub is back after"), "a hub, now that there can be one")
        until(lambda: len(frames(run)) > head + 10, "frames over it")
        assert supervisor.poll("trainer") is None
    steps = [frame.step for frame in frames(run) if isinstance(frame, Metrics)]
    assert steps == list(range(1, len(steps) + 1)), "none lost in the meantime"
    assert len(events(run, "hub.died")) >= 8


def test_a_process_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    run = create(tmp_path / "runs", "run")
    with Supervisor(run, hub_backoff=QUICK) as supervisor:
        assert supervisor.start_hub(cancelled=lambda: False)
        os.kill(run.connection().pid, signal.SIGKILL)
        supervisor._children["hub"].wait(LIMIT)
        run.logs.rename(tmp_path / "logs")  # where a started process writes
        said: list[str] = []

        def refused() -> bool:
            said.extend(filter(None, [supervisor.keep_hub()]))
            return sum("cannot be started" in text for text in said) == 5

        until(refused, "five starts that fail")
        (tmp_path / "logs").rename(run.logs)
        until(lambda: supervisor.keep_hub().startswith("the hub is back after"), "the hub")
        with Probe("trainer", run) as probe:
            probe.send(RunState(run.id, "running", 1, 5, 1, time.time()))
            assert probe.flush(LIMIT)


def test_a_hub_killed_while_the_engines_load_is_started_again_and_the_run_reaches_running(
    standin: Callable[[str], RunDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = standin("gated")
    first: list[int] = []
    status: list[dict[str, object]] = []

    def hook(_stamped: Stamped, frame: Frame) -> None:
        if isinstance(frame, RunState) and frame.status == "starting" and not first:
            first.append(run.connection().pid)
            os.kill(first[0], signal.SIGKILL)
        if isinstance(frame, Event) and frame.kind == "hub.died" and not status:
            # The trainer is still where it was.
            capsys.readouterr()
            assert main(["status", "--run", str(run.path), "--json"]) == 0
            status.append(json.loads(capsys.readouterr().out))
            (tmp_path / "pids.go").touch()

    with Signals() as signals, Session(run, signals, hook=hook, hub_backoff=QUICK) as session:
        assert session.start(HubConfig(), steps=None)
        assert session.state is not None
        assert session.state.status == "running"
        assert run.connection().pid != first[0]
    assert status[0]["live"]
    assert status[0]["status"] == "starting"
    assert len(events(run, "hub.died")) == 1


def test_a_hub_that_lives_and_does_not_answer_is_replaced(
    standin: Callable[[str], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is up, and before it has bound its sockets. In full, with the waits as they are: fault 29."""
    monkeypatch.setattr(hub_care, "SILENT", 2.0)
    monkeypatch.setattr(pulse, "PATIENCE", 0.5)
    run = standin("forever")
    said: list[str] = []
    with Supervisor(run, hub_backoff=QUICK) as supervisor:
        assert supervisor.start_hub(cancelled=lambda: False)
        supervisor.start_trainer()
        until(lambda: any(isinstance(frame, Metrics) for frame in frames(run)), "the first step")
        hung = supervisor._children["hub"].pid
        os.kill(hung, signal.SIGSTOP)

        def another() -> bool:
            said.extend(filter(None, [supervisor.keep_hub()]))
            return supervisor._children["hub"].pid != hung

        until(another, "another hub")
        assert "its process lives, but it did not answer for" in said[-1]
        supervisor._hub._patience = 0.5
        hung = supervisor._children["hub"].pid
        os.kill(hung, signal.SIGSTOP)  # it was started a moment ago
        assert not supervisor.hub_up()
        until(another, "a third one")
        assert "its process lives, but it had not bound its sockets after" in said[-1]
        assert supervisor._hub._patience == 1.0, "a long journal may take longer: the next one has twice the time"
        supervisor._hub._patience = 60.0
        until(lambda: supervisor.keep_hub().startswith("the hub is back after"), "the hub")
        assert supervisor.poll("trainer") is None
    steps = [frame.step for frame in frames(run) if isinstance(frame, Metrics)]
    assert steps == list(range(1, len(steps) + 1)), "none lost"


def test_a_hub_killed_behind_a_console(
    standin: Callable[[str], RunDir], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = standin("forever")
    console = ConsoleChild([])
    console._command = [sys.executable, "-c", "import time; time.sleep(600)"]  # this process has no terminal
    killed: list[int] = []
    shown: list[str] = []

    def hook(_stamped: Stamped, frame: Frame) -> None:
        if isinstance(frame, Metrics) and console.pids and not killed:
            killed.append(run.connection().pid)
            os.kill(killed[0], signal.SIGKILL)
        if isinstance(frame, Event) and frame.kind == "hub.back":
            shown.append(capfd.readouterr().err)
            os.kill(console.pids[0], signal.SIGTERM)
        if isinstance(frame, Metrics) and shown:
            session.supervisor._children["trainer"].terminate()

    with (
        open(os.devnull) as nothing,
        Signals() as signals,
        Session(run, signals, hook=hook, hub_backoff=QUICK) as session,
    ):
        monkeypatch.setattr("sys.stdin", nothing)
        assert session.start(HubConfig(), steps=None)
        assert session.watch(console) == 0
    assert "driftline:" not in shown[0], "nothing is printed over a console"
    err = capfd.readouterr().err
    assert "driftline: the hub has died and is started again at once" in err
    assert "driftline: the hub is back after" in err


def test_a_hub_that_dies_before_the_trainer_is_started(
    standin: Callable[[str], RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = standin("steps")
    started = Supervisor.start_hub

    def killed(self: Supervisor, hub: HubConfig, *, cancelled: Callable[[], bool]) -> bool:
        up = started(self, hub, cancelled=cancelled)
        os.kill(run.connection().pid, signal.SIGKILL)
        self._children["hub"].wait(LIMIT)
        return up

    monkeypatch.setattr(Supervisor, "start_hub", killed)
    with Signals() as signals, Session(run, signals, hub_backoff=QUICK) as session:
        assert session.start(HubConfig(), steps=None)
        assert session.watch() == 0
    assert [frame.step for frame in frames(run) if isinstance(frame, Metrics)] == [1, 2, 3, 4, 5]


def test_a_hub_that_dies_while_the_trainer_ends_records_its_last_frames(standin: Callable[[str], RunDir]) -> None:
    run = standin("lingering")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if text.startswith("ending the trainer") and len(said) == 1:
            os.kill(run.connection().pid, signal.SIGKILL)

    with Supervisor(run, say=say, hub_backoff=QUICK) as supervisor:
        assert supervisor.start_hub(cancelled=lambda: False)
        supervisor.start_trainer()
        until(lambda: any(isinstance(frame, Metrics) for frame in frames(run)), "the first step")
    assert any(text.startswith("the hub has died") for text in said)
    assert any(text.startswith("the hub is back") for text in said)
    last = [frame for frame in frames(run) if isinstance(frame, RunState)][-1]
    assert last.status == "finished"
