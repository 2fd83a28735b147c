"""Rollout engines: Ray actors with one vLLM each, driven by a trainer through `EnginePool`.

The names below load on first use, so that `import engine` costs neither Ray nor vLLM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.pool.pool import EnginePool
    from engine.types import EngineError, Group, PauseReport, PoolStats, RolloutRequest, Sequence, SyncReport

__all__ = [
    "EngineError",
    "EnginePool",
    "Group",
    "PauseReport",
    "PoolStats",
    "RolloutRequest",
    "Sequence",
    "SyncReport",
]


def __getattr__(name: str) -> object:
    if name == "EnginePool":
        from engine.pool.pool import EnginePool

        return EnginePool
    if name in __all__:
        from engine import types

        return getattr(types, name)
    raise AttributeError(f"module 'engine' has no attribute '{name}'")
