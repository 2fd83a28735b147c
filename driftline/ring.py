"""The buffer between a producer's threads and its sender: bounded in bytes, counting what it drops.

Two parts. `pending` frames have no number yet and may be dropped, oldest first, when the ring is full. A frame gets
its number when it is taken to be sent; from then on it stays until the hub has acknowledged it, so that dropping
never leaves a hole in the sequence. The numbered part is kept to a fraction of the ring, so there is always
something that may be dropped.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

WINDOW_FRAMES: Final = 2048
_WINDOW_SHARE: Final = 4
_OVERHEAD: Final = 64  # bytes that Python keeps beside every small body


class Ring:
    """Frames of one producer that are not acknowledged yet. Thread-safe; no call blocks on anything but the GIL."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._pending: deque[bytes] = deque()
        self._window: dict[int, bytes] = {}
        self._window_bytes = 0
        self.bytes = 0
        self.put_count = 0
        self.taken_count = 0
        self.dropped = 0
        self.acked = 0
        self.numbered = 0

    def put(self, body: bytes) -> None:
        """Add a frame; drop the oldest unsent ones if it does not fit."""
        size = len(body) + _OVERHEAD
        with self._lock:
            self._pending.append(body)
            self.put_count += 1
            self.bytes += size
            if self.bytes > self._limit:
                self._shed()

    def _shed(self) -> None:
        while self.bytes > self._limit and self._pending:
            self.bytes -= len(self._pending.popleft()) + _OVERHEAD
            self.taken_count += 1
            self.dropped += 1

    def number(self) -> int:
        """Give numbers to as many pending frames as the window has room for; return the highest number given."""
        with self._lock:
            while self._pending and len(self._window) < WINDOW_FRAMES:
                size = len(self._pending[0]) + _OVERHEAD
                if self._window and (self._window_bytes + size) * _WINDOW_SHARE > self._limit:
                    break
                self.numbered += 1
                self.taken_count += 1
                self._window[self.numbered] = self._pending.popleft()
                self._window_bytes += size
            return self.numbered

    def get(self, number: int) -> bytes | None:
        """A numbered frame that is not acknowledged yet."""
        return self._window.get(number)

    def ack(self, last: int) -> None:
        """Forget every frame up to `last`."""
        last = min(last, self.numbered)
        with self._lock:
            for number in range(self.acked + 1, last + 1):
                size = len(self._window.pop(number)) + _OVERHEAD
                self._window_bytes -= size
                self.bytes -= size
            self.acked = max(self.acked, last)
