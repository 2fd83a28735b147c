"""Whether the hub of a run answers, asked every few seconds on a thread of its own.

A hub that hangs still has its process, its lock and its sockets. What it has not is an answer.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from driftline.client import Client, ClientError, RefusedError
from driftline.keys import load
from driftline.rundir import RunDir, RunError

EVERY: Final = 1.0
"""Seconds between two questions."""
PATIENCE: Final = 3.0
"""Seconds for one answer."""


class Pulse:
    """Asks one hub at a time: the one that `watch` names."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._pid = 0
        self._silent = 0.0
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch(self, pid: int) -> None:
        """Ask the hub of this process id from now on; 0: none."""
        with self._lock:
            if pid == self._pid:
                return
            self._pid, self._silent = pid, 0.0
        if self._thread is None and pid:
            self._thread = threading.Thread(target=self._ask_on, name="hub-pulse", daemon=True)
            self._thread.start()

    @property
    def silent(self) -> float:
        """Seconds that were waited for answers in vain since the last one.

        Only what this process has really waited counts: if it was stopped itself, the hub is not to blame.
        """
        with self._lock:
            return self._silent

    def close(self) -> None:
        """Stop asking."""
        self._ending.set()

    def _ask_on(self) -> None:
        client: Client | None = None
        asked = 0
        while not self._ending.wait(EVERY):
            pid = self._pid
            if client is not None and pid != asked:
                client.close()
                client = None
            if not pid:
                continue
            try:
                client = client or Client(self._run.connection(), load(self._run, "viewer"))
            except RunError:
                continue  # files that are not there, or not readable, say nothing about the hub
            asked = pid
            before = time.monotonic()
            answered = _answers(client)
            waited = min(time.monotonic() - before, PATIENCE) + EVERY
            with self._lock:
                if self._pid == pid:
                    self._silent = 0.0 if answered else self._silent + waited
        if client is not None:
            client.close()


def _answers(client: Client) -> bool:
    try:
        client.ping(PATIENCE)
    except RefusedError:  # a key that was revoked: it is the hub that says so
        return True
    except ClientError:
        return False
    return True
