"""Nothing is left behind, also by a trainer that was killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.cluster import ray_cluster
from engine.cluster import watch as watch_module
from engine.cluster.guard import Guard
from engine.cluster.processes import ProcessGroup
from engine.cluster.ray_cluster import Cluster
from engine.cluster.watch import Watch
from engine.weights.shared_memory import FOLDER

LIMIT_S = 60.0
SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
PARENT = [
    sys.executable,
    "-c",
    f"import subprocess; c = subprocess.Popen({SLEEP!r}); print(c.pid, flush=True); c.wait()",
]
TRAINER = """
import os, subprocess, sys, time
from engine.cluster.guard import Guard
from engine.cluster.processes import ProcessGroup
from engine.weights.shared_memory import FOLDER, Segment
weights = Segment(4096)
os.utime(FOLDER / weights.name, (0, 0))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
processes = ProcessGroup()
processes.track(child.pid)
guard = Guard(timeout=float(sys.argv[1]))
guard.update(processes)
print(weights.name, child.pid, guard._child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def parent() -> Iterator[tuple[psutil.Process, psutil.Process]]:
    """A process and its child."""
    started = subprocess.Popen(PARENT, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    pair = psutil.Process(started.pid), psutil.Process(int(started.stdout.readline()))
    yield pair
    for process in pair:
        if process.is_running():
            process.kill()
    started.wait(LIMIT_S)
    started.stdout.close()


@pytest.mark.timeout(LIMIT_S)
def test_an_ended_process_that_no_parent_has_collected_is_not_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    try:
        processes = ProcessGroup()
        processes.track(child.pid)
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert processes.end(LIMIT_S) == []  # the test's own time limit is shorter than two such waits
    finally:
        child.kill()
        child.wait(LIMIT_S)


def test_descendants_end_too(parent: tuple[psutil.Process, psutil.Process]) -> None:
    processes = ProcessGroup()
    processes.track(parent[0].pid)
    assert sorted(processes.end(0.1)) == sorted(process.pid for process in parent)
    psutil.wait_procs(parent, timeout=LIMIT_S)
    assert not parent[1].is_running()
    assert processes.end(0.1) == []


def test_what_went_by_itself_is_not_killed(parent: tuple[psutil.Process, psutil.Process]) -> None:
    processes = ProcessGroup()
    processes.track(parent[0].pid)
    for process in parent:
        process.kill()
    assert processes.end(LIMIT_S) == []


def test_a_reused_pid_is_spared(parent: tuple[psutil.Process, psutil.Process]) -> None:
    dumped = {"processes": [[parent[0].pid, parent[0].create_time() - 1]], "segments": ["/etc/passwd"]}
    processes = ProcessGroup()
    processes.adopt(json.loads(json.dumps(dumped)))
    assert processes.dump() == {"processes": [], "segments": []}
    assert processes.end(0.1) == []
    assert parent[0].is_running()


def _wait_until_caught(number: signal.Signals, process: psutil.Process) -> None:
    status, deadline = Path(f"/proc/{process.pid}/status"), time.monotonic() + LIMIT_S
    while not int(status.read_text().partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1:
        assert time.monotonic() < deadline, "the guard can be ended by a signal that is for what it guards"
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms show neither signals nor shared memory as files")
@pytest.mark.parametrize(("timeout", "asked"), [(0.1, False), (3600.0, True)])
def test_a_killed_trainer_leaves_nothing(timeout: float, asked: bool) -> None:
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER, str(timeout)], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    name, *pids = trainer.stdout.readline().split()
    left = [psutil.Process(int(pid)) for pid in pids]
    assert len(left) == 2
    assert (FOLDER / name).exists()
    if asked:  # as a supervisor does with all that a dead trainer leaves, before it kills
        _wait_until_caught(signal.SIGTERM, left[1])
        left[1].terminate()
    trainer.send_signal(signal.SIGKILL)
    trainer.wait(LIMIT_S)
    trainer.stdout.close()
    _, alive = psutil.wait_procs(left, timeout=LIMIT_S)
    for process in alive:
        process.kill()
    assert not alive
    assert not (FOLDER / name).exists(), "a whole model stays in shared memory until the next run"


def test_a_guard_that_was_killed_is_started_again_with_what_it_guards() -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    guard = Guard(timeout=0.1)
    try:
        group = ProcessGroup()
        group.track(left.pid)
        guard.update(group)
        assert guard.keep() is None, "it lives"
        guard._child.kill()
        guard._child.wait()
        first = guard._child.pid
        assert guard.keep() == -9
        assert guard._child.pid != first
        guard._child.kill()
        guard._child.wait()
        assert guard.keep() is None, "not at once a second time"
        deadline = time.monotonic() + 60
        while guard.keep() is None:
            assert time.monotonic() < deadline, "a third guard"
            time.sleep(0.05)
        guard.close()
        assert left.wait(30) == -9, "the third one knew what to end"
    finally:
        left.kill()
        left.wait()


def test_the_watch_reports_once_that_ray_has_lost_a_process(tmp_path: Path) -> None:
    """The process is no Ray: only its name is."""
    program = tmp_path / "raylet"
    program.symlink_to("/bin/sleep")
    raylet = subprocess.Popen([str(program), "600"])
    guard, lost, guards = Guard(), list[str](), list[str]()
    watch = Watch([psutil.Process(raylet.pid)], guard, lost.append, guards.append)
    try:
        deadline = time.monotonic() + 60
        guard._child.kill()
        while not guards:
            assert time.monotonic() < deadline, "another guard"
            time.sleep(0.05)
        assert not lost
        raylet.kill()
        while not lost:
            assert time.monotonic() < deadline, "the loss"
            time.sleep(0.05)
        time.sleep(1.2)  # two more looks
        assert lost == [f"Ray's raylet (process {raylet.pid}) has died, and no engine lives without it"]
    finally:
        watch.close()
        guard.close()
        raylet.kill()
        raylet.wait()


def test_ray_s_own_end_is_waited_for_with_a_bound(
    monkeypatch: pytest.MonkeyPatch, parent: tuple[psutil.Process, psutil.Process]
) -> None:
    """What stands in for Ray's shutdown waits for ever, as the real one does for a raylet that dies meanwhile."""
    shut = threading.Event()
    ended = threading.Event()

    def shutdown() -> None:
        shut.wait(LIMIT_S)
        ended.set()

    monkeypatch.setattr(ray_cluster, "SHUTDOWN_S", 0.2)
    monkeypatch.setattr("ray.shutdown", shutdown)
    cluster = Cluster()
    cluster._joined = True
    cluster.processes.track(parent[0].pid)
    assert sorted(cluster.stop(LIMIT_S)) == sorted(process.pid for process in parent), "killed, and not waited for"
    assert not ended.is_set()
    assert cluster.lost == "Ray did not end by itself within 0.2 s"
    assert cluster.stop() == [], "and once only"
    shut.set()
    assert ended.wait(LIMIT_S)


def test_a_raylet_that_died_just_before_the_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is no Ray: only its name is."""
    calls: list[str] = []
    monkeypatch.setattr("ray.shutdown", lambda: calls.append("shutdown"))
    monkeypatch.setattr(watch_module, "EVERY_S", 3600.0)
    program = tmp_path / "raylet"
    program.symlink_to("/bin/sleep")
    raylet = subprocess.Popen([str(program), "600"])
    cluster, guard = Cluster(), Guard()
    try:
        cluster._joined, cluster._guard = True, guard
        cluster._watch = Watch([psutil.Process(raylet.pid)], guard, calls.append, calls.append)
        raylet.kill()
        raylet.wait()
        cluster.stop(LIMIT_S)
        assert cluster.lost == f"Ray's raylet (process {raylet.pid}) has died, and no engine lives without it"
        assert calls == []
    finally:
        raylet.kill()
        raylet.wait()
        guard.close()


def test_a_guard_ends_with_an_orderly_close() -> None:
    guard = Guard()
    guard.update(ProcessGroup())
    guard.close()
    assert guard._child.returncode == 0


SHARER = """
import multiprocessing, multiprocessing.shared_memory, time
lock = multiprocessing.get_context("spawn").Lock()
memory = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
print("sem." + lock._semlock.name.lstrip("/"), memory.name.lstrip("/"), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="only Linux shows shared memory as files")
def test_what_killed_processes_shared_is_gone_with_them() -> None:
    """As vLLM's engine and workers share a queue and a lock: who tracks these outlives them for a moment."""
    sharer = subprocess.Popen([sys.executable, "-c", SHARER], stdout=subprocess.PIPE, text=True)
    try:
        assert sharer.stdout is not None
        names = [Path("/dev/shm") / name for name in sharer.stdout.readline().split()]
        assert len(names) == 2
        assert all(name.exists() for name in names)
        dumped = ProcessGroup()
        dumped.track(sharer.pid)
        processes = ProcessGroup()
        processes.adopt(json.loads(json.dumps(dumped.dump())))
        assert processes.end(0.0) == [sharer.pid]
        assert not [name for name in names if name.exists()]
    finally:
        sharer.kill()
        sharer.wait(LIMIT_S)
        sharer.stdout.close()
