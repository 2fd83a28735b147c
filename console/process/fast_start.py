"""What makes a console's start short: no garbage collection meanwhile, and no threads of numpy's algebra."""

from __future__ import annotations

import gc
import os
from typing import Final

_THREADS: Final = "OPENBLAS_NUM_THREADS"


def begin() -> None:
    """Before anything big is imported; `settle` ends it."""
    # Modules make objects by the hundred thousand and next to no garbage: looking through them again and again for
    # some takes a fifth of the whole start.
    gc.disable()
    # OpenBLAS starts a thread for every core while numpy is imported. Nothing here multiplies matrices.
    own = os.environ.get(_THREADS)
    os.environ[_THREADS] = own or "1"
    try:
        import numpy  # noqa: F401  here for when it is imported, not for its names
    finally:
        # What is started from here may well multiply.
        if own is None:
            del os.environ[_THREADS]


def settle() -> None:
    """Once the first frame is on the terminal.

    What there is by then (modules, classes, style sheets) stays until the end and is not looked through again: later
    collections take a tenth of the time. Of the garbage among it little is lost: it is that of one start.
    """
    gc.freeze()
    gc.enable()
