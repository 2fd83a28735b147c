"""Fix changes over the whole pool: all engines or none, read back from each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, get_args

from driftline.catalog import fixes as fix_catalogue
from driftline.frames import EngineFix, How, meets
from engine.fixes import not_live, path, refusal
from engine.pool.members import CONTROL_S, Fleet, Member
from engine.pool.rolling_restart import RollingRestart
from engine.pool.weight_sync import WeightSyncs
from engine.types import EngineError

COST: Final[Mapping[How, int]] = {how: weight for weight, how in enumerate(get_args(How))}
"""The further right in `How`, the more a change costs: engines that differ change by the way that suits all."""


class FixChanges:
    """`how` and `stage` for any thread, the rest on the pool's own."""

    def __init__(self, fleet: Fleet, syncs: WeightSyncs, rolling: RollingRestart) -> None:
        self._fleet = fleet
        self._syncs = syncs
        self._rolling_restart = rolling

    def how(self, fix_id: str, value: str, engine: str = "") -> How:
        """How the value would take effect on the engines that serve, by the states that they last reported."""
        check_fix(fix_id, value)
        if not self._fleet.serving:
            raise EngineError(f"{fix_id}: no engine is up; try again when one is back")
        states = [member.states[fix_id] for member in self._concerned(fix_id, value, engine)]
        for state in states:
            if sentence := refusal(state, fix_id, value):
                raise EngineError(sentence)
        return max((path(state, fix_id, value) for state in states), key=COST.__getitem__)

    async def set_fix(self, fix_id: str, value: str, engine: str = "") -> list[EngineFix]:
        """See EnginePool.set_fix."""
        async with self._fleet.gate:
            if self._rolling_restart.fix == fix_id:
                raise EngineError(f"a rolling restart for {fix_id} is under way; wait for its end")
            self.how(fix_id, value, engine)
            members = self._concerned(fix_id, value, engine)
            for member in members:
                if sentence := not_live(member.states[fix_id], fix_id, value):
                    raise EngineError(sentence)
            before = {member: member.states[fix_id] for member in members}
            results = await self._fleet.ask_these(members, lambda actor: actor.set_fix.remote(fix_id, value), CONTROL_S)
            wrong = ""
            for member, result in results:
                if isinstance(result, EngineFix):
                    member.states[fix_id] = result
                    if not meets(value, result.effective):
                        wrong = wrong or f"{member.name}: it reads back '{result.effective}'"
                else:
                    wrong = wrong or str(result)
            if wrong:
                raise EngineError(f"{fix_id} was not switched {value}: {wrong}; {await self._set_back(fix_id, before)}")
            if engine:
                self._fleet.set_own(engine, fix_id, value)
                return self._fleet.stamped(engine, [(fix_id, members[0].states[fix_id])])
            self._fleet.wanted = self._fleet.wanted | {fix_id: value}
            return [member.states[fix_id] for member in self._fleet.following(fix_id)]

    def _concerned(self, fix_id: str, value: str, engine: str) -> list[Member]:
        """The members that a change to this value has to reach. Raises EngineError where none follows the pool.

        One without a prefix cache has its reads off already; it gets a cache again only where all others are so too.
        """
        if engine:
            alone = [member for member in self._fleet.serving if member.name == engine]
            if not alone:
                known = ", ".join(self._fleet.names)
                raise EngineError(f"{fix_id}: no engine '{engine}' is up; the pool has: {known}")
            return alone
        members = self._fleet.following(fix_id)
        if not members:
            raise EngineError(f"{fix_id}: every engine that is up is configured with a value of its own")
        late = [member for member in members if not meets(value, member.states[fix_id].effective)]
        return late or members

    def stage(self, fix_id: str, value: str) -> None:
        """See EnginePool.stage_fix."""
        check_fix(fix_id, value)
        if self._fleet.serving:  # else it is staged for the engines that come up later
            self.how(fix_id, value)
        if fix_catalogue.BY_ID[fix_id].how != "next_sync":
            raise EngineError(f"{fix_id} {value} does not take effect at a weight sync")
        self._syncs.staged = self._syncs.staged | {fix_id: value}

    async def states(self, fix_id: str | None) -> dict[str, list[EngineFix]]:
        """See EnginePool.fix_states."""
        if fix_id is not None and fix_id not in fix_catalogue.BY_ID:
            check_fix(fix_id, "")
        fleet = self._fleet
        for member, result in await fleet.ask_all(lambda actor: actor.fix_states.remote(), fleet.control_s):
            if not isinstance(result, EngineError):
                member.states = result
            elif member.serves:
                raise EngineError(f"reading fixes back: {result}")
        wanted = tuple(fix_catalogue.BY_ID) if fix_id is None else (fix_id,)
        return {fix: [self._state(name, fix) for name in self._fleet.names] for fix in wanted}

    def _state(self, name: str, fix_id: str) -> EngineFix:
        member = self._fleet.members[name]
        own = self._fleet.own(name, fix_id)
        if member.serves:
            return self._fleet.stamped(name, [(fix_id, member.states[fix_id])])[0]
        last = member.states.get(fix_id)
        how = last.how if last else fix_catalogue.BY_ID[fix_id].how
        detail = f"dead: {member.detail}" if member.status == "dead" else "restarting"
        return EngineFix(engine=name, effective="", how=how, detail=detail, wanted=own)

    async def _set_back(self, fix_id: str, before: dict[Member, EngineFix]) -> str:
        """Undo a change on the engines that are left; one that will not is built anew. Returns what came of it."""

        async def one(member: Member, value: str) -> str:
            result = await self._fleet.ask(member, lambda actor: actor.set_fix.remote(fix_id, value), CONTROL_S)
            if isinstance(result, EngineFix):
                member.states[fix_id] = result
                return "" if result.effective == value else f"{member.name}: reads back '{result.effective}'"
            return str(result)

        left = {member: state.effective for member, state in before.items() if member.serves}
        outcomes = await asyncio.gather(*(one(member, value) for member, value in left.items()))
        for member, value, why in zip(left, left.values(), outcomes, strict=True):
            if why:
                text = f"{member.name} is restarted: {fix_id} could not be set back to {value}: {why}"
                self._fleet.report_event(
                    "fix.set-back", text, "warn", {"engine": member.name, "fix": fix_id, "value": value}
                )
                self._fleet.lose(member, EngineError(text))
        anew = [member.name for member in before if not member.serves]
        same = [member.name for member in before if member.serves]
        parts = [f"{', '.join(same)} as before"] if same else []
        return "; ".join([*parts, *([f"{', '.join(anew)} built anew"] if anew else [])])


def check_fix(fix_id: str, value: str) -> None:
    """Raise EngineError for a fix or value outside the catalogue."""
    try:
        fix_catalogue.check(fix_id, value)
    except fix_catalogue.UnknownFixError as error:
        raise EngineError(str(error)) from error
