"""A lock between a thread that works without a pause and one that an operator waits for."""

from __future__ import annotations

import threading


class FairLock:
    """A mutex that goes to a waiting thread before the thread that had it last can have it again.

    Python's own is taken back by a thread that lets go of it in a loop before a waiting one has even woken up: a key
    would wait until the flood ends. Here a waiting thread holds a second lock, the queue, that others need first.
    """

    def __init__(self) -> None:
        self._queue = threading.Lock()
        self._held = threading.Lock()

    def __enter__(self) -> None:
        with self._queue:
            self._held.acquire()

    def __exit__(self, *_: object) -> None:
        self._held.release()
