"""Weight syncs: the newest weights to every engine in rotation, verified, repeated where a load fails.

Engines are synced side by side and each for itself: one that fails, hangs or dies holds no other, unless the policy
is that all resume together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from driftline.catalog.fixes import BY_ID
from engine.pool.dispatch import Dispatch
from engine.pool.members import CONTROL_S, Fleet, Member, NewestWeights
from engine.types import EngineError, SyncReport
from engine.weights.publish import digest
from engine.weights.transport import Transport, Update

if TYPE_CHECKING:
    import torch

RETRIES: Final = 2


class WeightSyncs:
    """All on the pool's own thread. `staged` fixes change at the next sync's boundary."""

    def __init__(self, fleet: Fleet, transport: Transport, dispatch: Dispatch) -> None:
        self._fleet = fleet
        self._transport = transport
        self._dispatch = dispatch
        self.staged: dict[str, str] = {}
        self.timeout = 120.0

    async def sync(
        self, weights: Mapping[str, torch.Tensor], version: int, *, timeout: float, barrier: bool, retries: int
    ) -> list[SyncReport]:
        """See EnginePool.sync."""
        fleet, deadline = self._fleet, time.monotonic() + timeout
        self.timeout = timeout
        self._refuse_unreachable()
        newest = await self._newest(weights, version)
        while True:
            if not await fleet.wait_until(lambda: bool(fleet.serving), max(0.0, deadline - time.monotonic())):
                raise EngineError(f"no engine came up within {timeout:g} s: {self._absent()}")
            async with fleet.gate:
                reports = await self._sync_all(newest, timeout, barrier, retries)
            if reports:
                return reports  # else all have died meanwhile: their replacements come up with these weights

    async def load_newest(self, member: Member, newest: NewestWeights) -> SyncReport:
        """Sync one member that is not in rotation yet. Raises EngineError when it did not take the weights."""
        async with self._publication(newest, [member]) as updates:
            report = await self._load(
                member, newest, updates[member.name], self._fixes_for(member, {}), self.timeout, resume=True
            )
        if not report.ok:
            raise EngineError(f"{member.name}: did not take version {newest.version}: {report.detail}")
        return report

    def _refuse_unreachable(self) -> None:
        for member in self._fleet.serving:
            if member.info is not None and (sentence := self._transport.unreachable(member.info)):
                raise EngineError(sentence)

    def _absent(self) -> str:
        members = self._fleet.members.values()
        return "; ".join(f"{member.name} {member.status} {member.detail}".strip() for member in members)

    async def _newest(self, weights: Mapping[str, torch.Tensor], version: int) -> NewestWeights:
        known = self._fleet.newest
        if known is not None and known.version == version and known.weights is weights:
            return known
        return NewestWeights(version, weights, await asyncio.to_thread(digest, weights))

    @asynccontextmanager
    async def _publication(self, newest: NewestWeights, members: list[Member]) -> AsyncIterator[Mapping[str, Update]]:
        # Copying gigabytes must not hold up the thread that all other calls go through.
        published = self._transport.publish(newest.weights, [member.name for member in members])
        updates = await asyncio.to_thread(published.__enter__)
        try:
            yield updates
        finally:
            await asyncio.to_thread(published.__exit__, None, None, None)

    async def _sync_all(self, newest: NewestWeights, timeout: float, barrier: bool, retries: int) -> list[SyncReport]:
        fleet, members, staged = self._fleet, self._fleet.serving, dict(self.staged)
        if not members:
            return []
        before = fleet.newest
        fixes = {member: self._fixes_for(member, staged) for member in members}
        async with self._publication(newest, members) as updates:
            fleet.newest, fleet.sync_s = newest, timeout
            try:
                found = await asyncio.gather(
                    *(
                        self._sync_member(m, newest, updates[m.name], fixes[m], timeout, barrier, retries)
                        for m in members
                    )
                )
            finally:
                fleet.sync_s = 0.0
                if barrier:
                    await fleet.ask_all(lambda actor: actor.release.remote(), CONTROL_S)
        reports = [report for report in found if report is not None]
        if any(report.ok for report in reports):
            fleet.wanted = fleet.wanted | staged
            self.staged = {fix: value for fix, value in self.staged.items() if staged.get(fix) != value}
        elif reports:
            # No engine could load these: a replacement had better get what the others still hold.
            fleet.newest = before
        if aborted := self._dispatch.take_aborted():
            text = f"{aborted} groups were cut short by a pause and are run again"
            fleet.report_event("rollouts.aborted", text, "info", {"groups": aborted, "version": newest.version})
        return reports

    def _fixes_for(self, member: Member, staged: dict[str, str]) -> dict[str, str]:
        """Fix changes of a member at this sync: the staged ones, and those that an earlier, failed sync left undone."""
        undone = {
            fix: value
            for fix, value in self._fleet.wanted_of(member.name).items()
            if fix in member.states and member.states[fix].how == "next_sync" and member.states[fix].effective != value
        }
        return undone | {fix: value for fix, value in staged.items() if not self._fleet.own(member.name, fix)}

    async def _sync_member(
        self, member: Member, newest: NewestWeights, update: Update, fixes: dict[str, str], timeout: float,
        barrier: bool, retries: int,
    ) -> SyncReport | None:  # fmt: skip
        """Sync one member in rotation, again where it fails; None when it died over it."""
        resume = not barrier
        report = await self._load(member, newest, update, fixes, timeout, resume=resume)
        for attempt in range(2, retries + 2):
            if report.ok or not await self._fleet.still_serves(member):
                break
            try:
                async with self._publication(newest, [member]) as again:
                    report = await self._load(member, newest, again[member.name], fixes, timeout, resume=resume)
            except EngineError as error:
                report = replace(report, detail=str(error))
            report = replace(report, attempts=attempt)
        if not member.serves:
            return None
        member.healthy = report.ok
        return report

    async def _load(
        self,
        member: Member,
        newest: NewestWeights,
        update: Update,
        fixes: dict[str, str],
        timeout: float,
        *,
        resume: bool,
    ) -> SyncReport:
        began, start = time.monotonic(), time.time()

        def call(actor: Any) -> Any:
            return actor.sync.remote(update, newest.version, newest.digest, resume=resume, fixes=fixes)

        report: SyncReport | EngineError = await self._fleet.ask(member, call, timeout)
        if isinstance(report, EngineError):
            held = member.loaded.version if member.loaded else 0
            return SyncReport(
                member.name, False, held, held, start, 0.0, 0.0, 0.0, time.monotonic() - began, 0, 0, str(report)
            )
        if report.ok:
            member.loaded = newest
        # Reports list the fixes in the catalogue's order.
        member.states = member.states | dict(zip(BY_ID, report.fixes, strict=False))
        named = zip(BY_ID, report.fixes, strict=False)
        return replace(report, fixes=tuple(self._fleet.stamped(member.name, named)))
