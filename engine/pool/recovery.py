"""A dead engine does not end the run: its requests go to the others, and a new one takes its name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final

from engine.cluster.ray_calls import DiedError
from engine.pool.admission import Admission
from engine.pool.dispatch import Dispatch
from engine.pool.members import Fleet, Member
from engine.pool.spawn import Spawner
from engine.types import DeadCoreError, EngineError

PAUSE_S: Final = 1.0
LOADS: Final = 3
"""Starts of an engine whose core dies while it loads: something outside may have killed it, or it dies each time."""
PAUSE_MAX_S: Final = 30.0
"""Wait, in seconds, before the second try at a replacement; doubled for each more, up to the longest."""


class Recovery:
    """On the pool's own thread. `bound` is how many starts of replacements a run may have."""

    def __init__(self, fleet: Fleet, dispatch: Dispatch, spawner: Spawner, admission: Admission, bound: int) -> None:
        self._fleet = fleet
        self._dispatch = dispatch
        self._spawner = spawner
        self._admission = admission
        self._bound = bound
        self._used = 0
        self._tasks: set[asyncio.Task[None]] = set()
        fleet.on_lost = self.lost
        fleet.on_entered = self.entered

    def entered(self, member: Member) -> None:
        """Watch a member that has come into rotation, and give it what waits."""
        self.background(self._watch(member))
        self._dispatch.send_waiting()

    def lost(self, member: Member, error: EngineError) -> None:
        """Move what a dead member had in flight, end what is left of it, and replace it in the background."""
        version = member.loaded.version if member.loaded else 0
        data: dict[str, str | int | float | bool] = {"engine": member.name, "version": version}
        self._fleet.report_event("engine.died", str(error), "error", data)
        self._dispatch.requeue(member)
        self.background(self._replace(member, error))

    def replace(self, name: str, error: EngineError) -> None:
        """Bring an engine back that did not come up again by itself."""
        self.background(self._retry_start(name, error, time.monotonic()))

    async def first_start(self, name: str) -> Member:
        """The first start of an engine; one that is killed meanwhile is started again, within the bound.

        Of vLLM's core the bound is LOADS as well: it may take minutes to load, and die of the same cause each time.
        Raises EngineError, at once for an engine that cannot start.
        """
        loads = 0
        while True:
            try:
                return await self._admission.start_engine(name)
            except (DiedError, DeadCoreError) as error:
                loads += isinstance(error, DeadCoreError)
                if self._fleet.failure is not None or self._used >= self._bound:
                    raise
                if loads >= LOADS:
                    raise EngineError(f"{error} ({loads} times; it is not started again)") from error
                self._used += 1
                text = f"{error}; it had not started yet, another one is started"
                self._fleet.report_event("engine.died", text, "error", {"engine": name})

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background; if it raises, the pool fails with that error."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def stop(self) -> None:
        """Give up every replacement under way."""
        for task in self._tasks:
            task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.give_up(EngineError(f"the engine pool broke: {type(error).__name__}: {error}"))

    async def _watch(self, member: Member) -> None:
        """Hold a call open that ends only when the engine does, so that its death is known without traffic."""
        result = await self._fleet.ask(member, lambda actor: actor.watch.remote())
        if isinstance(result, EngineError):
            self._fleet.lose(member, result)

    async def _replace(self, member: Member, error: EngineError) -> None:
        began = time.monotonic()
        await self._spawner.end(member, gracefully=False)
        await self._retry_start(member.name, error, began)

    async def _retry_start(self, name: str, error: EngineError, began: float) -> None:
        pause = 0.0
        while self._fleet.failure is None:
            if self._used >= self._bound:
                self.give_up(EngineError(f"{error} (engine.replacements = {self._bound} are used up)"), name)
                return
            self._used += 1
            await asyncio.sleep(pause)
            pause = min(PAUSE_MAX_S, 2 * pause or PAUSE_S)
            try:
                member = await self._admission.start_engine(name)
            except EngineError as again:
                error = again
                text = f"{name} did not come back: {again}"
                self._fleet.report_event("engine.died", text, "error", {"engine": name, "replacement": True})
                continue
            down, version = time.monotonic() - began, member.loaded.version if member.loaded else 0
            text = f"{name} is back after {down:.1f} s, with version {version}"
            data: dict[str, str | int | float | bool] = {"engine": name, "down_s": down, "version": version}
            self._fleet.report_event("engine.replaced", text, "info", data)
            return

    def give_up(self, error: EngineError, name: str = "") -> None:
        """The pool cannot go on: it reports that, and fails."""
        self._fleet.report_event("engine.gave-up", str(error), "error", {"engine": name} if name else {})
        self._dispatch.fail(error)
        self._fleet.fail(error)
