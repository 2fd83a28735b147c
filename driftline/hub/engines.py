"""Engines that have joined a run by themselves: one state of each fix over all of them, and commands to all of them.

An engine of another project's trainer has nothing above it that speaks for all engines. It sends a `FixState` with its
own report alone; the hub puts those of all engines together before it journals them, so that consoles, exports and
recordings see one state of the whole pool, as they do of a pool that a trainer owns. A command goes to every joined
engine that is connected. Each answers for itself; their answers are journaled as progress, and once all have answered
the hub gives the command its result.

A run is one or the other: as soon as the producer `trainer` has reported a fix, it answers for fixes and pauses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from driftline.frames import TERMINAL, Ack, AckState, Command, Data, EngineFix, EngineState, FixState, Frame, How, Verb
from driftline.text import natural

ENGINE_VERBS: Final[frozenset[Verb]] = frozenset({"fix.set", "pause", "resume", "cache.reset", "digest"})
"""What a joined engine is asked for; all other commands are the trainer's."""
RIVAL_SECONDS: Final = 2.5
"""An engine that was heard this recently keeps its name: a connected probe is heard each second."""

NAMES_KEPT: Final = 4096

_ORDER: Final[tuple[How, ...]] = ("live", "next_sync", "engine_restart", "not_available")
_TARGETS: Final = "engines"


class JoinedEngines:
    """The fixes of the joined engines, by what has been journaled; `owner` is the producer that could own them all."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._owned = False
        self._fixes: dict[str, FixState] = {}
        self._before: dict[str, FixState] = {}
        self._incarnations: dict[str, int] = {}
        self._contested: dict[str, float] = {}
        self._states: dict[str, EngineState] = {}

    @property
    def names(self) -> list[str]:
        """The joined engines, connected or not."""
        return sorted({one.engine for state in self._fixes.values() for one in state.engines}, key=natural)

    def take(self, verb: Verb) -> bool:
        """Whether commands with this verb are for joined engines in this run."""
        return verb in ENGINE_VERBS and bool(self._fixes)

    def remember(self, producer: str, frame: Frame) -> None:
        """A frame is in the journal, from now or before this hub's time."""
        if isinstance(frame, EngineState) and frame.engine == producer != self._owner and not self._owned:
            self._states.pop(producer, None)  # the newest stand last
            self._states[producer] = frame
            if len(self._states) > NAMES_KEPT:
                del self._states[next(iter(self._states))]
        if not isinstance(frame, FixState):
            return
        if producer == self._owner:
            self._owned = True
            self._fixes.clear()
            self._states.clear()
        elif self._owned:
            return
        elif frame.engines or frame.fix in self._fixes:
            self._fixes[frame.fix] = frame

    @property
    def owned(self) -> bool:
        """Whether the trainer has reported fixes: then it answers for those of all engines."""
        return self._owned

    def own_report(self, producer: str, frame: Frame) -> bool:
        """Whether this is an engine's report of one fix, of itself alone."""
        return (
            isinstance(frame, FixState)
            and producer != self._owner
            and len(frame.engines) == 1
            and frame.engines[0].engine == producer
        )

    def merged(self, frame: FixState) -> FixState:
        """The state of the fix over all engines, with this engine's own report in it."""
        known = self._fixes.get(frame.fix)
        mine = frame.engines[0]
        others = [one for one in known.engines if one.engine != mine.engine] if known is not None else []
        base = known if known is not None else msgspec.structs.replace(frame, requested="", generation=0, by="")
        return _over(base, [*others, mine], frame.time)

    def requested(self, command: Command, now: float) -> FixState | None:
        """The state of a fix that an operator has just asked for; None where no joined engine is concerned."""
        known = self._fixes.get(command.args.get("fix", ""))
        if command.verb != "fix.set" or known is None:
            return None
        self._before[command.id] = known
        return msgspec.structs.replace(
            known, requested=command.args["value"], generation=known.generation + 1, by=command.issuer, time=now
        )

    def refusal(self, command: Command) -> str:
        """Why no engine could ever carry this command out, as a clause; "" where one might."""
        known = self._fixes.get(command.args.get("fix", ""))
        if command.verb == "fix.set" and "engine" in command.args and self._fixes:
            return "engines that joined by themselves are switched together, none of them alone"
        if command.verb != "fix.set" or known is None or known.how != "not_available" or not known.engines:
            return ""
        why = next((one.detail for one in known.engines if one.detail), "no engine can switch it")
        return f"{known.fix} cannot be switched in this run: {why}"

    def withdrawn(self, command: Command, reason: str, now: float) -> FixState | None:
        """The state of a fix whose request no engine could meet: what was requested before it."""
        before, known = self._before.pop(command.id, None), self._fixes.get(command.args.get("fix", ""))
        if before is None or known is None:
            return None
        kept = msgspec.structs.replace(known, requested=before.requested, by=before.by)
        return msgspec.structs.replace(_over(kept, list(known.engines), now), detail=reason)

    def without(self, engine: str, now: float) -> list[FixState]:
        """The states that are left when an engine has gone for good."""
        return [
            _over(state, [one for one in state.engines if one.engine != engine], now)
            for state in self._fixes.values()
            if any(one.engine == engine for one in state.engines)
        ]

    def ended(self, engine: str, why: str, now: float) -> EngineState | None:
        """The last state of an engine that has gone without a word, as of its end; None where it has said so itself."""
        known = self._states.get(engine)
        if known is None or known.phase == "dead":
            return None
        return msgspec.structs.replace(
            known, phase="dead", time=now, running=0, waiting=0, tokens_per_s=0.0, detail=why
        )

    def unmet(self, engine: str, state: FixState) -> bool:
        """Whether this engine lacks a value that an operator has asked for and that it could take at once."""
        mine = next((one for one in state.engines if one.engine == engine), None)
        return (
            mine is not None
            and bool(state.by)
            and mine.how == "live"
            and bool(mine.effective)
            and mine.effective != state.requested
        )

    def knows(self, engine: str) -> bool:
        """Whether an engine has joined under this name, also one that has gone."""
        return engine in self._incarnations or engine in self.names

    def greeted(self, engine: str, incarnation: int) -> bool:
        """Note which process has this name; whether another one had it before."""
        before = self._incarnations.pop(engine, incarnation)
        self._incarnations[engine] = incarnation
        if len(self._incarnations) > NAMES_KEPT:
            del self._incarnations[next(iter(self._incarnations))]
        return before != incarnation

    def contest(self, engine: str, rivals: Iterable[float], mono: float) -> str:
        """Whether a newcomer may have a name, given when others under it were last heard: "free", "wait" or "taken".

        Taken is a name whose other holder has been heard since the newcomer came: two live engines. Until that is
        known the newcomer waits, as long as the process before it could still be there.
        """
        heard = max(rivals, default=float("-inf"))
        if mono - heard >= RIVAL_SECONDS:
            self._contested.pop(engine, None)
            return "free"
        return "taken" if heard > self._contested.setdefault(engine, mono) else "wait"


