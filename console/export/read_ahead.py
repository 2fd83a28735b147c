"""Parts made while the ones before them are being written: reading takes one processor, encoding the others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Final, Generic, TypeVar

_T = TypeVar("_T")
AHEAD: Final = 2
"""Parts that may wait for the writer; with the one being made they bound the memory of the overlap."""
_POLL_SECONDS: Final = 0.1


class _End:
    """The end of the parts, by `error` if that is not None."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Maker(Generic[_T]):
    """Makes the parts in a thread of its own until they end or `stop` is called."""

    def __init__(self, parts: Iterator[_T]) -> None:
        self._parts = parts
        self._made: queue.Queue[_T | _End] = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._make, name="parts-ahead", daemon=True)
        self._thread.start()

    def next_part(self) -> _T | _End:
        return self._made.get()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _make(self) -> None:
        end = _End()
        try:
            for part in self._parts:
                if not self._put(part):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by who takes the parts
            end = _End(error)
        self._put(end)

    def _put(self, one: _T | _End) -> bool:
        while not self._stopped.is_set():
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
        while not isinstance(part := maker.next_part(), _End):
            yield part
        if part.error is not None:
            raise part.error
    finally:
        maker.stop()
