"""Garbage collection and threads of a console: none of either while it starts, little garbage while it runs."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_THREADS: Final = "OPENBLAS_NUM_THREADS"
_THRESHOLDS: Final = (700, 5, 1)
"""Of the collector's generations: all is looked through once some 8,000 objects more have been made than freed.

By Python's own (700, 10, 10) that are 85,000. A console that draws makes so many in an hour, of Textual's layouts and
other circles, and grew by several MiB until then.
"""


@contextmanager
def starting() -> Iterator[None]:
    """A console's start and run: `begin`; a start that ends before it has settled leaves the collector on."""
    collected = gc.isenabled()
    begin()
    try:
        yield
    finally:
        if collected:
            gc.enable()


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
    gc.set_threshold(*_THRESHOLDS)
    gc.enable()
