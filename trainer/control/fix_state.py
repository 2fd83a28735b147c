"""The state of every fix over the pool: requested value and issuer, and what each engine has reported since when. Pure.

"on" is shown only once every engine reports it: `requested` and `effective` change separately, each change is a
new `FixState`, and every change of `requested` raises the generation that commands are checked against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from driftline.catalog.fixes import BY_ID
from driftline.frames import EngineFix, FixState, How

_SEVERITY: tuple[How, ...] = ("live", "next_sync", "engine_restart", "not_available")


class FixTable:
    """Holds one FixState per fix of the catalogue. Not thread-safe: its owner serialises.

    `wanted` is what the configuration says and `defaults` what it means where it says nothing; `notes` are sentences
    that belong to a fix for the whole run.
    """

    def __init__(
        self,
        states: Mapping[str, Sequence[EngineFix]],
        wanted: Mapping[str, str],
        *,
        time: float,
        version: int,
        step: int,
        defaults: Mapping[str, str] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self._notes = dict(notes or {})
        self._states: dict[str, FixState] = {}
        for fix_id, fix in BY_ID.items():
            engines = tuple(states.get(fix_id, ()))
            how = _how(engines)
            # What cannot be switched and was not asked for is wanted as it is.
            following = [engine for engine in engines if not engine.wanted] or engines
            fixed = {engine.effective for engine in following} if how in ("engine_restart", "not_available") else set()
            default = fixed.pop() if len(fixed) == 1 else (defaults or {}).get(fix_id, fix.values[0])
            self._states[fix_id] = FixState(
                fix=fix_id,
                requested=wanted.get(fix_id, default),
                generation=0,
                by="config",
                time=time,
                how=how,
                engines=tuple(_stamp(engine, None, version, step) for engine in engines),
                detail=self._detail(fix_id, engines, how),
            )

    def state(self, fix_id: str) -> FixState:
        """The present state of one fix."""
        return self._states[fix_id]

    def states(self) -> list[FixState]:
        """All fixes, in the catalogue's order."""
        return list(self._states.values())

    def request(self, fix_id: str, value: str, *, by: str, time: float) -> FixState:
        """Set the requested value; nothing is effective yet."""
        old = self._states[fix_id]
        changes = {"requested": value, "generation": old.generation + 1, "by": by, "time": time}
        return self._store(msgspec.structs.replace(old, **changes, detail=self._notes.get(fix_id, "")))

    def withdraw(self, before: FixState, *, time: float, detail: str) -> FixState:
        """The request made after `before` could not be met: want what was wanted then, and say why."""
        old = self._states[before.fix]
        return self._store(
            msgspec.structs.replace(
                old, requested=before.requested, by=before.by, generation=old.generation + 1, time=time, detail=detail
            )
        )

    def observe(self, fix_id: str, engines: Sequence[EngineFix], *, time: float, version: int, step: int) -> FixState:
        """Take what some engines report; "since" moves only for an engine whose value changed.

        An engine that is not among them keeps what it has reported before.
        """
        old = self._states[fix_id]
        known = {engine.engine: engine for engine in old.engines}
        new = {engine.engine: _stamp(engine, known.get(engine.engine), version, step) for engine in engines}
        merged = tuple({**known, **new}.values())
        how = _how(merged)
        detail = self._detail(fix_id, merged, how)
        return self._store(msgspec.structs.replace(old, engines=merged, how=how, time=time, detail=detail))

    def _store(self, state: FixState) -> FixState:
        self._states[state.fix] = state
        return state

    def _detail(self, fix_id: str, engines: Sequence[EngineFix], how: How) -> str:
        """The note of this fix, and the reason why it cannot be switched; "" for neither."""
        said = [note] if (note := self._notes.get(fix_id, "")) else []
        if how in ("engine_restart", "not_available"):
            said += [engine.detail for engine in engines if engine.how == how and engine.effective and engine.detail]
        return "; ".join(dict.fromkeys(said))


def _stamp(new: EngineFix, old: EngineFix | None, version: int, step: int) -> EngineFix:
    if old is not None and old.effective == new.effective:
        return msgspec.structs.replace(new, since_version=old.since_version, since_step=old.since_step)
    since = new.since_version if new.since_version >= 0 else version
    return msgspec.structs.replace(new, since_version=since, since_step=step)


def _how(engines: Sequence[EngineFix]) -> How:
    """The slowest way that any engine needs; one that is down does not say."""
    following = [engine for engine in engines if not engine.wanted] or engines
    up = [engine for engine in following if engine.effective] or following
    return max((engine.how for engine in up), key=_SEVERITY.index, default="not_available")
