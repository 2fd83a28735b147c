"""The console as a child process on this terminal, whose modes are restored however the child ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import termios
from collections.abc import Sequence
from typing import Any, Final

TERMINATE_GRACE: Final = 3.0
# Leave the alternate screen, show the cursor, reset colours, mouse reports and bracketed paste off.
RESET: Final = "\x1b[?1049l\x1b[?25h\x1b[0m\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l"


class ConsoleChild:
    """Runs `driftline attach` in the foreground of the terminal while entered."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._command = [sys.executable, "-P", "-m", "console.cli", "attach", *arguments]
        self._child: subprocess.Popen[bytes] | None = None
        self._modes: list[Any] | None = None

    def __enter__(self) -> ConsoleChild:
        with contextlib.suppress(termios.error):
            self._modes = termios.tcgetattr(sys.stdin.fileno())
        self._child = subprocess.Popen(self._command)
        return self

    @property
    def pids(self) -> list[int]:
        """The console's process id, to be spared when other processes are ended."""
        return [self._child.pid] if self._child is not None else []

    def poll(self) -> int | None:
        """The console's exit code, None while it is open."""
        return self._child.poll() if self._child is not None else 0

    def __exit__(self, *_exception: object) -> None:
        child = self._child
        if child is None:
            return
        killed = child.poll() is None
        if killed:
            child.terminate()
            try:
                child.wait(TERMINATE_GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self._modes is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._modes)
        if killed or child.returncode < 0:
            # The child had no time to do so itself.
            sys.stdout.write(RESET)
            sys.stdout.flush()


def on_terminal() -> bool:
    """True if a console can be opened: stdin and stdout are a terminal, and this process is in its foreground.

    A job in the background (`&`, or under `timeout`) has a terminal too, and would be stopped by touching it.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False
