"""The processes of a run: started here, or found again by a supervisor that takes over.

All carry the run in their environment, under a name that no person would export: what has lost its parent, and its
parent's parent, is still found by it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final, Protocol

import psutil

from console.launch.last_words import UNKNOWN, opening
from console.process import die_with_parent
from console.process import tree as processes
from driftline.processes import alive
from driftline.processes import wait as wait_for
from driftline.rundir import RUN_VARIABLE, RunDir

MARK: Final = "DRIFTLINE_PROCESS_OF"
"""Path of the run that a process belongs to. Unlike RUN_VARIABLE it is never for a person's own shell."""
_MODULES: Final = {"hub": ("-m", "driftline.hub"), "trainer": ("-m", "trainer", "--run-dir")}
"""Arguments of the processes that outlive a supervisor, before the path of the run."""


class Child(Protocol):
    """What a supervisor needs of a process; `subprocess.Popen` has it."""

    pid: int

    def poll(self) -> int | None:
        """Exit code, None while it lives, negative for a signal."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        ...


class Found:
    """A process that another supervisor had started. Its exit code is `last_words.UNKNOWN`."""

    def __init__(self, process: psutil.Process | None) -> None:
        """None: it has ended already."""
        self._process = process
        self.pid = process.pid if process is not None else 0

    def poll(self) -> int | None:
        return None if self._process is not None and alive(self._process) else UNKNOWN

    def terminate(self) -> None:
        if self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        left = wait_for([self._process] if self._process is not None else [], timeout or 3600.0)
        if left:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 3600.0)
        return UNKNOWN


def start(run: RunDir, name: str, command: Sequence[str], *, dies_with_parent: bool) -> subprocess.Popen[bytes]:
    """Start a process of the run in a session of its own; its output goes to `logs/<name>.log`. Raises OSError."""
    me = str(os.getpid())
    wrapper = [sys.executable, "-I", "-S", die_with_parent.__file__, me, str(int(signal.SIGTERM))]
    environment = os.environ | {
        RUN_VARIABLE: str(run.path),
        MARK: str(run.path),
        "PYTHONUNBUFFERED": "1",
        # Ray and vLLM give their processes titles, which would be written over the environment.
        "SPT_NOENV": "1",
    }
    with open(run.logs / f"{name}.log", "ab") as log:
        log.write(opening(name).encode())
        log.flush()
        return subprocess.Popen(
            [*(wrapper if dies_with_parent else []), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )


def of_run(run: RunDir) -> list[psutil.Process]:
    """Every living process of this user that was started for the run, with all their descendants."""
    found = processes.with_environment(MARK, str(run.path))
    family = dict.fromkeys(found)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            family |= dict.fromkeys(process.children(recursive=True))
    return [process for process in family if alive(process)]


def find(run: RunDir, name: str) -> psutil.Process | None:
    """The process of that name ("hub", "trainer") of the run, None if it does not live."""
    wanted = [*_MODULES[name], str(run.path)]

    def matches(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            return any(words[at : at + len(wanted)] == wanted for at in range(len(words)))
        return False

    # What it has forked has its command line for a moment; it is older.
    return min(filter(matches, of_run(run)), key=_born, default=None)


def _born(process: psutil.Process) -> float:
    try:
        return float(process.create_time())
    except psutil.NoSuchProcess:
        return float("inf")
