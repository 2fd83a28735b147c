"""`driftline run` as a parent: whatever is done to it, it ends what it started and says how it went.

The hub is the real one. The trainer's process is a stand-in (tests/standin), for signals and exit codes only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from console.launch import last_words
from console.launch import supervisor as launch
from driftline.rundir import RunDir, RunError, create, list_runs
from tests import signals
from tests.environment import WITHOUT_ENGINE

ROOT = Path(__file__).parent.parent.parent
STANDIN = ROOT / "tests" / "standin"
LIMIT = 60.0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"waited {LIMIT:.0f} s for: {what}"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Started:
    """One `driftline run` under test."""

    def __init__(self, folder: Path, manners: str, stdout: int | None = None) -> None:
        self.folder = folder
        self.pids_file = folder / "pids"
        (folder / "run.toml").write_text("[run]\nname = 'launched'\nsteps = 5\n")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        environment |= {
            "DRIFTLINE_RUNS": str(folder / "runs"),
            "PYTHONPATH": f"{STANDIN}{os.pathsep}{ROOT}",
            "STANDIN": manners,
            "STANDIN_PIDS": str(self.pids_file),
        }
        with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "console.cli", "run", "run.toml", "--headless"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout,
                stderr=err,
                start_new_session=True,
                preexec_fn=signals.restore_defaults,
            )

    @property
    def run(self) -> RunDir:
        return list_runs(self.folder / "runs")[0]

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def pids(self) -> list[int]:
        """Hub and whatever the stand-in has started, itself included."""
        found = [int(line) for line in self.pids_file.read_text().split()] if self.pids_file.exists() else []
        with contextlib.suppress(RunError, IndexError):
            found.append(self.run.connection().pid)
        return found

    def wait_steps(self) -> None:
        until(lambda: "reward" in self.out or self.process.poll() is not None, "the first step")
        assert self.process.poll() is None, self.err

    def end(self) -> int:
        return self.process.wait(LIMIT)

    def assert_nothing_is_left(self) -> None:
        pids = self.pids()
        until(lambda: all(gone(pid) for pid in pids), f"the end of {pids}")
        assert not self.run.live()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    if WITHOUT_ENGINE:
        pytest.skip("a run checks for torch, vLLM and Ray, which are not installed here")
    made: list[Started] = []

    def make(manners: str, stdout: int | None = None) -> Started:
        made.append(Started(tmp_path, manners, stdout))
        return made[-1]

    yield make
    for one in made:
        for pid in [one.process.pid, *one.pids()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        one.process.wait()


def test_a_run_that_ends_well(start: Callable[[str], Started]) -> None:
    one = start("steps")
    assert one.end() == 0, one.err
    assert "run: finished" in one.out
    assert [line.split()[1] for line in one.out.splitlines() if ".5" in line.split()[-9:]] == ["5"]
    assert (one.run.path / "config.toml").read_text() == (one.folder / "run.toml").read_text()
    one.assert_nothing_is_left()


@pytest.mark.parametrize("manners", ["forever", "orphans"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_everything(
    start: Callable[[str], Started], manners: str, number: signal.Signals, code: int
) -> None:
    one = start(manners)
    one.wait_steps()
    pids = one.pids()
    assert len(pids) == (3 if manners == "orphans" else 2)
    one.process.send_signal(number)
    assert one.end() == code
    assert "Traceback" not in one.err
    one.assert_nothing_is_left()


def test_ctrl_c_while_the_trainer_starts(start: Callable[[str], Started]) -> None:
    one = start("slow")
    until(lambda: "starting nothing" in one.err or one.process.poll() is not None, "progress of the start")
    one.process.send_signal(signal.SIGINT)
    assert one.end() == 130
    one.assert_nothing_is_left()


def test_ctrl_c_while_the_hub_starts(start: Callable[[str], Started]) -> None:
    one = start("forever")
    until(lambda: "starting the hub" in one.err, "the hub's start")
    children = psutil.Process(one.process.pid).children(recursive=True)
    one.process.send_signal(signal.SIGINT)
    assert one.end() == 130
    until(lambda: all(gone(child.pid) for child in children), "the end of the hub")
    one.assert_nothing_is_left()


def test_a_second_ctrl_c_does_not_wait(start: Callable[[str], Started]) -> None:
    one = start("stubborn")
    one.wait_steps()
    one.process.send_signal(signal.SIGINT)
    until(lambda: "ending the trainer" in one.err, "the first ctrl-C")
    before = time.monotonic()
    one.process.send_signal(signal.SIGINT)
    assert one.end() == 130
    assert time.monotonic() - before < launch.TRAINER_GRACE / 2
    one.assert_nothing_is_left()


def test_a_reader_that_does_not_read_stops_no_supervision(start: Callable[..., Started]) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    one = start("forever", stdout=writing)
    os.close(writing)
    try:
        until(lambda: _unread(reading) > 3500, "a pipe that is full")
        first = one.run.connection().pid
        os.kill(first, signal.SIGKILL)
        until(lambda: one.run.live() and one.run.connection().pid != first, "another hub")
        one.process.send_signal(signal.SIGTERM)
        one.process.send_signal(signal.SIGINT)  # a second signal does not wait for the pipe
        assert one.end() in (130, 143), "two that are there at once come in the order of their numbers"
    finally:
        os.close(reading)
    one.assert_nothing_is_left()


def _unread(pipe: int) -> int:
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, struct.pack("i", 0)))[0]


def test_a_killed_supervisor_leaves_nothing(start: Callable[[str], Started]) -> None:
    one = start("forever")
    one.wait_steps()
    one.process.kill()
    one.end()
    one.assert_nothing_is_left()


def test_a_trainer_that_fails_is_one_sentence(start: Callable[[str], Started]) -> None:
    one = start("die")
    assert one.end() == 1
    last = one.err.splitlines()[-1]
    assert last.startswith("driftline: the trainer has died: ValueError: the stand-in has had enough (exit code 1; ")
    assert "Traceback" not in one.err
    assert "ValueError" in Path(last.rpartition("log: ")[2].rstrip(")")).read_text()
    one.assert_nothing_is_left()


def test_what_a_killed_trainer_leaves_is_ended(start: Callable[[str], Started]) -> None:
    one = start("killed")
    assert one.end() == 1
    assert "killed by SIGKILL" in one.err.splitlines()[-1]
    assert len(one.pids()) == 3
    one.assert_nothing_is_left()


def test_a_hub_that_dies_is_started_again(start: Callable[[str], Started]) -> None:
    one = start("forever")
    one.wait_steps()
    first = one.run.connection().pid
    os.kill(first, signal.SIGKILL)
    until(lambda: one.run.live() and one.run.connection().pid != first, "another hub")
    steps = one.out.count("\n")
    until(lambda: one.out.count("\n") > steps + 3, "steps over the new hub")
    assert "the hub has died and is started again" in one.err
    one.process.send_signal(signal.SIGINT)
    assert one.end() == 130
    one.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("", ""),
        ("one\ntwo\n", "two"),
        ("Traceback (most recent call last):\n  x\nValueError: no\nbye\n", "ValueError: no"),
        ("ray.exceptions.RayActorError: gone\n[INFO] done\n", "ray.exceptions.RayActorError: gone"),
        ("trainer: no such model\n", "no such model"),
        ("driftline hub: run x: no port\nbye\n", "run x: no port"),
        ("x" * 1000, "x" * 300),
        ("last words\n2026-03-01 12:00:00 INFO supervisor: hub.died: the hub has died: ERROR (log: x)\n", "last words"),
        ("last words\n2026-03-01 12:00:00,000 INFO run a: epoch 1, head 0\n", "last words"),
        ("2026-03-01 12:00:00,000 INFO run a: epoch 1, head 0\n", ""),
    ],
)
def test_the_error_in_a_log(tmp_path: Path, log: str, error: str) -> None:
    (tmp_path / "log").write_text(log)
    assert last_words.last_error(tmp_path / "log") == error


def test_the_last_words_are_those_of_this_life(tmp_path: Path) -> None:
    log = tmp_path / "hub.log"
    log.write_text(f"{last_words.opening('hub')}driftline hub: ERROR the journal cannot be written\n")
    error = "ERROR the journal cannot be written"
    killed, ended = "killed by SIGKILL (signal 9)", "exit code 1"
    assert last_words.last_words(-9, log) == f"{killed}; the last error that it had reported: {error}; log: {log}"
    assert last_words.last_words(1, log) == f"{error} ({ended}; log: {log})"
    with log.open("a") as file:
        file.write(f"{last_words.opening('hub')}what it said as it went along\n")
    assert last_words.last_words(-9, log) == f"{killed}; log: {log}", "the error was an earlier process's"
    assert last_words.last_words(1, log) == f"what it said as it went along ({ended}; log: {log})"


def test_a_process_that_is_killed_does_not_quote_the_one_before(tmp_path: Path) -> None:
    run = create(tmp_path / "runs", "run")
    with launch.Supervisor(run) as supervisor:
        failing = [sys.executable, "-c", "import sys; sys.exit('ERROR of the first')"]
        assert supervisor.start("part", failing).wait(LIMIT) == 1
        assert supervisor.last_words("part").startswith("ERROR of the first (exit code 1; ")
        second = supervisor.start("part", [sys.executable, "-c", "import time; time.sleep(600)"])
        second.kill()
        second.wait(LIMIT)
        assert supervisor.last_words("part") == f"killed by SIGKILL (signal 9); log: {supervisor.log('part')}"


def test_a_hub_that_may_not_listen_there(tmp_path: Path) -> None:
    environment = os.environ | {"DRIFTLINE_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "console.cli", "hub", "--bind", "0.0.0.0"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=environment,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("driftline: the hub did not start: --bind 0.0.0.0: every interface is not allowed")
    assert not list_runs(tmp_path / "runs")[0].live()


def test_a_hub_goes_on_with_a_run_whose_connection_file_is_damaged(tmp_path: Path) -> None:
    made = create(tmp_path / "runs", "old")
    made.connection_file.write_text('{"run": "old", "schema": 0}')
    with launch.Supervisor(made) as supervisor:
        assert supervisor.start_hub(cancelled=lambda: False)
        assert made.connection().pid == supervisor._children["hub"].pid


def test_a_place_that_cannot_hold_runs(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "console.cli", "simulate"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=os.environ | {"DRIFTLINE_RUNS": str(tmp_path / "runs")},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot make the run directory" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert last_words.last_error(tmp_path / "log") == ""
