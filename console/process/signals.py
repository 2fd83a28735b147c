"""Signals as a counter to poll, not as exceptions: the handler only counts.

An exception raised by a handler can land between the start of a process and the line that remembers it, and
that process would be left behind. Every wait of a foreground command is a short poll that checks this counter.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from console.process import ending


class Signals:
    """Counts SIGINT, SIGTERM and SIGHUP while entered. A signal that was ignored (nohup) stays ignored.

    What is entered with it ends the process itself, however long that takes: what it has started has to end first.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.count = 0
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Signals:
        ending.suspend()
        for number in ending.CAUGHT:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        ending.resume()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.first is None:
            self.first = number

    def __bool__(self) -> bool:
        return self.count > 0

    @property
    def exit_code(self) -> int:
        """128 + the first signal, as a shell would report it: 130 for ctrl-C."""
        return 128 + (self.first or 0)

    def pause(self, seconds: float) -> bool:
        """Sleep; return early and True once a signal has come."""
        deadline = time.monotonic() + seconds
        while not self.count:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, 0.05))
        return True
