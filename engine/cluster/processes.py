"""Processes and shared-memory segments that must be gone in the end, whichever process should have ended them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import psutil

from driftline.processes import KILLED_S, alive, kill, wait

_SEGMENT = re.compile(r"/dev/shm/psm_[0-9a-f]+")
"""Message queues of vLLM's processes (multiprocessing's shared memory): left behind when those are killed."""


class SavedProcesses(TypedDict):
    """A `ProcessGroup` as plain values: pid and start time (Unix seconds) of each process, and paths of segments."""

    processes: list[tuple[int, float]]
    segments: list[str]


class ProcessGroup:
    """Each process is held with its start time, so that a re-used pid is never signalled."""

    def __init__(self) -> None:
        self._held: set[psutil.Process] = set()
        self._segments: set[str] = set()

    @property
    def held(self) -> list[psutil.Process]:
        """The tracked processes, as of the last look."""
        return list(self._held)

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
        self._held = {process for process in self._held if alive(process, collect=True)}
        for process in list(self._held):
            self.track(process.pid)

    def dump(self) -> SavedProcesses:
        """The tracked processes and segments, as plain values for `adopt` in another process."""
        born = [(process.pid, process.create_time()) for process in self._held if alive(process, collect=True)]
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
        left = wait(self._held, timeout, collect=True, hurry=stop_waiting)
        killed = kill(left, max(timeout, KILLED_S), collect=True)
        for segment in self._segments:
            Path(segment).unlink(missing_ok=True)
        self._held.clear()
        self._segments.clear()
        return killed


def _segments_of(pid: int) -> set[str]:
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():
            return set()
        return set(_SEGMENT.findall(Path(f"/proc/{pid}/maps").read_text()))
    except OSError:  # gone meanwhile, or a system without /proc
        return set()
