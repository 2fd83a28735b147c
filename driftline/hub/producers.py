"""The producers' connections, as a pure state machine: greetings, frames by their numbers, what each key may send.

A frame that its key does not cover is refused at the door: it gets no place in the journal, its number counts as dealt
with, the audit log counts it, and the first of a producer and a kind of frame is reported as an event.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from driftline import wire
from driftline.frames import (
    DECODE_ERRORS,
    SCHEMA,
    TOPIC,
    Ack,
    EngineState,
    Event,
    FixState,
    Frame,
    FrameError,
    decode,
    encode,
)
from driftline.hub.commands import CommandTable, result_entry
from driftline.hub.coverage import REFUSED, refusal
from driftline.hub.effects import Effect, Now, ToProducer, Write
from driftline.hub.engine_events import EngineEvents, event
from driftline.hub.engines import JoinedEngines
from driftline.hub.producer_names import HOLD_SECONDS, ProducerNames
from driftline.hub.producer_tails import Key, Tail, Tails
from driftline.hub.refusals import Refusals
from driftline.hub.sessions import SESSION_SECONDS, Session
from driftline.keys import Grant

HELLO_EVERY: Final = 0.2
DROP_REPORT_SECONDS: Final = 1.0
REPORTED_KEPT: Final = 1024
"""Refusals that are reported as an event: one for each producer and kind of frame. The audit log counts the others."""
_ACK_EVERY_FRAMES: Final = 256
_TOPICS: Final = frozenset(topic.decode() for topic in TOPIC.values())
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Producers:
    """All connections to ingest. What `on_ingest` and the others return is carried out in order."""

    def __init__(
        self, epoch: int, refusals: Refusals, commands: CommandTable, joined: JoinedEngines, engines: EngineEvents
    ) -> None:
        self._epoch, self._refusals, self._commands = epoch, refusals, commands
        self._joined, self._engines = joined, engines
        self.sessions: dict[bytes, Session] = {}
        self.seen = float("-inf")
        """When any producer was last heard of, monotonic seconds."""
        self.bad_frames = 0
        self.holding = False
        self.tails = Tails(self._connected)
        self._names = ProducerNames()
        self._hello_asked: dict[bytes, float] = {}
        self._reported: set[tuple[str, str]] = set()
        self._restored = 0
        self._trusted = ""
        """Public half of the key that was last given commands in this hub's life."""
        self._began: float | None = None
        """When the first message came to this hub, monotonic seconds."""

    def _connected(self, key: Key) -> bool:
        return any(session.key == key for session in self.sessions.values())

    # Messages

    def on_ingest(self, peer: bytes, grant: Grant | None, message: bytes, now: Now) -> list[Effect]:
        """One message of a producer's connection."""
        self._began = now.mono if self._began is None else self._began
        if grant is None or grant.role != "producer":
            return self._refuse(peer, grant, "role", "this key may not produce", now)
        try:
            match message[:1]:
                case wire.DATA:
                    _, incarnation, pseq, dropped = wire.DATA_HEAD.unpack_from(message)
                    return self._on_data(peer, grant, incarnation, pseq, dropped, message, now)
                case wire.PING:
                    _, incarnation, dropped = wire.PING_HEAD.unpack(message)
                    return self._on_ping(peer, incarnation, dropped, now)
                case wire.LOST if len(message) <= wire.REQUEST_BYTES:
                    return self._on_lost(peer, wire.lost_decoder.decode(message[1:]), now)
                case wire.HELLO if len(message) <= wire.REQUEST_BYTES:
                    return self._on_hello(peer, grant, wire.hello_decoder.decode(message[1:]), now)
        except (*DECODE_ERRORS, struct.error):
            pass
        return self.malformed(grant, "a message to ingest", now)

    def malformed(self, grant: Grant | None, what: str, now: Now) -> list[Effect]:
        """A message was not one of `driftline.wire`."""
        self.bad_frames += 1
        return [*self._refusals.count("malformed", grant.identity if grant else "unknown", what, now)]

    def _on_hello(self, peer: bytes, grant: Grant, hello: wire.Hello, now: Now) -> list[Effect]:
        name = hello.producer
        if _NAME.fullmatch(name) is None:
            return self._refuse(
                peer, grant, "role", "a producer's name is 1 to 64 letters, digits, '.', '_' or '-'", now
            )
        if not grant.may_produce(name):
            return self._refuse(peer, grant, "role", f"key '{grant.name}' may not produce as '{name}'", now)
        if hello.schema != SCHEMA:
            return self._refuse(peer, grant, "role", f"schema {hello.schema}, this hub speaks {SCHEMA}", now)
        if not 0 < hello.incarnation < 2**63 or hello.first < 1:
            return self.malformed(grant, "a greeting without an incarnation", now)
        tail = self.tails.get((name, hello.incarnation))
        returning = tail is not None and tail.last > 0
        known = returning or not self.tails.others((name, hello.incarnation)) or self._trusted == grant.public
        taken = self._names.claim(name, grant, returning, now)
        if taken:
            return [
                *self._refuse(peer, grant, "name", taken, now),
                *self._report(name, grant.identity, f"{grant.identity} was refused: {taken}", now),
            ]
        joined = self._joined.knows(name)
        if joined and (held := self._engines.name_held(peer, hello, self.sessions.values(), now)):
            return held
        effects = self._greet(peer, grant, hello, now)
        # The producer no longer has the frames that were acknowledged. If the disk has lost them since (a crash of the
        # machine), going on is all that is left; otherwise `first - 1` is never above the tail.
        session = self.sessions[peer]
        # After a restart of the hub another key may greet before the producer that the journal knows: commands wait
        # until that one, which is the owner of the name, has had the time to come back.
        began = self._began if self._began is not None else now.mono
        session.commands_from = 0.0 if known else began + HOLD_SECONDS
        tail = self.tails.newest(session.key)
        last = tail.last = max(tail.last, hello.first - 1)
        welcome = wire.Welcome(self._epoch, hello.nonce, 0 if self.holding else last)
        effects.append(ToProducer(peer, wire.pack(welcome)))
        if joined and self._joined.greeted(name, hello.incarnation):
            session.back = True
            effects += event("info", "engine.back", f"{name} is back under its name, as a new process", now)
        # A second process of the owner's name gets nothing while the first is there.
        if name != self._commands.owner or self._owner_session(now) is session:
            effects += self._hand_over(session, now)
        return effects

    def _greet(self, peer: bytes, grant: Grant, hello: wire.Hello, now: Now) -> list[Effect]:
        """Take up the session of a greeting, which is welcome."""
        key = (hello.producer, hello.incarnation)
        session = self.sessions.get(peer)
        if session is not None and session.producer != hello.producer:
            self._names.release(session.producer, session.public)
        since = now.mono
        for other in [s for s in self.sessions.values() if s.producer == hello.producer and s.peer != peer]:
            # One process has one connection, and a name one key: the key that had it was displaced by `claim`.
            if other.key == key or other.public != grant.public:
                del self.sessions[other.peer]
                since = other.greeted if other.key == key else since
        if session is None or session.key != key:
            session = self.sessions[peer] = Session(peer, *key, grant.public, now)
            session.greeted = since
        session.seen = self.seen = now.mono
        session.dropped = max(session.dropped, hello.dropped)
        self._hello_asked.pop(peer, None)
        # Another of this name and key: one that has gone is noticed by sending it something (`on_gone`).
        twins = [s for s in self.sessions.values() if s.producer == hello.producer and s is not session]
        return self._acks(twins)

    def _on_data(
        self, peer: bytes, grant: Grant, incarnation: int, pseq: int, dropped: int, message: bytes, now: Now
    ) -> list[Effect]:
        session = self.sessions.get(peer)
        if session is None or session.incarnation != incarnation:
            return self._ask_hello(peer, now)
        if not grant.may_produce(session.producer):
            reason = f"key '{grant.name}' may not produce as '{session.producer}'"
            return self._refuse(peer, grant, "role", reason, now)
        self._heard(session, dropped, now)
        tail = self.tails.entry(session.key)
        if pseq > tail.last + 1:
            return self._ask_hello(peer, now)
        if pseq <= tail.last:
            return []
        session.unacked += 1
        effects = self._take(session, grant, tail, pseq, message[wire.DATA_HEAD.size :], now)
        return [*effects, *self._acks([session])] if session.unacked >= _ACK_EVERY_FRAMES else effects

    def _take(self, session: Session, grant: Grant, tail: Tail, pseq: int, body: bytes, now: Now) -> list[Effect]:
        """The next frame of a producer: to be written, replaced by an event that says what is wrong, or refused."""
        producer = session.producer
        try:
            frame: Frame = decode(body)
            if reason := self._refusal(session, grant, frame, now):
                return self._refuse_frame(session, grant, tail, pseq, frame, reason, now)
            taken = self._put_together(producer, grant, frame, now)
            body = body if taken is frame else encode(taken)
        except FrameError as error:
            self.bad_frames += 1
            taken = Event(now.wall, "warn", "hub.bad_frame", f"{producer}: a frame was refused: {str(error)[:200]}")
            body = encode(taken)
        audit = result_entry(taken, producer, now) if isinstance(taken, Ack) else None
        session.leaving = session.leaving or (
            isinstance(taken, EngineState) and (taken.engine, taken.phase) == (producer, "dead")
        )
        write = Write(body, taken, producer, session.incarnation, pseq, audit=audit)
        again = self._engines.restored(session, taken, f"hub{self._epoch}n{self._restored + 1}", now)
        self._restored += bool(again)
        return [write, *again]

    def _put_together(self, producer: str, grant: Grant, frame: Frame, now: Now) -> Frame:
        """The frame as it is to be journaled: an engine's report as a part of the whole, its state with its key.

        Raises FrameError for the answer to a command that is not this producer's to answer.
        """
        if isinstance(frame, Ack):
            return self._commands.check_ack(producer, frame)
        if isinstance(frame, FixState) and self._joined.own_report(producer, frame):
            if self._joined.owned:
                text = f"{producer}: its report of {frame.fix} is left out: in this run the trainer answers for fixes"
                return Event(now.wall, "info", "engine.left-out", text)
            return self._joined.merged(frame)
        if isinstance(frame, EngineState) and frame.key != grant.identity:
            return msgspec.structs.replace(frame, key=grant.identity)
        return frame

    def _refusal(self, session: Session, grant: Grant, frame: Frame, now: Now) -> str:
        """Why a key does not cover a frame of one of its connections, as a clause; "" if it does."""
        producer = session.producer
        reason = refusal(grant, producer, frame, lambda name: self._names.used_by_other(name, grant.public, now))
        if reason or not isinstance(frame, Ack):
            return reason
        if producer != self._commands.owner:
            handed = self._commands.handed_to(producer, frame.id)
            return "" if handed else f"Ack of a command that was not handed to '{producer}'"
        if self._owner_session(now) is not session:
            return f"Ack of a second '{producer}': the commands are those of the one that was connected first"
        return ""

    def _refuse_frame(
        self, session: Session, grant: Grant, tail: Tail, pseq: int, frame: Frame, reason: str, now: Now
    ) -> list[Effect]:
        # Without a record: a producer that goes on sending it must not fill the journal. After a crash of the hub it
        # sends those that were not acknowledged again, and they are refused again.
        tail.last = pseq
        identity = f"{grant.identity} as {session.producer}"
        notes = self._refusals.count("frame", identity, reason, now)
        reported = self._report(session.producer, type(frame).__name__, f"{session.producer}: {reason}", now)
        answer = [ToProducer(session.peer, wire.pack(wire.NotCovered(reason)))] if reported else []
        return [*notes, *reported, *answer]

    def _report(self, producer: str, what: str, text: str, now: Now) -> list[Effect]:
        """An event about a refusal, once for each producer and thing."""
        if (producer, what) in self._reported or len(self._reported) >= REPORTED_KEPT:
            return []
        self._reported.add((producer, what))
        data: dict[str, str | float | int | bool] = {"producer": producer, "frame": what}
        refused = Event(now.wall, "warn", REFUSED, text, data=data)
        return [Write(encode(refused), refused)]

    def _on_ping(self, peer: bytes, incarnation: int, dropped: int, now: Now) -> list[Effect]:
        session = self.sessions.get(peer)
        if session is None or session.incarnation != incarnation:
            return self._ask_hello(peer, now)
        self._heard(session, dropped, now)
        return []

    def _heard(self, session: Session, dropped: int, now: Now) -> None:
        session.seen = self.seen = now.mono
        session.dropped = max(session.dropped, dropped)
        session.due = True
        self._names.seen(session.producer, now)

    def _on_lost(self, peer: bytes, lost: wire.Lost, now: Now) -> list[Effect]:
        effects = self._on_ping(peer, lost.incarnation, sum(lost.topics.values()), now)
        session = self.sessions.get(peer)
        if session is not None and session.incarnation == lost.incarnation:
            session.topics = {topic: n for topic, n in lost.topics.items() if topic in _TOPICS}
        return effects

    def _ask_hello(self, peer: bytes, now: Now) -> list[Effect]:
        if now.mono - self._hello_asked.get(peer, float("-inf")) < HELLO_EVERY:
            return []
        self._hello_asked[peer] = now.mono
        return [ToProducer(peer, wire.pack(wire.HelloPlease()))]

    def _refuse(self, peer: bytes, grant: Grant | None, kind: str, reason: str, now: Now) -> list[Effect]:
        self.sessions.pop(peer, None)
        who = grant.identity if grant else "unknown"
        notes = self._refusals.count(kind, who, reason, now)
        events = event("warn", REFUSED, f"{who} was refused: {reason}", now) if notes and kind == "role" else []
        return [*notes, *events, ToProducer(peer, wire.pack(wire.Refused(reason)))]

    # Who carries commands out

    def connection(self, producer: str, now: Now) -> bytes | None:
        """Connection of the producer of this name, if it is there."""
        if producer == self._commands.owner:
            return self.owner(now)
        there = (s for s in self.sessions.values() if s.producer == producer and not s.leaving)
        newest = max((s for s in there if now.mono - s.seen < SESSION_SECONDS), key=lambda s: s.seen, default=None)
        return newest.peer if newest is not None else None

    def owner(self, now: Now) -> bytes | None:
        """Connection of the producer that carries commands out, if it is there."""
        session = self._owner_session(now)
        return session.peer if session is not None else None

    def _owner_session(self, now: Now) -> Session | None:
        """The first of its name: a second one with the same key gets the commands once the first has gone."""
        owners = (s for s in self.sessions.values() if s.producer == self._commands.owner)
        there = (s for s in owners if now.mono - s.seen < SESSION_SECONDS and now.mono >= s.commands_from)
        return min(there, key=lambda s: s.greeted, default=None)

    def on_gone(self, peer: bytes, now: Now) -> list[Effect]:
        """A connection turned out to be closed."""
        session = self.sessions.pop(peer, None)
        return self._hand_on([session] if session is not None else [], now)

    def on_grants(self, grants: Mapping[str, Grant], now: Now) -> list[Effect]:
        """The grants in force, by public key: connections of others end, and the names that they had are free."""
        self._names.on_grants(grants)
        lost = [
            session
            for session in self.sessions.values()
            if (grant := grants.get(session.public)) is None or not grant.may_produce(session.producer)
        ]
        for session in lost:
            del self.sessions[session.peer]
        return self._hand_on(lost, now)

    def _hand_on(self, gone: Iterable[Session], now: Now) -> list[Effect]:
        """Where the owner of commands is among those that have gone, the next of its name gets what is not over."""
        if not any(session.producer == self._commands.owner for session in gone):
            return []
        owner = self._owner_session(now)
        return self._hand_over(owner, now) if owner is not None else []

    def _hand_over(self, session: Session, now: Now) -> list[Effect]:
        if session.producer == self._commands.owner:
            self._trusted = session.public
        return self._commands.on_hello(session.producer, session.peer, now)

    # Time

    def acks(self) -> list[Effect]:
        """Cumulative acks for every producer that has sent something."""
        return self._acks([s for s in self.sessions.values() if s.due])

    def _acks(self, sessions: Iterable[Session]) -> list[Effect]:
        effects: list[Effect] = []
        for session in sessions:
            session.due, session.unacked = False, 0
            # Number 0 acknowledges nothing, and says that the hub is there.
            last = 0 if self.holding else self.tails.entry(session.key).last
            acked = wire.Acked(session.incarnation, last)
            effects.append(ToProducer(session.peer, wire.pack(acked)))
        return effects

    def on_tick(self, now: Now) -> list[Effect]:
        """Everything that is due because time has passed."""
        silent = [s for s in self.sessions.values() if now.mono - s.seen > SESSION_SECONDS]
        for session in silent:
            del self.sessions[session.peer]
        for peer in [p for p, asked in self._hello_asked.items() if now.mono - asked > SESSION_SECONDS]:
            del self._hello_asked[peer]
        self._names.on_tick(now)
        effects: list[Effect] = self._hand_on(silent, now)
        for session in [s for s in self.sessions.values() if 0 < s.commands_from <= now.mono]:
            session.commands_from = 0.0
            if self._owner_session(now) is session:
                effects += self._hand_over(session, now)
        owners = [s for s in self.sessions.values() if s.producer == self._commands.owner]
        if len(owners) > 1:  # another waits for the first to go: sending to one that has gone shows it
            effects += self._acks(owners)
        for session in self.sessions.values():
            reported = self.tails.entry(session.key)
            # A count that has run ahead of the topics waits for them, but not for ever: not every producer sends them.
            known = sum(session.topics.values()) >= session.dropped
            delay = DROP_REPORT_SECONDS if known else 3 * DROP_REPORT_SECONDS
            if session.dropped > reported.dropped and now.mono - max(session.reported, session.greeted) >= delay:
                session.reported = now.mono
                dropped = _drop_event(session, reported, now)
                effects.append(Write(encode(dropped), dropped))
        return effects + self._engines.departures(self.sessions.values(), now)


def _drop_event(session: Session, reported: Tail, now: Now) -> Event:
    """Frames that a producer has dropped since the last report; the journal sums up to the exact counts."""
    lost = session.dropped - reported.dropped
    topics = {topic: n - reported.topics.get(topic, 0) for topic, n in session.topics.items()}
    topics = {topic: n for topic, n in topics.items() if n > 0}
    which = ", ".join(f"{n} {topic}" for topic, n in topics.items())
    text = f"{session.producer} dropped {lost} frames before sending them ({session.dropped} in all)"
    data: dict[str, str | float | int | bool] = {
        "producer": session.producer,
        "dropped": lost,
        "total": session.dropped,
        "incarnation": str(session.incarnation),
        **{f"topic.{topic}": n for topic, n in topics.items()},
    }
    return Event(now.wall, "warn", "probe.dropped", f"{text}: {which}" if which else text, data=data)
