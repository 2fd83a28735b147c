"""A run of the real trainer with its hub, for a test: started, followed through its journal, commanded, ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

from driftline import rundir
from driftline.client import Client, attach
from driftline.frames import Ack, Frame, Metrics, Verb
from driftline.journal.journal import read
from driftline.rundir import RunDir

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 240.0
F = TypeVar("F", bound=Frame)


class FollowedRun:
    """A run with its hub, started here or elsewhere: read through its journal, commanded as an operator does."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._seen: list[Frame] = []
        self._head = 0
        self.client = Client(*attach(run, "operator"))

    def frames(self, kind: type[F]) -> list[F]:
        """All so far; each is decoded once, as they are asked for ten times a second beside an engine."""
        for stamped in read(self.run.journal, self._head + 1):
            self._seen.append(stamped.frame())
            self._head = stamped.seq
        return [frame for frame in self._seen if isinstance(frame, kind)]

    def steps(self) -> dict[int, dict[str, float]]:
        return {frame.step: frame.values for frame in self.frames(Metrics)}

    def wait(self, condition: Callable[[], object], runs: subprocess.Popen[Any], limit: float = LIMIT_S) -> None:
        """`runs` is the process that must not end before."""
        deadline = time.monotonic() + limit
        while not condition():
            assert runs.poll() is None, f"the run ended with {runs.returncode}: {self.logs()}"
            assert time.monotonic() < deadline, f"it did not come about within {limit:.0f} s: {self.logs()}"
            time.sleep(0.1)

    def wait_steps(self, more: int, runs: subprocess.Popen[Any]) -> tuple[int, int]:
        """Wait for `more` further steps; returns the last step before and the newest one."""
        first = max(self.steps(), default=0)
        self.wait(lambda: max(self.steps(), default=0) >= first + more, runs)
        return first, max(self.steps())

    def command(self, verb: Verb, **args: str) -> Ack:
        return self.client.wait(self.client.command(verb, args), LIMIT_S)

    def close(self) -> None:
        self.client.close()

    def logs(self) -> str:
        return "\n".join(path.read_text()[-1500:] for path in self.run.logs.glob("trainer*.log"))


class LiveRun(FollowedRun):
    """A run directory with its hub; trainers are started in it one after the other."""

    def __init__(self, root: Path, config: str, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is what its processes have in place of this one's."""
        run = rundir.create(root, "trainer-test")
        run.config.write_text(config)
        self._environment = dict(os.environ if environment is None else environment)
        self._started: list[subprocess.Popen[str]] = []
        self.hub = self._spawn(run, "driftline.hub", str(run.path))
        rundir.wait_connection(run, 60)
        super().__init__(run)

    def train(self, *arguments: str) -> subprocess.Popen[str]:
        return self._spawn(self.run, "trainer", "--run-dir", str(self.run.path), *arguments)

    def restart_hub(self) -> None:
        """Start another one, once the first has ended."""
        self.hub = self._spawn(self.run, "driftline.hub", str(self.run.path))

    def _spawn(self, run: RunDir, module: str, *arguments: str) -> subprocess.Popen[str]:
        log = (run.logs / f"{module}-{len(self._started)}.log").open("w")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=REPOSITORY,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env={**self._environment, "PYTHONUNBUFFERED": "1"},
            )
        self._started.append(process)
        return process

    def close(self) -> None:
        super().close()
        for process in reversed(self._started):
            if process.poll() is None:
                process.terminate()
                process.wait(90)


def family(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    children: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    return children


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
