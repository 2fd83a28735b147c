"""Names and fixes of joined engines as their processes come, go and come back: effects, in order. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from driftline import wire
from driftline.frames import Command, EngineState, Event, FixState, Frame, Level, encode
from driftline.hub.commands import CommandTable, intent_entry
from driftline.hub.effects import HUB, Effect, Now, ToProducer, Write
from driftline.hub.engines import JoinedEngines
from driftline.hub.refusals import Refusals
from driftline.hub.sessions import SESSION_SECONDS, Session

RESTORE_SECONDS: Final = 60.0
"""Deadline of the command by which an engine that has come back gets the values that were asked for."""


class EngineEvents:
    """Watches the joined engines of one run."""

    def __init__(self, joined: JoinedEngines, commands: CommandTable, refusals: Refusals) -> None:
        self._joined, self._commands, self._refusals = joined, commands, refusals
        self._ticking_since: float | None = None

    def name_held(self, peer: bytes, hello: wire.Hello, sessions: Iterable[Session], now: Now) -> list[Effect]:
        """The answer to an engine under whose name another one is there; nothing where the name is free."""
        key = (hello.producer, hello.incarnation)
        rivals = [s.seen for s in sessions if s.producer == hello.producer and s.key != key and not s.leaving]
        match self._joined.contest(hello.producer, rivals, now.mono):
            case "free":
                return []
            case "taken":
                reason = f"an engine '{hello.producer}' is there already; give each a name of its own: DRIFTLINE_ENGINE"
                counted = self._refusals.count("name", hello.producer, reason, now)
                events = event("warn", "engine.name-taken", reason, now) if counted else []
                return [*counted, *events, ToProducer(peer, wire.pack(wire.Refused(reason)))]
            case _:
                return [ToProducer(peer, wire.pack(wire.Refused("its name is still that of an earlier process")))]

    def restored(self, session: Session, frame: Frame, number: str, now: Now) -> list[Effect]:
        """The command `number` that gives an engine which has come back the value that an operator had asked for."""
        if not isinstance(frame, FixState):
            return []
        self._joined.greeted(session.producer, session.incarnation)
        if not session.back or not self._joined.unmet(session.producer, frame):
            return []
        args = {"fix": frame.fix, "value": frame.requested}
        command = Command(number, "fix.set", args, -1, now.wall + RESTORE_SECONDS, HUB)
        return [Write(encode(command), command, arrived=now, audit=intent_entry(command, now))]

    def departures(self, sessions: Iterable[Session], now: Now) -> list[Effect]:
        """Leave out joined engines that have ended, or were not heard while this hub was there to hear them."""
        if self._ticking_since is None:
            self._ticking_since = now.mono
        waited = now.mono - self._ticking_since > SESSION_SECONDS
        known = list(sessions)
        there = {session.producer for session in known if not session.leaving}
        ended = {session.producer for session in known if session.leaving}
        effects: list[Effect] = []
        for engine in self._joined.names:
            if engine in there or not (waited or engine in ended):
                continue
            why = "has ended" if engine in ended else f"was not heard for {SESSION_SECONDS:.0f} s: it is left out"
            effects += event("info" if engine in ended else "warn", "engine.left", f"{engine} {why}", now)
            effects += states(*self._joined.without(engine, now.wall), self._joined.ended(engine, why, now.wall))
            effects += self._commands.on_left(engine, f"it {why}", now)
        return effects


def event(level: Level, kind: str, text: str, now: Now) -> list[Effect]:
    """Journal an event of the hub's own."""
    made = Event(now.wall, level, kind, text)
    return [Write(encode(made), made)]


def states(*changed: FixState | EngineState | None) -> list[Effect]:
    """Journal states of fixes and engines."""
    return [Write(encode(state), state) for state in changed if state is not None]
