"""How console and engine end processes of this machine: by their ids, trackers of shared memory last.

The one module of this package that needs psutil; no other module of it imports this one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from typing import Final

import psutil

POLL_S: Final = 0.05
KILLED_S: Final = 5.0
"""Longest wait, in seconds, for a killed process to be gone, with the memory and the devices that it held."""

_TRACKER: Final = "from multiprocessing.resource_tracker import main"


def alive(process: psutil.Process, *, collect: bool = False) -> bool:
    """True for a process that still runs: a zombie has ended and only waits to be collected.

    With `collect` it is collected here if it is a child of this process; not for one that a Popen object collects.
    """
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return bool(process.is_running())
        if collect:
            # Only our own child goes at once: an orphan's adopter may take its time.
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(0)
    except psutil.NoSuchProcess:
        pass
    return False


def tracks(process: psutil.Process) -> bool:
    """True for multiprocessing's tracker of shared memory and named semaphores.

    It unlinks what dead processes shared, then ends by itself (vLLM's processes have one from tqdm's lock).
    """
    with contextlib.suppress(psutil.Error):
        return any(_TRACKER in word for word in process.cmdline())
    return False


def wait(
    processes: Collection[psutil.Process],
    seconds: float,
    *,
    collect: bool = False,
    hurry: Callable[[], bool] = lambda: False,
) -> list[psutil.Process]:
    """Wait for all to end, up to `seconds` or until `hurry` is true; returns those that still run."""
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if alive(process, collect=collect)]:
        if time.monotonic() >= deadline or hurry():
            break
        time.sleep(POLL_S)
    return left


def kill(processes: Collection[psutil.Process], seconds: float = KILLED_S, *, collect: bool = False) -> list[int]:
    """SIGKILL, and up to `seconds` for all to be gone; returns the pids that were killed.

    What tracks shared memory and semaphores for others is killed only if it does not end after them.
    """
    killed: list[int] = []
    for spare in (tracks, lambda _: False):
        for process in processes:
            if process.pid not in killed and alive(process, collect=collect) and not spare(process):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    process.kill()
                    killed.append(process.pid)
        if not wait(processes, seconds, collect=collect):
            break
    return killed
