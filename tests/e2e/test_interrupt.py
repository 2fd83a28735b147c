"""Whatever is done to `driftline run` with the real engine in it, and whenever: no process of the run is left.

Every process of a run inherits its environment, so all of them are found by the run's own path in /proc.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from driftline.rundir import list_runs

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="other platforms have no /proc to look for leftovers in"),
]

DEMO = Path(__file__).parents[2] / "configs" / "demo.toml"
LIMIT = 400.0


class Run:
    """A headless `driftline run` with vLLM and Ray in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        environment["DRIFTLINE_RUNS"] = str(folder / "runs")
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "console.cli", "run", str(DEMO), "--steps", "5000", "--headless"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
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


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    for process in made.processes():
        process.kill()
    made.process.wait()


def names(run: Run) -> set[str]:
    return {process.name() for process in run.processes()}


@pytest.mark.parametrize(
    "moment",
    [
        "starting Ray",
        "loading vLLM",
        "run: running",
    ],
)
def test_ctrl_c_leaves_nothing(run: Run, moment: str) -> None:
    run.until_logged(moment)
    if moment == "starting Ray":
        run.until(lambda: "raylet" in names(run), "Ray's processes")
    run.process.send_signal(signal.SIGINT)
    run.until(lambda: run.process.poll() is not None, "the end of the run")
    assert run.process.returncode == 130
    assert run.processes() == [], run.log
    assert not list_runs(run.folder / "runs")[0].live()


def test_a_killed_trainer_leaves_nothing(run: Run) -> None:
    run.until_logged("run: running")
    trainer = next(p for p in run.processes() if "trainer" in p.cmdline())
    trainer.kill()
    run.until(lambda: run.process.poll() is not None, "the end of the run")
    assert run.process.returncode == 1
    assert "the trainer has died: " in run.log.splitlines()[-1]
    assert run.processes() == [], run.log


def test_a_killed_supervisor_leaves_nothing(run: Run) -> None:
    run.until_logged("run: running")
    run.process.kill()
    run.process.wait()
    run.until(lambda: not run.processes(), "the end of everything")
