"""Parts made while the ones before them are being written: reading takes one processor, encoding the others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Final, Generic, TypeVar

_T = TypeVar("_T")
AHEAD: Final = 2
"""Parts that may wait for the writer; with the one being made, what the overlap costs in memory."""
_POLL_SECONDS: Final = 0.1


class _End:
    """The parts are all told, or `error` ended them."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


class _Maker(Generic[_T]):
    """Goes through the parts in a thread of its own until they end or nobody wants them any more."""

    def __init__(self, parts: Iterator[_T]) -> None:
        self._parts = parts
        self._made: queue.Queue[_T | _End] = queue.Queue(AHEAD)
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._make, name="parts-ahead", daemon=True)
        self._thread.start()

    def take(self) -> _T | _End:
        return self._made.get()

    def stop(self) -> None:
        self._unwanted.set()
        self._thread.join()

    def _make(self) -> None:
        end = _End()
        try:
            for part in self._parts:
                if not self._give(part):
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever takes the parts
            end = _End(error)
        self._give(end)

    def _give(self, one: _T | _End) -> bool:
        while not self._unwanted.is_set():
            try:
                self._made.put(one, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


def ahead(parts: Iterator[_T]) -> Generator[_T, None, None]:
    """The same parts, and what is raised in making them; no thread is left behind once this is closed."""
    maker = _Maker(parts)
    try:
        while not isinstance(part := maker.take(), _End):
            yield part
        if part.error is not None:
            raise part.error
    finally:
        maker.stop()
