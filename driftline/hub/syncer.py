"""The thread that forces audit log and journal to the disk, because a disk may take its time and a trainer must not."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from driftline.audit import AuditLog
from driftline.journal.journal import Journal

SYNC_SECONDS: Final = 0.1

log = logging.getLogger("driftline.hub")


class Syncer(threading.Thread):
    """Forces audit log and journal to disk each SYNC_SECONDS, at once when a command waits; then wakes the loop."""

    def __init__(self, journal: Journal, audit: AuditLog) -> None:
        super().__init__(name="journal-sync", daemon=True)
        self._journal, self._audit = journal, audit
        self._audited = 0
        self._wanted = threading.Event()
        self._ended = False
        self.synced = journal.head
        self.error = ""
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def run(self) -> None:
        """Sync until `stop`."""
        self._journal.deferred = True
        while not self._ended:
            asked = self._wanted.wait(SYNC_SECONDS)
            self._wanted.clear()
            self._run_tasks()
            # The server writes a command's intent before the command: with the head, its intent is there.
            head, audited = self._journal.head, self._audit.count
            if (head, audited) == (self.synced, self._audited) and not asked:
                continue
            try:
                if audited != self._audited:
                    self._audit.sync()
                    self._audited = audited
                self._journal.sync()
            except OSError as error:  # JournalError and AuditError, and what a disk may still think of
                self.error = str(error)
                time.sleep(SYNC_SECONDS)
                self._wanted.set()
                continue
            self.error, self.synced = "", head
            if asked:
                os.eventfd_write(self.wake, 1)

    def run_later(self, task: Callable[[], None]) -> None:
        """Run a slow task on the disk on this thread, some time later; its OSError is logged."""
        self._tasks.put(task)

    def _run_tasks(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                try:
                    self._tasks.get_nowait()()
                except OSError as error:
                    log.error("on the disk: %s", error)

    def request_sync(self) -> None:
        """Sync now rather than soon."""
        self._wanted.set()

    def stop(self) -> None:
        """Stop; the caller syncs the rest itself."""
        self._ended, self._journal.deferred = True, False
        self._wanted.set()
        if self.is_alive():
            self.join(timeout=5.0)
