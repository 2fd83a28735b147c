"""What makes the imports of a start cheaper, in the actor and in the processes that vLLM spawns from it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_SPAWNED: Final = Path(__file__).with_name("spawned.py")


@contextmanager
def without_collections() -> Iterator[None]:
    """Collect no garbage within it: imports make objects by the million and next to no garbage.

    Looking through them again and again takes a fifth of the time of an import of vLLM.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


@contextmanager
def main_of_spawned() -> Iterator[None]:
    """Within it `engine/actor/spawned.py` is the main module of processes that are spawned.

    multiprocessing runs the parent's main module there first; an actor's is that of a worker of Ray's, of which nothing
    is needed.
    """
    main = sys.modules["__main__"]
    own = getattr(main, "__file__", None)
    if own is None:
        yield  # nothing is run there then
        return
    main.__file__ = str(_SPAWNED)
    try:
        yield
    finally:
        main.__file__ = own
