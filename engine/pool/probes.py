"""Active instruments on the engines: recorded tokens scored in several ways, and what each engine holds.

Every call is bounded in time, changes nothing, and is no reason to lose an engine: one that does not answer is left
out, with its sentence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from engine.pool.members import Fleet
from engine.types import EngineError, HeldWeights, ProbeRequest, ProbeScores

T = TypeVar("T")


class Probes:
    """All on the pool's own thread."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def score(
        self, requests: Mapping[str, Sequence[ProbeRequest]], timeout: float
    ) -> dict[str, list[ProbeScores] | EngineError]:
        """Each engine scores its requests one after the other, the engines side by side."""
        names = list(requests)
        found = await asyncio.gather(*(self._score(name, requests[name], timeout) for name in names))
        return dict(zip(names, found, strict=True))

    async def held(self, timeout: float) -> dict[str, HeldWeights | EngineError]:
        """What each engine in rotation holds."""
        members = self._fleet.serving
        found = await asyncio.gather(*(self._ask(member.name, _held, timeout) for member in members))
        return {member.name: one for member, one in zip(members, found, strict=True)}

    async def _score(
        self, name: str, requests: Sequence[ProbeRequest], timeout: float
    ) -> list[ProbeScores] | EngineError:
        scored: list[ProbeScores] = []
        try:
            async with asyncio.timeout(timeout):
                for request in requests:
                    one = await self._ask(name, partial(_score, request), timeout)
                    if isinstance(one, EngineError):
                        return one
                    scored.append(one)
        except TimeoutError:
            return EngineError(f"{name}: {len(scored)} of {len(requests)} passes within {timeout:g} s")
        return scored

    async def _ask(self, name: str, call: Any, timeout: float) -> Any:
        member = self._fleet.members.get(name)
        if member is None or not member.serves:
            return EngineError(f"{name}: it does not serve")
        return await self._fleet.ask(member, call, timeout, fatal=False)


def _score(request: ProbeRequest, actor: Any) -> Awaitable[ProbeScores]:
    call: Awaitable[ProbeScores] = actor.probe.remote(request)
    return call


def _held(actor: Any) -> Awaitable[HeldWeights]:
    call: Awaitable[HeldWeights] = actor.held.remote()
    return call
