"""Ctrl-C while modules are imported: noted at once, obeyed when they are whole.

Python's own handler raises between any two instructions. In the midst of an import that is a page of traceback about
nothing the operator did, and in the midst of an extension's own initialisation a crash: numpy dies of a segfault.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end, if ctrl-C was pressed meanwhile; pressed twice, it ends the process at once.

    Where ctrl-C means something else already (nohup, a supervisor that counts), that is left alone.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pressed = []

    def note(number: int, _frame: object) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    try:
        signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread, where no ctrl-C arrives
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt
