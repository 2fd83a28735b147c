"""The buffer between a producer's threads and its sender: bounded in bytes, counting what it drops.

Two parts. Pending frames have no number yet and may be dropped when the ring is full: raw tokens first, the oldest
of them first, then metrics, and so on up to acks, which go only when there is nothing else left. A frame gets its
number when it is taken to be sent, in the order in which it was put; from then on it stays until the hub has
acknowledged it, so that dropping never leaves a hole in the sequence. The numbered part is kept to a fraction of
the ring, so there is always something that may be dropped; and it counts twice, because libzmq holds a copy of what
it has not sent yet.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

WINDOW_FRAMES: Final = 2048
_WINDOW_SHARE: Final = 4
_OVERHEAD: Final = 64  # bytes that Python keeps beside every small body

# What goes first when there is no room: (letters of the frames' tags, topic under which a loss is counted). The next
# engine state makes up for a lost one; a lost ack leaves an operator without an answer.
_ORDER: Final = (
    (b"t", "tokens"),
    (b"m", "metrics"),
    (b"p", "span"),
    (b"g", "state"),
    (b"r", "state"),
    (b"e", "event"),
    (b"f", "state"),
    (b"a", "ack"),
)
_UNKNOWN: Final = 1  # what is not a frame goes with the metrics
_CLASS: Final = bytes(
    next((at for at, (letters, _) in enumerate(_ORDER) if letter in letters), _UNKNOWN) for letter in range(256)
)


class Ring:
    """Frames of one producer that are not acknowledged yet. Thread-safe; no call blocks on anything but the GIL."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._queues: tuple[deque[tuple[int, bytes]], ...] = tuple(deque() for _ in _ORDER)
        self._drops = [0] * len(_ORDER)
        self._window: dict[int, bytes] = {}
        self._window_bytes = 0
        self.bytes = 0
        self.added_count = 0
        self.taken_count = 0
        self.dropped = 0
        self.acked = 0
        self.numbered = 0

    def add(self, body: bytes) -> None:
        """Add a frame; drop the least important unsent ones if it does not fit."""
        size = len(body) + _OVERHEAD
        # The tag's letter, as `driftline.journal.records.kind` finds it, without a call.
        letter = (body[2] if body[0] < 0xDC else body[4]) if size > _OVERHEAD + 4 else 0
        with self._lock:
            self.added_count += 1
            self._queues[_CLASS[letter]].append((self.added_count, body))
            self.bytes += size
            if self.bytes + self._window_bytes > self._limit:
                self._drop_excess()

    @property
    def drops(self) -> dict[str, int]:
        """Frames dropped so far by topic; topics without any are left out."""
        with self._lock:
            counts: dict[str, int] = {}
            for (_, topic), count in zip(_ORDER, self._drops, strict=True):
                if count:
                    counts[topic] = counts.get(topic, 0) + count
            return counts

    @property
    def pending(self) -> list[bytes]:
        """Frames without a number, in the order in which they were put."""
        with self._lock:
            return [body for _, body in sorted(entry for queue in self._queues for entry in queue)]

    def _drop_excess(self) -> None:
        for at, queue in enumerate(self._queues):
            while queue and self.bytes + self._window_bytes > self._limit:
                self.bytes -= len(queue.popleft()[1]) + _OVERHEAD
                self.taken_count += 1
                self.dropped += 1
                self._drops[at] += 1

    def assign_numbers(self) -> int:
        """Give numbers to as many pending frames as the window has room for; return the highest number given."""
        with self._lock:
            while len(self._window) < WINDOW_FRAMES:
                oldest = min((queue for queue in self._queues if queue), key=_first, default=None)
                if oldest is None:
                    break
                size = len(oldest[0][1]) + _OVERHEAD
                if self._window and (self._window_bytes + size) * _WINDOW_SHARE > self._limit:
                    break
                self.numbered += 1
                self.taken_count += 1
                self._window[self.numbered] = oldest.popleft()[1]
                self._window_bytes += size
            return self.numbered

    def frame(self, number: int) -> bytes | None:
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


def _first(queue: deque[tuple[int, bytes]]) -> int:
    return queue[0][0]