def targets(acked: Ack) -> list[str]:
    """The engines that a command was handed to, as the hub's acknowledgement of it says."""
    return str(acked.data.get(_TARGETS, "")).split()


def handed(engines: Iterable[str]) -> tuple[str, Data]:
    """Detail and data of the acknowledgement that says which engines a command was handed to."""
    names = list(engines)
    return "to " + (names[0] if len(names) == 1 else f"{len(names)} engines"), {_TARGETS: " ".join(names)}


def relayed(engine: str, ack: Ack) -> Ack:
    """One engine's answer as it is journaled: progress of the command, whatever the engine says of its own part."""
    if ack.state not in TERMINAL:
        return msgspec.structs.replace(ack, detail=f"{engine}{': ' if ack.detail else ''}{ack.detail}", data={})
    words = f"{engine} {ack.state}{': ' if ack.detail else ''}{ack.detail}"
    data: Data = {"engine": engine, "state": ack.state, "detail": ack.detail}
    return Ack(ack.id, "accepted", ack.time, words, data | {f"{engine}.{key}": one for key, one in ack.data.items()})


def answered(ack: Ack) -> str:
    """The engine whose final answer this is, as `relayed` wrote it; "" for any other acknowledgement."""
    return str(ack.data.get("engine", "")) if "state" in ack.data else ""


def result(answers: Mapping[str, Ack | None]) -> tuple[AckState, str, Data]:
    """State, detail and data of the whole command; an engine without an answer did not give one in time."""
    said: dict[str, tuple[str, str]] = {}
    data: Data = {}
    for engine, ack in answers.items():
        if ack is None:
            said[engine] = "failed", "did not answer before the deadline"
        else:
            said[engine] = str(ack.data["state"]), str(ack.data.get("detail", ""))
            data |= {key: one for key, one in ack.data.items() if key.startswith(f"{engine}.")}
    states = {state for state, _ in said.values()}
    state: AckState = "applied" if states == {"applied"} else "refused" if states == {"refused"} else "failed"
    if len(said) == 1:
        return state, next(iter(said.values()))[1], data
    done = sum(one == "applied" for one, _ in said.values())
    notes = [f"{engine}: {detail or one}" for engine, (one, detail) in said.items() if one != "applied"]
    head = f"{done} of {len(said)} engines"
    return state, "; ".join([head, *notes])[:1000], data


def _over(base: FixState, engines: list[EngineFix], time: float) -> FixState:
    """`base` with these engines' reports. Before an operator asks for one, the commonest value is the requested one."""
    ordered = tuple(sorted(engines, key=lambda one: natural(one.engine)))
    values = [one.effective for one in ordered if one.effective]
    requested = base.requested if base.by else max(sorted(set(values)), key=values.count, default="")
    hows = {one.how for one in ordered}
    how = min(hows, key=_ORDER.index, default=base.how)
    detail = ""
    if len(hows) > 1:
        unable = [one for one in ordered if one.how == "not_available"]
        detail = "; ".join(f"{one.engine}: {one.detail}" for one in unable[:3])
    return msgspec.structs.replace(base, requested=requested, time=time, how=how, engines=ordered, detail=detail)
