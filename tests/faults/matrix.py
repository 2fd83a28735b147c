"""Every process of a run, killed in every phase of it: what went on, and after how long everything was as wanted.

Nothing may end that was not killed, and nothing may stay blind. A `Case` is one run; its kills follow each other where
the run goes on after them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from console.launch import children, detached
from driftline import supervision
from driftline.frames import Event, Frame, Metrics, RunState
from driftline.journal.journal import read
from driftline.rundir import RunDir, RunError, list_runs
from tests import signals
from tests.tui.test_pty import Terminal

CORE: Final = ("hub", "trainer", "supervisor")
"""What every run has."""
ROOT: Final = Path(__file__).parents[2]
LIMIT: Final = 240.0
"""Seconds for anything to come about: an engine loads for a minute on a busy machine."""
POLL: Final = 0.1
"""Seconds between two looks; each walks over the processes of the machine, and a run that starts needs its cores."""
TITLES: Final = {"actor": "ray::EngineActor", "core": "VLLM::EngineCore", "raylet": "raylet", "gcs": "gcs_server"}
WORDS: Final = {
    "hub": "driftline.hub",
    "trainer": "trainer",
    "guard": "engine.cluster.guard",
    "compaction": "console.recorded.compaction.compact",
    "console": "attach",
}


@dataclass(frozen=True)
class Row:
    """One cell: the process that was killed, in which phase, what went on, seconds until everything was as wanted."""

    killed: str
    phase: str
    after: str
    seconds: float


@dataclass
class Table:
    """The rows so far, with the configuration of the runs that they are of."""

    rows: list[Row] = field(default_factory=list)

    def add(self, killed: str, phase: str, after: str, seconds: float) -> None:
        """Add a row, and print it."""
        self.rows.append(Row(killed, phase, after, seconds))
        print(f"f29: {killed} killed, {phase}: {after} ({seconds:.1f} s)", flush=True)

    def __str__(self) -> str:
        lines = [f"{'killed':12} {'phase':17} {'s':>6}  what went on"]
        lines += [f"{row.killed:12} {row.phase:17} {row.seconds:6.1f}  {row.after}" for row in self.rows]
        return "\n".join(lines)


class Case:
    """One run under test: detached, or in the foreground of a terminal with the console over it."""

    def __init__(
        self,
        folder: Path,
        table: Table,
        config: str,
        *,
        manners: str = "",
        terminal: bool = False,
        detached: bool = True,
    ) -> None:
        """`manners`: those of the stand-in for the trainer (tests/standin), "" for the real one with its engines."""
        folder.mkdir(parents=True)
        self.folder, self.table, self._terminal = folder, table, None
        (folder / "run.toml").write_text(config)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        self.environment |= {"DRIFTLINE_RUNS": str(folder / "runs"), "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
        if manners:
            self.environment["PYTHONPATH"] = f"{ROOT / 'tests' / 'standin'}{os.pathsep}{ROOT}"
            self.environment |= {"STANDIN": manners, "STANDIN_PIDS": str(folder / "pids")}
        start = [sys.executable, "-P", "-m", "console.cli", "run", str(folder / "run.toml")]
        start += ["--detach"] if detached else []
        self._frames: list[Frame] = []
        self._read = 0
        self._reading = threading.Event()
        self.starter: subprocess.Popen[bytes] | None = None
        if terminal:
            self._terminal = Terminal(start, self.environment, (100, 30))
            threading.Thread(target=self._read_on, args=(self._terminal,), daemon=True).start()
        else:
            with open(folder / "out", "wb") as out:
                self.starter = subprocess.Popen(
                    start,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=signals.restore_defaults,
                )
        self.until(lambda: list_runs(folder / "runs"), "the run's directory")
        self.run: RunDir = list_runs(folder / "runs")[0]

    def _read_on(self, terminal: Terminal) -> None:
        while not self._reading.is_set():
            if not terminal._read(0.1):
                return

    # -- what there is ----------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + LIMIT
        while True:
            with contextlib.suppress(RunError, psutil.NoSuchProcess):
                if condition():
                    return
            assert time.monotonic() < deadline, f"waited {LIMIT:.0f} s for {what}\n{self.logs()}"
            time.sleep(POLL)

    def logs(self) -> str:
        if not hasattr(self, "run"):
            return (self.folder / "out").read_text() if (self.folder / "out").exists() else ""
        found = [f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in self.run.logs.glob("*.log")]
        return "\n".join([*found, *(f"{pid.pid} {pid.name()}" for pid in children.of_run(self.run))])

    def pid(self, name: str) -> int:
        """The process of that name, 0 if there is none."""
        if name == "supervisor":
            record = supervision.read(self.run)
            return record.pid if record is not None and self.run.supervised() else 0
        if name == "standby":
            lock = str(self.run.supervisor_lock)
            return _first(p for p in psutil.process_iter() if lock in (words := _words(p)) and "standby.py" in words[3])
        if name in ("hub", "trainer"):
            process = children.find(self.run, name)
            return process.pid if process is not None else 0
        if name == "console":
            found = psutil.process_iter() if self._terminal is None else psutil.Process(self._terminal.pid).children()
            return _first(p for p in found if "attach" in (words := _words(p)) and str(self.run.path) in words)
        for process in children.of_run(self.run):
            with contextlib.suppress(psutil.Error):
                title = TITLES.get(name)
                if (title and process.name().startswith(title[:15])) or (not title and WORDS[name] in _words(process)):
                    return int(process.pid)
        return 0

    def frames(self) -> list[Frame]:
        """All of the run; what has been read once is not read again, as it is asked for ten times a second."""
        for stamped in read(self.run.journal, self._read + 1):
            self._frames.append(stamped.frame())
            self._read = stamped.seq
        return self._frames

    def events(self, kind: str) -> int:
        return sum(isinstance(frame, Event) and frame.kind == kind for frame in self.frames())

    def step(self) -> int:
        return max((frame.step for frame in self.frames() if isinstance(frame, Metrics)), default=0)

    def state(self) -> str:
        return next((frame.status for frame in reversed(self.frames()) if isinstance(frame, RunState)), "")

    def detail(self) -> str:
        return next((frame.detail for frame in reversed(self.frames()) if isinstance(frame, RunState)), "")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "console.cli", *words],
            env=self.environment, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    def wait_started(self) -> int:
        """Exit code of the command that started the run."""
        assert self.starter is not None
        return self.starter.wait(LIMIT)

    # -- kills ------------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> int:
        """Kill a process with -9; returns its id."""
        self.until(lambda: self.pid(name), f"the {name}")
        pid = self.pid(name)
        psutil.Process(pid).kill()
        return pid

    def replaced(self, phase: str, name: str, *, others: tuple[str, ...], sign: str = "", steps: bool = False) -> None:
        """Kill a process: another takes its place, with an event of kind `sign`; the `others` are the same as before.

        `steps`: the run goes on with its steps, and its journal has every one.
        """
        self.until(lambda: all(self.pid(other) for other in others), f"{others}")
        before, signs = {other: self.pid(other) for other in others}, self.events(sign)
        began, dead, step = time.monotonic(), self.kill(name), self.step()
        self.until(lambda: self.pid(name) not in (0, dead), f"another {name} ({phase})")
        if name == "hub":
            self.until(lambda: self.run.live() and self.run.connection().pid == self.pid("hub"), "the hub to be up")
        if sign:
            self.until(lambda: self.events(sign) > signs, f"the event {sign}")
        if steps:
            self.until(lambda: self.step() > step + 3, "further steps")
        seconds = time.monotonic() - began
        # Not seen once is not ended: the list of all processes, read while one of them starts another, may lack it.
        self.until(lambda: {other: self.pid(other) for other in others} == before, f"{before}, none of which ended")
        steps_seen = [frame.step for frame in self.frames() if isinstance(frame, Metrics)]
        assert steps_seen == sorted(set(steps_seen)), "no step twice"
        assert steps_seen == list(range(1, len(steps_seen) + 1)), "no step lost"
        event = f"; {sign}" if sign else ""
        self.table.add(name, phase, f"replaced; went on: {', '.join(others)}{event}", seconds)

    def ends(self, phase: str, name: str, *, says: str, status: str = "failed", checkpoint: bool = False) -> None:
        """Kill a process whose death ends the run: it says so and ends in order, and no process is left."""
        began = time.monotonic()
        self.kill(name)
        self.until(self.over, f"the end of the run after its {name} was killed ({phase})")
        seconds = time.monotonic() - began
        assert self.state() == status, self.logs()
        assert says in self.detail(), self.detail()
        if checkpoint:
            assert list(self.run.checkpoints.glob("step-*")), "a checkpoint to go on from"
        self.table.add(name, phase, f"the run ended in order: {status}, no process left", seconds)

    def end_while_stopping(self, name: str, pid: int) -> None:
        """Kill a process of a run that is ending: the end goes on, and no process is left."""
        began = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
        self.until(self.over, f"the end of the run after its {name} was killed")
        seconds = time.monotonic() - began
        state = self.state()
        assert state == "finished" or (state == "failed" and name in ("trainer", "raylet", "gcs")), self.logs()
        self.table.add(name, "stopping", f"the end went on: {state}, no process left", seconds)

    def over(self) -> bool:
        """Nothing of the run lives, and it has not lost its supervisor: it has ended."""
        gone = not self.run.live() and not self.run.supervised() and not children.of_run(self.run)
        return gone and not self.run.supervisor_file.exists()

    def close_terminal(self) -> None:
        """Close the terminal that the run was started in: everything in its session gets SIGHUP."""
        assert self._terminal is not None
        self._reading.set()
        self._terminal.close()
        self._terminal = None

    def close(self) -> None:
        """End everything, whatever became of the test."""
        self._reading.set()
        left = [psutil.Process(pid) for name in ("supervisor", "standby") if (pid := self._pid_or_none(name))]
        for process in left:  # neither takes over from the other while both are being ended
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        with contextlib.suppress(OSError):
            self.run.supervisor_file.unlink(missing_ok=True)
        if self._terminal is not None:
            self._terminal.close()
        elif self.starter is not None and self.starter.poll() is None:
            self.starter.kill()
            self.starter.wait()
        for process in [*left, *children.of_run(self.run), *self._supervisors()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _supervisors(self) -> list[psutil.Process]:
        """Supervisors and standbys of the run by their command lines, whatever its files say."""
        path = str(self.run.path)
        found = [(process, _words(process)) for process in psutil.process_iter()]
        return [p for p, words in found if detached.MODULE in words and path in words]

    def _pid_or_none(self, name: str) -> int:
        with contextlib.suppress(RunError, psutil.NoSuchProcess):
            return self.pid(name)
        return 0


def side_by_side(*parts: Callable[[], None]) -> None:
    """Each part on a thread of its own, to its end; then what the first of them raised, if any did.

    A run that starts engines keeps one core for most of a minute, and then waits.
    """
    with ThreadPoolExecutor(len(parts)) as pool:
        done = [pool.submit(part) for part in parts]
    for one in done:
        one.result()


def _first(processes: Iterable[psutil.Process]) -> int:
    return next((int(process.pid) for process in processes), 0)


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.Error:
        return []
