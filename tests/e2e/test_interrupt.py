"""Whatever is done to `driftline run` with the real engine in it, and whenever: no process of the run is left.

Here while it starts, and by kills; `test_parity.py` ends a run that goes on by ctrl-C.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.frames import RunState
from driftline.journal.journal import read
from tests.e2e.headless_run import HeadlessRun

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="other platforms have no /proc to look for leftovers in"),
]

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


@pytest.fixture
def run(tmp_path: Path) -> Iterator[HeadlessRun]:
    made = HeadlessRun(tmp_path, CONFIG)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HeadlessRun, HeadlessRun]]:
    """Two runs on one machine, started side by side: most of a start keeps one core."""
    made = HeadlessRun(tmp_path_factory.mktemp("one"), CONFIG), HeadlessRun(tmp_path_factory.mktemp("other"), CONFIG)
    try:
        for run in made:
            run.until_logged("run: running")
        yield made
    finally:
        for run in made:
            run.clear()


def segments(run: HeadlessRun) -> set[Path]:
    """Shared memory of the run's processes: the weights on their way, and queues where vLLM has any."""
    found = set()
    for process in run.processes():
        with contextlib.suppress(OSError):
            found |= set(re.findall(r"/dev/shm/(?:psm_|driftline-)\S+", Path(f"/proc/{process.pid}/maps").read_text()))
    return {Path(path) for path in found}


def names(run: HeadlessRun) -> set[str]:
    return {process.name() for process in run.processes()}


@pytest.mark.parametrize("moment", ["starting Ray", "loading vLLM"])
def test_ctrl_c_during_the_start_leaves_nothing(run: HeadlessRun, moment: str) -> None:
    run.until_logged(moment)
    if moment == "starting Ray":
        run.until(lambda: "raylet" in names(run), "Ray's processes")
    run.interrupt()
    if moment == "loading vLLM":  # the trainer has been sent a SIGTERM, and has ended in order
        states = [frame for one in read(run.directory.journal) if isinstance(frame := one.frame(), RunState)]
        assert states[-1].status == "finished"


def test_a_killed_trainer_leaves_nothing_but_its_neighbour(neighbours: tuple[HeadlessRun, HeadlessRun]) -> None:
    run, other = neighbours
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


def test_a_killed_supervisor_leaves_nothing(neighbours: tuple[HeadlessRun, HeadlessRun]) -> None:
    _, run = neighbours
    run.process.kill()
    run.process.wait()
    run.until(lambda: not run.processes(), "the end of everything")
