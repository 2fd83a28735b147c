"""Whatever is done to `driftline run` with the real engine in it, and whenever: no process of the run is left.

Every process of a run inherits its environment, so all of them are found by the run's own path in /proc.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from driftline.rundir import list_runs
from tests import signals

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="other platforms have no /proc to look for leftovers in"),
]

LIMIT = 400.0

CONFIG = """
[run]
name = "interrupted"
steps = 5000
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


class Run:
    """A headless `driftline run` with vLLM and Ray in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        environment["DRIFTLINE_RUNS"] = str(folder / "runs")
        (folder / "run.toml").write_text(CONFIG)
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


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Run, Run]]:
    """Three runs on one machine, started side by side: most of a start keeps one core."""
    made = tuple(Run(tmp_path_factory.mktemp(name)) for name in ("one", "other", "third"))
    try:
        for run in made:
            run.until_logged("run: running")
        yield made
    finally:
        for run in made:
            run.clear()


def segments(run: Run) -> set[Path]:
    """Shared memory of the run's processes: the weights on their way, and queues where vLLM has any."""
    found = set()
    for process in run.processes():
        with contextlib.suppress(OSError):
            found |= set(re.findall(r"/dev/shm/(?:psm_|driftline-)\S+", Path(f"/proc/{process.pid}/maps").read_text()))
    return {Path(path) for path in found}


def names(run: Run) -> set[str]:
    return {process.name() for process in run.processes()}


def interrupt(run: Run) -> None:
    run.process.send_signal(signal.SIGINT)
    run.until(lambda: run.process.poll() is not None, "the end of the run")
    assert run.process.returncode == 130
    assert run.processes() == [], run.log
    assert not list_runs(run.folder / "runs")[0].live()


@pytest.mark.parametrize("moment", ["starting Ray", "loading vLLM"])
def test_ctrl_c_during_the_start_leaves_nothing(run: Run, moment: str) -> None:
    run.until_logged(moment)
    if moment == "starting Ray":
        run.until(lambda: "raylet" in names(run), "Ray's processes")
    interrupt(run)


def test_ctrl_c_leaves_nothing(neighbours: tuple[Run, Run, Run]) -> None:
    _, _, run = neighbours
    interrupt(run)


def test_a_killed_trainer_leaves_nothing_but_its_neighbour(neighbours: tuple[Run, Run, Run]) -> None:
    run, other, _ = neighbours
    trainer = next(p for p in run.processes() if "trainer" in p.cmdline())
    found: set[Path] = set()
    run.until(lambda: found.update(segments(run)) or found, "the weights of a sync in shared memory")
    shared = set(found)
    assert all(path.exists() for path in shared)
    trainer.kill()
    run.until(lambda: run.process.poll() is not None, "the end of the run")
    assert run.process.returncode == 1
    assert "the trainer has died: " in run.log.splitlines()[-1]
    assert run.processes() == [], run.log
    assert not [path for path in shared if path.exists()]
    said = len(other.log)
    other.until(lambda: len(other.log) > said, "the next step of the other run")
    assert other.process.poll() is None


def test_a_killed_supervisor_leaves_nothing(neighbours: tuple[Run, Run, Run]) -> None:
    _, run, _ = neighbours
    run.process.kill()
    run.process.wait()
    run.until(lambda: not run.processes(), "the end of everything")
