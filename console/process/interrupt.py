"""Ctrl-C while modules are imported: recorded at once, raised when the imports are complete.

Python's own handler raises between any two instructions. During an import that is a page of traceback that
means nothing to the operator, and during the initialisation of an extension module a crash: numpy dies of a segfault.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end if ctrl-C was pressed meanwhile; pressed twice, it ends the process at once.

    A handler other than Python's default (nohup, a supervisor that counts signals) stays in place.
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
