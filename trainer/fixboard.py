"""The state of every fix over the pool: what is wanted, what each engine has reported, since when, by whom. Pure.

"on" is shown only once every engine reports it: `requested` and `effective` change separately, each change is a
new `FixState`, and every change of `requested` raises the generation that commands are checked against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from driftline.fixes import BY_ID
from driftline.frames import EngineFix, FixState, How

_SEVERITY: tuple[How, ...] = ("live", "next_sync", "engine_restart", "not_available")


class FixBoard:
    """Holds one FixState per fix of the catalogue. Not thread-safe: its owner serialises."""

    def __init__(
        self,
        states: Mapping[str, Sequence[EngineFix]],
        wanted: Mapping[str, str],
        *,
        time: float,
        version: int,
        step: int,
    ) -> None:
        self._states: dict[str, FixState] = {}
        for fix_id, fix in BY_ID.items():
            engines = tuple(states.get(fix_id, ()))
            how = _how(engines)
            # What cannot be switched and was not asked for is wanted as it is.
            fixed = {engine.effective for engine in engines} if how in ("engine_restart", "not_available") else set()
            default = fixed.pop() if len(fixed) == 1 else fix.values[0]
            self._states[fix_id] = FixState(
                fix=fix_id,
                requested=wanted.get(fix_id, default),
                generation=0,
                by="config",
                time=time,
                how=how,
                engines=tuple(_stamp(engine, None, version, step) for engine in engines),
                detail=_detail(engines, how),
            )

    def state(self, fix_id: str) -> FixState:
        """The present state of one fix."""
        return self._states[fix_id]

    def states(self) -> list[FixState]:
        """All fixes, in the catalogue's order."""
        return list(self._states.values())

    def request(self, fix_id: str, value: str, *, by: str, time: float) -> FixState:
        """Somebody wants `value`; nothing is effective yet."""
        old = self._states[fix_id]
        return self._put(
            msgspec.structs.replace(old, requested=value, generation=old.generation + 1, by=by, time=time, detail="")
        )

    def withdraw(self, before: FixState, *, time: float, detail: str) -> FixState:
        """The request made after `before` could not be met: want what was wanted then, and say why."""
        old = self._states[before.fix]
        return self._put(
            msgspec.structs.replace(
                old, requested=before.requested, by=before.by, generation=old.generation + 1, time=time, detail=detail
            )
        )

    def observe(self, fix_id: str, engines: Sequence[EngineFix], *, time: float, version: int, step: int) -> FixState:
        """Take what the engines report; "since" moves only for an engine whose value changed."""
        old = self._states[fix_id]
        before = {engine.engine: engine for engine in old.engines}
        how = _how(engines)
        stamped = tuple(_stamp(engine, before.get(engine.engine), version, step) for engine in engines)
        return self._put(
            msgspec.structs.replace(old, engines=stamped, how=how, time=time, detail=_detail(stamped, how))
        )

    def _put(self, state: FixState) -> FixState:
        self._states[state.fix] = state
        return state


def _stamp(new: EngineFix, old: EngineFix | None, version: int, step: int) -> EngineFix:
    if old is not None and old.effective == new.effective:
        return msgspec.structs.replace(new, since_version=old.since_version, since_step=old.since_step)
    since = new.since_version if new.since_version >= 0 else version
    return msgspec.structs.replace(new, since_version=since, since_step=step)


def _how(engines: Sequence[EngineFix]) -> How:
    return max((engine.how for engine in engines), key=_SEVERITY.index, default="not_available")


def _detail(engines: Sequence[EngineFix], how: How) -> str:
    """Why a fix cannot be switched; nothing to explain where it can."""
    if how in ("live", "next_sync"):
        return ""
    return "; ".join(dict.fromkeys(engine.detail for engine in engines if engine.how == how and engine.detail))
