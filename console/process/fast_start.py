"""Shortens the console's start: no garbage collection meanwhile, and no threads of numpy's linear algebra."""

from __future__ import annotations

import gc
import os
from typing import Final

_THREADS: Final = "OPENBLAS_NUM_THREADS"


def begin() -> None:
    """Call before the first large import; `settle` ends it."""
    # Modules make objects by the hundred thousand and next to no garbage: scanning them again and again takes a
    # fifth of the whole start.
    gc.disable()
    # OpenBLAS starts a thread for every core while numpy is imported. Nothing here multiplies matrices.
    own = os.environ.get(_THREADS)
    os.environ[_THREADS] = own or "1"
    try:
        import numpy  # noqa: F401  imported now, with one thread; its names are not used here
    finally:
        # Child processes may well multiply matrices.
        if own is None:
            del os.environ[_THREADS]


def settle() -> None:
    """Call once the first frame is on the terminal.

    The objects that exist by then (modules, classes, style sheets) live until the end and are not scanned again: later
    collections take a tenth of the time. The garbage among them is never freed, which is that of one start.
    """
    gc.freeze()
    gc.enable()
