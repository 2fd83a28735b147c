"""A started engine, the weights that it holds and their version: every test leaves them as they are then."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Qwen2ForCausalLM

from engine import EnginePool

MAX_TOKENS = 128
"""Long enough for switches and syncs while a sequence is under way."""


def segments() -> set[str]:
    """Weight segments that this process has open, once or more; another run on the machine has its own."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return {name for name in found if name.startswith("/dev/shm/driftline-")}


@dataclass
class SharedEngine:
    """`pool` has one engine, "engine-0"; `version` is that of `model`, the newest weights it took."""

    pool: EnginePool
    model: Qwen2ForCausalLM
    version: int = 0

    @property
    def actor(self) -> Any:
        """The Ray actor, to be driven as the pool drives it."""
        return self.pool._fleet.members["engine-0"].actor
