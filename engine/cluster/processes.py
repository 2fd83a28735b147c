"""Processes and shared-memory segments that must be gone in the end, whichever process should have ended them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypedDict

import psutil

POLL_S: Final = 0.05
KILLED_S: Final = 5.0
"""Longest wait, in seconds, for a killed process to be gone, with the memory and the devices that it held."""

_SEGMENT = re.compile(r"/dev/shm/psm_[0-9a-f]+")
"""Message queues of vLLM's processes (multiprocessing's shared memory): left behind when those are killed."""

_TRACKER: Final = "from multiprocessing.resource_tracker import main"
"""In the command line of multiprocessing's own sweeper of named semaphores (vLLM's processes have one from tqdm's lock)
and shared memory: it ends by itself, and sweeps, once those that use it have ended."""


class SavedProcesses(TypedDict):
    """A `ProcessGroup` as plain values: pid and start time (Unix seconds) of each process, and paths of segments."""

    processes: list[tuple[int, float]]
    segments: list[str]


class ProcessGroup:
    """Each process is held with its start time, so that a re-used pid is never signalled."""

    def __init__(self) -> None:
        self._held: set[psutil.Process] = set()
        self._segments: set[str] = set()

    def track(self, pid: int, born: float | None = None) -> None:
        """Hold a process (if it is the one born then), all its present descendants and the segments they map."""
        try:
            process = psutil.Process(pid)
            if born is not None and process.create_time() != born:
                return
            family = {process, *process.children(recursive=True)}
        except psutil.NoSuchProcess:
            return
        self._held |= family
        for member in family:
            self._segments |= _segments_of(member.pid)

    def refresh(self) -> None:
        """Hold the present descendants and segments of the held ones too, and forget those that have ended."""
        self._held = {process for process in self._held if _is_running(process)}
        for process in list(self._held):
            self.track(process.pid)

    def dump(self) -> SavedProcesses:
        """The tracked processes and segments, as plain values for `adopt` in another process."""
        born = [(process.pid, process.create_time()) for process in self._held if _is_running(process)]
        return {"processes": born, "segments": sorted(self._segments)}

    def adopt(self, dumped: SavedProcesses) -> None:
        """Hold what another process dumped."""
        for pid, born in dumped["processes"]:
            self.track(int(pid), float(born))
        self._segments.update(name for name in map(str, dumped["segments"]) if _SEGMENT.fullmatch(name))

    def end(self, timeout: float, stop_waiting: Callable[[], bool] = lambda: False) -> list[int]:
        """Wait up to `timeout` seconds for all to go, kill what is left; returns the pids that were killed.

        `stop_waiting` ends the wait as soon as it is true.
        """
        self.refresh()
        left = _wait(self._held, timeout, stop_waiting)
        killed = _kill([process for process in left if not _is_resource_tracker(process)])
        left = _wait(self._held, max(timeout, KILLED_S))
        killed += _kill([process for process in left if process.pid not in killed])
        for segment in self._segments:
            Path(segment).unlink(missing_ok=True)
        self._held.clear()
        self._segments.clear()
        return killed


def _kill(processes: list[psutil.Process]) -> list[int]:
    """Kill them; returns the pids of those that were still there."""
    killed = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
            killed.append(process.pid)
    return killed


def _is_resource_tracker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any(_TRACKER in word for word in process.cmdline())
    return False


def _wait(
    processes: set[psutil.Process], seconds: float, stop_waiting: Callable[[], bool] = lambda: False
) -> list[psutil.Process]:
    """Wait for all to end, up to `seconds`; returns those that still run."""
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if _is_running(process)]) and time.monotonic() < deadline:
        if stop_waiting():
            break
        time.sleep(POLL_S)
    return alive


def _is_running(process: psutil.Process) -> bool:
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return bool(process.is_running())
        # It has ended. Our own child is collected here; an orphan's adopter may take its time.
        with suppress(psutil.TimeoutExpired):
            process.wait(0)
    except psutil.NoSuchProcess:
        pass
    return False


def _segments_of(pid: int) -> set[str]:
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():
            return set()
        return set(_SEGMENT.findall(Path(f"/proc/{pid}/maps").read_text()))
    except OSError:  # gone meanwhile, or a system without /proc
        return set()
