"""The first thing on the screen: what is being opened, while Python still reads what the console is made of.

On a GPU box whose environment lies on a network disk that takes seconds, in which an operator wants to see that the
command runs. Plain escape sequences, and no import that costs anything.
"""

from __future__ import annotations

import contextlib
import os
import sys
from types import TracebackType
from typing import Final

from console.process import ending

ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[2J\x1b[H"
LEAVE: Final = "\x1b[?1049l\x1b[?25h"

_shown = False


class Splash:
    """Shows `text` on the terminal's other screen while entered, unless the console has taken over meanwhile."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Splash:
        global _shown
        try:
            width, height = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return self
        # What a person typed, cut to the line and without what could steer the terminal.
        text = "".join(char for char in self._text if char.isprintable())[: max(width - 2, 0)]
        column = max((width - len(text)) // 2, 0) + 1
        sys.stdout.write(f"{ENTER} driftline\x1b[{max(height // 2, 1)};{column}H{text}")
        sys.stdout.flush()
        _shown = True
        self._stack.enter_context(ending.restored(_leave_by_descriptor))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if take_over():
            sys.stdout.write(LEAVE)
            sys.stdout.flush()


def _leave_by_descriptor() -> None:
    if take_over():
        os.write(sys.stdout.fileno(), LEAVE.encode())


def take_over() -> bool:
    """True once if a splash is on the screen: the caller leaves or replaces it."""
    global _shown
    shown, _shown = _shown, False
    return shown
