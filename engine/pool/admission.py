"""The way of an engine into rotation: the newest weights, the wanted fixes, the pause that is on, and then service.

The first start, the replacement of a dead engine and each step of a rolling restart all end here.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any

from driftline.frames import EngineFix, meets
from engine.fixes import path
from engine.pool.members import CONTROL_S, Fleet, Member
from engine.pool.spawn import Spawner
from engine.pool.weight_sync import WeightSyncs
from engine.types import EngineError, PauseReport


class Admission:
    """On the pool's own thread. `timeout` in seconds bounds one engine's start."""

    def __init__(self, fleet: Fleet, spawner: Spawner, syncs: WeightSyncs, timeout: float) -> None:
        self._fleet = fleet
        self._spawner = spawner
        self._syncs = syncs
        self._timeout = timeout

    async def start_engine(self, name: str) -> Member:
        """Start an engine under this name and take it into rotation. Raises EngineError, with nothing left of it."""
        before = self._fleet.members.get(name)
        member = self._spawner.spawn(name)
        member.shown = before.shown if before else None
        self._fleet.members[name] = member
        try:
            await self._spawner.bring_up(member, self._timeout)
            await self._catch_up(member)
            async with self._fleet.gate:
                # Most of the work is done by now; only what has changed meanwhile is left, and nothing can any more.
                await self._catch_up(member)
                await self._share_pause(member)
                self._fleet.enter(member)
        except EngineError as error:
            self._fleet.leave(member, "dead", str(error))
            await self._spawner.end(member, gracefully=False)
            raise
        return member

    async def _catch_up(self, member: Member) -> None:
        newest, wanted = self._fleet.newest, self._fleet.wanted_of(member.name)
        if newest is None and member.loaded is not None:
            raise EngineError(f"{member.name}: holds version {member.loaded.version}, which the others could not load")
        if newest is not None and member.loaded is not newest:
            await self._syncs.load_newest(member, newest)
        for fix, value in wanted.items():
            state = member.states[fix]
            if not meets(value, state.effective) and path(state, fix, value) == "live":
                result = await self._fleet.ask(member, partial(_set_fix, fix, value), CONTROL_S)
                if isinstance(result, EngineError):
                    raise result
                member.states[fix] = state = result
            _refuse_other(state, fix, value)

    async def _share_pause(self, member: Member) -> None:
        paused = False  # an engine starts to serve at once
        while paused != self._fleet.paused:
            paused = self._fleet.paused
            call = partial(_pause, self._fleet.lease_until) if paused else _resume
            result = await self._fleet.ask(member, call, CONTROL_S)
            if isinstance(result, EngineError):
                raise result


def _set_fix(fix: str, value: str, actor: Any) -> Awaitable[EngineFix]:
    call: Awaitable[EngineFix] = actor.set_fix.remote(fix, value)
    return call


def _pause(lease_until: float, actor: Any) -> Awaitable[PauseReport]:
    call: Awaitable[PauseReport] = actor.pause.remote(lease_until)
    return call


def _resume(actor: Any) -> Awaitable[PauseReport]:
    call: Awaitable[PauseReport] = actor.resume.remote()
    return call


def _refuse_other(state: EngineFix, fix: str, value: str) -> None:
    """An engine serves with the wanted fixes or not at all; what its platform does not have is not held against it."""
    if not meets(value, state.effective) and path(state, fix, value) != "not_available":
        raise EngineError(f"{state.engine}: came up with {fix} {state.effective}, wanted is {value}")
