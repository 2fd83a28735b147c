"""A real hub process for a test: started, killed, stopped, restarted, and always ended by its id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from driftline import rundir
from driftline.keys import add, make_run_keys
from driftline.rundir import Connection, RunDir
from driftline.testing import PATIENCE, until
from tests import signals

__all__ = ["PATIENCE", "Hub", "numbers_key", "until"]


class Hub:
    """The hub of one run directory."""

    def __init__(self, root: Path, *options: str, run: RunDir | None = None) -> None:
        """Of a new run under `root`, or of `run`."""
        self.run: RunDir = run if run is not None else rundir.create(root, "test")
        self.options = options
        self.process: subprocess.Popen[str] | None = None
        self.log = self.run.logs / "hub.log"

    def start(self) -> Connection:
        process = self.process = self.popen(*self.options)
        until(lambda: process.poll() is not None or self._ready(process.pid), "the hub to come up")
        assert process.poll() is None, self.log.read_text() if self.log.exists() else ""
        return self.run.connection()

    def _ready(self, pid: int) -> bool:
        try:
            return self.run.live() and self.run.connection().pid == pid
        except rundir.RunError:
            return False

    def popen(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "driftline.hub", str(self.run.path), *options]
        with self.log.open("a") as log:
            return subprocess.Popen(command, stderr=log, text=True, preexec_fn=signals.restore_defaults)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """End it as a supervisor would; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def freeze(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


def numbers_key(run: RunDir) -> str:
    """Name of a key for producers that send numbers and tokens under an engine's name; made when first asked for."""
    make_run_keys(run)  # the hub may not have come to it
    if not (run.keys / "numbers.key").exists():
        add(run, "numbers", "producer", "engine-*", kinds=("engine", "metrics"))
    return "numbers"
