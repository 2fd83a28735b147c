"""`driftline run` as an operator starts it, without a console, with the real trainer and engine in it.

Every process of a run inherits its environment, so all of them are found by the run's own path in /proc.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from driftline import rundir
from driftline.rundir import RunDir, list_runs
from tests import signals
from tests.e2e.live_run import FollowedRun

LIMIT = 400.0


class HeadlessRun:
    """`driftline run --headless`, with hub, trainer, Ray and vLLM below it."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        environment["DRIFTLINE_RUNS"] = str(folder / "runs")
        (folder / "run.toml").write_text(config)
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "console.cli", "run", "run.toml", "--headless"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=signals.restore_defaults,
            )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline, f"waited {LIMIT:.0f} s for: {what}\n{self.log[-2000:]}"
            time.sleep(0.05)

    def until_logged(self, text: str) -> None:
        self.until(lambda: text in self.log or self.process.poll() is not None, repr(text))
        assert self.process.poll() is None, self.log

    def processes(self) -> list[psutil.Process]:
        """Everything alive that was started for this run, by hub, trainer, Ray or vLLM."""
        mark = str(self.folder).encode()
        found = []
        for process in psutil.process_iter():
            try:
                environment = Path(f"/proc/{process.pid}/environ").read_bytes()
                if mark in environment and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (OSError, psutil.NoSuchProcess):
                continue
        return found

    def clear(self) -> None:
        for process in self.processes():
            process.kill()
        self.process.wait()

    @property
    def directory(self) -> RunDir:
        """Of the run, once it has one."""
        return list_runs(self.folder / "runs")[0]

    def follow(self) -> FollowedRun:
        """Read and command it; close its client in the end."""
        self.until(lambda: list_runs(self.folder / "runs"), "its directory")
        rundir.wait_connection(self.directory, LIMIT)
        return FollowedRun(self.directory)

    def interrupt(self) -> None:
        """Ctrl-C: the run ends, with that exit code, and nothing of it is left."""
        self.process.send_signal(signal.SIGINT)
        self.until(lambda: self.process.poll() is not None, "the end of the run")
        assert self.process.returncode == 130
        assert self.processes() == [], self.log
        assert not self.directory.live()
