"""The end of the console by a signal or with its terminal, without a key.

Left to themselves the signals kill the process with the terminal still in raw mode on the alternate screen,
and Textual 8.2.8 neither survives a terminal that takes no more bytes (its writing thread dies, and the app waits
for it for ever) nor ends with one that gives no more (its input thread spins on an end of file).
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import IO, Any, Final

from console.process import ending

RESTORE_SECONDS: Final = 1.0
"""Seconds for putting the terminal right; less than `console.launch.console_child` waits for its console."""
CLOSE_SECONDS: Final = 0.7
"""Seconds after that for what else there is to end: screens, connections, a lease that is given back."""

RESET: Final = b"\x1b[<u\x1b[?7h\x1b[?1004l\x1b[?2004l\x1b[?1049l\x1b[?25h\x1b[0m"


class DisconnectSafeFile:
    """A terminal's file that drops what is written once there is no terminal behind it."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.gone = False

    def write(self, text: str) -> int:
        if not self.gone:
            try:
                return self._file.write(text)
            except OSError:
                self.gone = True
        return len(text)

    def flush(self) -> None:
        if not self.gone:
            try:
                self._file.flush()
            except OSError:
                self.gone = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Hangup:
    """Ends the app in order on the first signal, at once on the second.

    Whatever hangs meanwhile, the process ends: `RESTORE_SECONDS` after the signal if the terminal is not put right by
    then, `CLOSE_SECONDS` after that if something else holds it. Started and stopped in the main thread. A signal that
    was ignored (nohup) stays ignored.
    """

    def __init__(self, end: Callable[[int], None], fd: int) -> None:
        """`end` is given the exit code, 128 + the signal, as a shell would report it; it may not block."""
        self._end = end
        self._fd = fd
        self._before: dict[int, Any] = {}
        self._modes: list[Any] | None = None
        # A handler runs anywhere in the main thread, also where that holds a lock: only what is made to be interrupted
        # by itself may be called there. Putting into this queue is.
        self._asked: SimpleQueue[int | None] = SimpleQueue()
        self._restored = threading.Event()

    def start(self) -> None:
        """Take the signals, and remember the terminal's modes: before they are changed."""
        with contextlib.suppress(termios.error):
            self._modes = termios.tcgetattr(self._fd)
        threading.Thread(target=self._watch, name="hangup", daemon=True).start()
        ending.suspend()
        for number in ending.CAUGHT:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)

    def stop(self) -> None:
        """The terminal is put right: give the signals back."""
        ending.resume()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        self._restored.set()
        self._asked.put(None)

    def end(self, code: int) -> None:
        """End the app in order with this exit code; for any thread."""
        self._asked.put(code)
        self._end(code)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        self.end(128 + number)

    def _watch(self) -> None:
        """A thread's: nothing, until the process has been asked to end."""
        code = self._asked.get()
        if code is None:
            return
        if not self._restored.wait(RESTORE_SECONDS):
            self._restore()
        else:
            time.sleep(CLOSE_SECONDS)
        os._exit(code)

    def _restore(self) -> None:
        """The app hangs, most likely on a terminal that takes nothing: put that right from here."""
        with contextlib.suppress(termios.error, OSError):
            termios.tcflush(self._fd, termios.TCOFLUSH)  # or the next line waits too
            os.write(self._fd, RESET)
            if self._modes is not None:
                termios.tcsetattr(self._fd, termios.TCSANOW, self._modes)
