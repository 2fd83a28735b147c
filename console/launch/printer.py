"""Lines for a terminal or a pipe, written on a thread of its own.

A terminal that was stopped with ctrl-S, or a pipe whose reader does not read, blocks the thread that writes to it. What
looks after a run must not be blocked.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

HELD: Final = 10_000
"""Writes that wait at most; the oldest go first."""


class Printer:
    """Carries out writes in their order. The first OSError of one is raised by the next `submit` or `close`.

    `lasting`: it is passed over instead, for a log on a disk that may be full for a while.
    """

    def __init__(self, *, lasting: bool = False) -> None:
        self._lasting = lasting
        self._waiting: deque[Callable[[], object]] = deque(maxlen=HELD)
        self._changed = threading.Condition()
        self._busy = self._ending = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._write_on, name="printer", daemon=True)
        self._thread.start()

    def submit(self, write: Callable[[], object]) -> None:
        """Have `write` called soon; does not wait. Raises OSError, such as BrokenPipeError."""
        if self._error is not None:
            raise self._error
        with self._changed:
            self._waiting.append(write)
            self._changed.notify_all()

    def flush(self, seconds: float | None, *, hurried: Callable[[], bool] = lambda: False) -> bool:
        """Wait until all is written, up to `seconds` (None: for ever) or until `hurried`; False if it is not."""
        with self._changed:
            waited = 0.0
            while (self._waiting or self._busy) and self._error is None:
                if hurried() or (seconds is not None and waited >= seconds):
                    return False
                self._changed.wait(0.1)
                waited += 0.1
        return True

    def close(self, *, hurried: Callable[[], bool] = lambda: False) -> None:
        """Write what waits, and end. Raises OSError."""
        self.flush(None, hurried=hurried)
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._error is not None:
            raise self._error

    def _write_on(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                write = self._waiting.popleft()
                self._busy = True
            try:
                write()
            except OSError as error:
                if self._lasting:
                    continue
                self._error = error
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
                return
