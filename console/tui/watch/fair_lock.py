"""A lock between a thread that never rests and one that an operator waits for."""

from __future__ import annotations

import threading


class TurnLock:
    """A mutex that goes to whoever waits for it before whoever had it last can have it again.

    Python's own is taken back by a thread that lets go of it in a loop before a waiting one has even woken up: a key
    would wait until the flood ends. Here a thread that waits stands in the door, and the others wait behind it.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._room = threading.Lock()

    def __enter__(self) -> None:
        with self._door:
            self._room.acquire()

    def __exit__(self, *_: object) -> None:
        self._room.release()
