"""Watches what the engines stand on: Ray's own processes, without which they end, and the guard, which is replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import psutil

from driftline.processes import alive
from engine.cluster.guard import Guard

EVERY_S: Final = 0.5
NEEDED: Final = frozenset({"raylet", "gcs_server"})
"""Names of Ray's processes that no engine outlives: raylet is its parent, gcs_server knows where everything is."""


class Watch:
    """A daemon thread. `on_lost` is called once, with a sentence, when one of Ray's processes has died; `on_guard` each

    time a guard has died and another one was started. Both are called on the watch's own thread.
    """

    def __init__(
        self,
        processes: Iterable[psutil.Process],
        guard: Guard,
        on_lost: Callable[[str], None],
        on_guard: Callable[[str], None],
    ) -> None:
        self._needed = {process: name for process in processes if (name := _name(process)) in NEEDED}
        self._guard = guard
        self._on_lost, self._on_guard = on_lost, on_guard
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray-watch", daemon=True)
        self._thread.start()

    def close(self) -> str:
        """Stop watching; afterwards neither function is called. Returns the sentence for a process that has died since

        the last look, "" where all live or `on_lost` was called.
        """
        self._ending.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        return self._look()

    def _run(self) -> None:
        while not self._ending.wait(EVERY_S):
            with suppress(OSError):  # no memory, no descriptors: they may come back
                code = self._guard.keep()
                if code is not None:
                    self._on_guard(
                        f"the guard of the engines' processes has died (code {code}), another one is started"
                    )
            if not self._ending.is_set() and (lost := self._look()):
                self._on_lost(lost)

    def _look(self) -> str:
        """A sentence for the first process that has died, once; else ""."""
        for process, name in list(self._needed.items()):
            if not alive(process):
                self._needed.clear()
                return f"Ray's {name} (process {process.pid}) has died, and no engine lives without it"
        return ""


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return str(process.name())
    return ""
