"""A rolling restart: one engine after the other is built anew with another fix value, while the others serve on."""

from __future__ import annotations

import asyncio
import time

from driftline.catalog.fixes import BY_ID
from engine.pool.admission import Admission
from engine.pool.dispatch import Dispatch
from engine.pool.members import Fleet, Member
from engine.pool.recovery import Recovery
from engine.pool.spawn import Spawner
from engine.types import EngineError, RestartReport


class RollingRestart:
    """On the pool's own thread, one restart at a time."""

    def __init__(
        self, fleet: Fleet, dispatch: Dispatch, spawner: Spawner, admission: Admission, recovery: Recovery
    ) -> None:
        self._fleet = fleet
        self._dispatch = dispatch
        self._spawner = spawner
        self._admission = admission
        self._recovery = recovery
        self.fix = ""
        """The fix whose restart is under way; empty when there is none."""

    def reserve(self, fix_id: str) -> None:
        """Take the only place. Raises EngineError when it is taken; `run` gives it back."""
        if self.fix:
            raise EngineError(f"a rolling restart for {self.fix} is under way; wait for its end")
        self.fix = fix_id

    async def run(self, fix_id: str, value: str) -> list[RestartReport]:
        """Restart every engine that has another value. On failure all go back, and EngineError says why."""
        before = self._fleet.wanted[fix_id]
        try:
            reports = []
            for name in [name for name in self._fleet.names if not self._fleet.own(name, fix_id)]:
                try:
                    reports += await self._restart(name, fix_id, value)
                except EngineError as error:
                    await self._roll_back(fix_id, before)
                    raise EngineError(f"{fix_id} was not switched {value}: {error}; every engine is back") from error
            self._fleet.wanted = self._fleet.wanted | {fix_id: value}
            return reports
        except asyncio.CancelledError:
            raise EngineError("the engine pool was closed") from None
        finally:
            for name in self._fleet.names:
                self._fleet.set_override(name, fix_id, None)
            self.fix = ""

    async def _restart(self, name: str, fix_id: str, value: str) -> list[RestartReport]:
        """One engine, unless it has the value. When it does not come up, it is on its way back with the old value."""
        member = await self._take_out(name, fix_id, value)
        if member is None:
            return []
        began = time.monotonic()
        self._fleet.report_event(
            "engine.restarting", f"{name} is restarted for {fix_id} {value}", "info", {"engine": name}
        )
        moved = self._dispatch.requeue(member)
        await self._spawner.end(member, gracefully=True)
        try:
            fresh = await self._admission.start_engine(name)
        except EngineError as error:
            self._fleet.set_override(name, fix_id, None)
            self._recovery.replace(name, error)
            raise
        down, version = time.monotonic() - began, fresh.loaded.version if fresh.loaded else 0
        data: dict[str, str | int | float | bool] = {"engine": name, "down_s": down, "moved": moved, "version": version}
        self._fleet.report_event(
            "engine.restarted", f"{name} is back after {down:.1f} s with {fix_id} {value}", "info", data
        )
        return [RestartReport(name, down, moved, version, tuple(fresh.states[fix] for fix in BY_ID))]

    async def _take_out(self, name: str, fix_id: str, value: str) -> Member | None:
        """Take the engine out of rotation once nothing is going on with it; None when it has the value already."""
        while True:
            # One that is dead comes back first: it may be on its way with the value that it had.
            await self._fleet.wait_until(lambda: name in self._fleet.members and self._fleet.members[name].serves)
            async with self._fleet.gate:
                member = self._fleet.members[name]
                if not member.serves:
                    continue
                self._fleet.set_override(name, fix_id, value)
                if member.states[fix_id].effective == value:
                    return None
                self._fleet.leave(member, "restarting", f"restarting for {fix_id} {value}")
                return member

    async def _roll_back(self, fix_id: str, value: str) -> None:
        for name in [name for name in self._fleet.names if not self._fleet.own(name, fix_id)]:
            try:
                await self._restart(name, fix_id, value)
            except EngineError:
                if self._fleet.failure is not None:
                    raise  # no engine comes back any more
        await self._fleet.wait_until(lambda: len(self._fleet.serving) == len(self._fleet.names))
