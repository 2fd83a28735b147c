"""Process trees: finds and ends every descendant of this process.

A trainer starts Ray, Ray starts workers, a worker starts vLLM's engine core: most of them are not our children and
some are in sessions of their own. They are followed by parentage only, never by name. Where the kernel can
(Linux), this process adopts orphaned descendants, so that one whose parent died is still found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable
from typing import Final

import psutil

from driftline.processes import alive, kill, wait

PR_SET_CHILD_SUBREAPER: Final = 36
PR_GET_CHILD_SUBREAPER: Final = 37


def adopt_orphans(on: bool = True) -> bool:
    """Have orphaned descendants become children of this process instead of init's. False where impossible.

    The caller must call `reap`, and call this with False at the end: an adopted orphan stays a zombie until collected.
    """
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0) == 0)


def adopts_orphans() -> bool:
    """True while orphaned descendants become children of this process."""
    found = ctypes.c_int(0)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0)
    return bool(found.value)


def descendants(root: int | None = None, *, without: Iterable[int] = ()) -> list[psutil.Process]:
    """Living descendants of `root` (default: this process), less the subtrees of the pids in `without`."""
    try:
        tree = psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    cut = set(without)
    for pid in without:
        with contextlib.suppress(psutil.NoSuchProcess):
            cut.update(child.pid for child in psutil.Process(pid).children(recursive=True))
    return [process for process in tree if process.pid not in cut and alive(process)]


def with_environment(name: str, value: str) -> list[psutil.Process]:
    """Living processes of this user that were started with this variable, this process excepted.

    It is read from what a process was started with: one that wrote over that (a title) is not found by it.
    """
    found, me = [], os.getuid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.uids().real == me and process.environ().get(name) == value:
                found.append(process)
    return [process for process in found if alive(process)]


def end(processes: list[psutil.Process], grace: float) -> None:
    """SIGTERM, up to `grace` seconds, then `driftline.processes.kill`."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.terminate()
    wait(processes, grace)
    kill(processes)


def reap(known: Iterable[int]) -> None:
    """Collect ended orphans that were adopted. `known` are children that a Popen object collects itself."""
    mine = set(known)
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.pid not in mine and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)
