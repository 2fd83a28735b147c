"""The allocator's free memory, given back to the system."""

from __future__ import annotations

import ctypes
from typing import Final

_malloc_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it


def trim() -> None:
    """Give back what has been freed, in every arena, without the interpreter's lock.

    Blocks of many sizes leave holes that nothing of another size fits in. A process that frees and allocates for hours
    grows by them, although it holds no more than before.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)
