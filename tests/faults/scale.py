"""How much of each fault: DRIFTLINE_FAULTS=short (the default, in `make test`) or full (`make faults`)."""

from __future__ import annotations

import os
import random
import secrets
from typing import Final, TypeVar

T = TypeVar("T")

FULL: Final = {"full": True, "short": False}[os.environ.get("DRIFTLINE_FAULTS", "short")]


def scaled(short: T, full: T) -> T:
    """The amount of this scale."""
    return full if FULL else short


def dice(name: str) -> random.Random:
    """A printed seed's dice: the same each time in short; DRIFTLINE_SEED repeats a run in full."""
    seed = int(os.environ.get("DRIFTLINE_SEED") or (secrets.randbits(32) if FULL else 20))
    print(f"{name}: DRIFTLINE_SEED={seed}")
    return random.Random(seed)
