"""Ending a tree of processes leaves nothing of what they shared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from console.process import tree as processes
from driftline.processes import alive
from tests.unit.hubs import PATIENCE

STUBBORN = """
import multiprocessing, multiprocessing.shared_memory, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lock = multiprocessing.get_context("spawn").Lock()
memory = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
print("sem." + lock._semlock.name.lstrip("/"), memory.name.lstrip("/"), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="only Linux shows shared memory as files")
def test_a_killed_tree_leaves_no_semaphores_and_no_shared_memory() -> None:
    one = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True)
    try:
        assert one.stdout is not None
        names = [Path("/dev/shm") / name for name in one.stdout.readline().split()]
        assert len(names) == 2
        assert all(name.exists() for name in names)
        tree = [psutil.Process(one.pid), *processes.descendants(one.pid)]
        assert len(tree) == 2, "it, and who tracks what it shares"
        processes.end(tree, 0.0)
        assert one.wait(PATIENCE) < 0, "killed"
        assert not [process for process in tree if alive(process)]
        assert not [name for name in names if name.exists()]
    finally:
        one.kill()
        one.wait(PATIENCE)
        one.stdout.close()
