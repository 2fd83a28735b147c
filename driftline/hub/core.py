"""The hub as a pure state machine: messages and time in, effects out; no clock, no disk, no socket.

The rule that everything rests on: nothing counts before it is written. A frame gets its number when the server is
about to write it (`stamp`), and only `on_written` moves the head, the producer's tail and the newest states, and
publishes. So whatever is acknowledged or published is in the journal, and a write that failed has had no effect: the
producer still holds the frame and sends it again.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from driftline import frames, wire
from driftline.audit import RESULT, Entry
from driftline.frames import (
    DECODE_ERRORS,
    SCHEMA,
    TOPIC,
    Ack,
    Command,
    EngineState,
    Event,
    FixState,
    Frame,
    FrameError,
    Lease,
    RunState,
    decode,
    encode,
)
from driftline.hub.commands import CommandTable, result_entry
from driftline.hub.effects import HUB, Effect, Note, Now, Publish, SendPage, Stamp, ToClient, ToProducer, Write
from driftline.hub.engine_events import EngineEvents, event, states
from driftline.hub.engines import JoinedEngines
from driftline.hub.limits import AFTER_RESTART, Limits, RateLimiter, limit_text
from driftline.hub.producer_tails import Key, Tail, Tails
from driftline.hub.refusals import Refusals
from driftline.hub.sessions import SESSION_SECONDS, Session
from driftline.hub.tracked_command import SavedCommand
from driftline.journal.records import Record, kind, record_decoder, record_encoder
from driftline.keys import Grant

HELLO_EVERY: Final = 0.2
DROP_REPORT_SECONDS: Final = 1.0
_ACK_EVERY_FRAMES: Final = 256
_SAVED: Final = 1
_TOPICS: Final = frozenset(topic.decode() for topic in TOPIC.values())
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class SavedCore(msgspec.Struct, array_like=True, frozen=True):
    """State of a Core at the end of a segment; of another `version`, the journal is read instead."""

    version: int
    head: int
    plain: int
    tails: list[tuple[str, int, Tail]]
    states: list[tuple[str, str, int, bytes]]
    generations: dict[str, int]
    commands: list[SavedCommand]


_saved: Final = msgspec.msgpack.Decoder(SavedCore)


class Core:
    """State of one hub. Feed it the records of the journal by `restore`, then `start`, then what arrives."""

    def __init__(self, run: str, epoch: int, limits: Limits = Limits()) -> None:  # noqa: B008  it is frozen
        self.run, self.epoch = run, epoch
        self._limits = limits
        full = 1.0 if epoch == 1 else AFTER_RESTART
        self._requests = RateLimiter(limits.requests, full)
        self.head = self.plain = self.base = 0
        self.sessions: dict[bytes, Session] = {}
        self.producer_seen = float("-inf")
        self.bad_frames = 0
        self.holding = False
        """Whether acknowledgements are held back, because what is written may not stay."""
        self.refusals = Refusals()
        self._tails = Tails(self._connected)
        self._states: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._fix_generations: dict[str, int] = {}
        self._hello_asked: dict[bytes, float] = {}
        self._joined = JoinedEngines(CommandTable.owner)
        self._commands = CommandTable(self.refusals, limits, self._joined, full)
        self._engines = EngineEvents(self._joined, self._commands, self.refusals)

    # Start

    def restore(self, record: Record) -> None:
        """Take over one record of the journal, in order."""
        if record.incarnation:
            self._tails.entry((record.producer, record.incarnation)).last = record.pseq
        letter = kind(record.body)
        self.head = record.seq
        if letter != b"t":
            self.plain = record.seq
        if letter in b"rgfxcaw" or (letter == b"e" and record.producer == HUB):
            try:
                frame = record.frame()
            except FrameError:
                return  # journaled by another version; it stays in the journal and counts as an unknown frame
            self._remember(frame, record.seq, record_encoder.encode(record))
            self._remember_drops(record.producer, frame)
            self._joined.remember(record.producer, frame)
            self._commands.restore(frame)

    def save(self) -> bytes:
        """Everything that `restore` would add up to, for a checkpoint. Bounded, as all that it is made of."""
        states = [(what, name, seq, record) for (what, name), (seq, record) in self._states.items()]
        return record_encoder.encode(
            SavedCore(
                _SAVED, self.head, self.plain, self._tails.save(), states, self._fix_generations, self._commands.save()
            )
        )

    def load(self, saved: bytes) -> None:
        """Start from what `save` gave. Raises ValueError, with nothing changed, for what another version saved."""
        try:
            known = _saved.decode(saved)
            commands = [command.restore() for command in known.commands]
            records = [
                record_decoder.decode(record) for what, _, _, record in known.states if what in ("writer", "fix")
            ]
            states = [(record.producer, record.frame()) for record in records]
        except (*DECODE_ERRORS, FrameError) as error:
            raise ValueError(f"not a checkpoint: {error}") from error
        if known.version != _SAVED:
            raise ValueError(f"a checkpoint of version {known.version}, this hub reads {_SAVED}")
        self.head, self.plain = known.head, known.plain
        self._tails.load(known.tails)
        self._states = {(what, name): (seq, record) for what, name, seq, record in known.states}
        self._fix_generations = dict(known.generations)
        self._commands.load(commands)
        for producer, frame in states:
            self._joined.remember(producer, frame)
            self._commands.restore(frame)

    def start(self, head: int = 0) -> None:
        """The journal is read, its newest number was `head`: this is where the epoch begins.

        Numbers of which no record is left, deleted or damaged, are not given away a second time.
        """
        if head > self.head:
            self.head = self.plain = head
        self.base = self.head

    def _connected(self, key: Key) -> bool:
        return any(session.key == key for session in self.sessions.values())

    # Writing

    def stamp(self, write: Write, now: Now) -> Stamp:
        """Give a frame its place; valid until the next `on_written`."""
        seq = self.head + 1
        record = Record(seq, now.wall, write.producer, msgspec.Raw(write.body), write.incarnation, write.pseq)
        return Stamp(seq, self.plain, kind(write.body) != b"t", record_encoder.encode(record))

    def on_written(self, write: Write, stamp: Stamp) -> list[Effect]:
        """The record is in the journal (not yet forced to disk): now it counts."""
        self.head = stamp.seq
        if stamp.plain:
            self.plain = stamp.seq
        if write.incarnation:
            self._tails.entry((write.producer, write.incarnation)).last = write.pseq
        self._remember(write.frame, stamp.seq, stamp.record)
        self._remember_drops(write.producer, write.frame)
        self._joined.remember(write.producer, write.frame)
        head = wire.LIVE_HEAD.pack(self.epoch, stamp.seq, stamp.previous)
        effects: list[Effect] = [Publish(TOPIC[type(write.frame)], head, stamp.record)]
        effects += self._commands.on_written(write, stamp.seq)
        if isinstance(write.frame, Command) and write.frame.issuer != HUB:
            effects += states(self._joined.requested(write.frame, write.arrived.wall if write.arrived else 0.0))
        return effects

    def on_write_failed(self, write: Write, reason: str, now: Now) -> list[Effect]:
        """The record is not in the journal: the producer keeps it, a client is refused."""
        if write.asker is None:
            return []
        peer, request = write.asker
        effects: list[Effect] = []
        if isinstance(write.frame, Command):
            effects.append(Note(Entry(RESULT, now.wall, HUB, write.frame.id, "refused: the journal cannot be written")))
        return [*effects, ToClient(peer, wire.pack(wire.Refusal(request, f"the journal cannot be written: {reason}")))]

    def on_synced(self, seq: int, now: Now) -> list[Effect]:
        """Everything up to `seq` is on the disk: commands among it may go out."""
        return self._commands.on_synced(seq, lambda producer: self._connection(producer, now), now)

    def _remember(self, frame: Frame, seq: int, record: bytes) -> None:
        match frame:
            case RunState():
                self._states["run", ""] = seq, record
            case EngineState(engine=engine):
                self._store_state("engine", engine, seq, record)
            case Lease():
                self._states["writer", ""] = seq, record
            case FixState(fix=fix, generation=generation):
                if self._store_state("fix", fix, seq, record):
                    self._fix_generations[fix] = generation
            case frames.Effect(changes=changes):
                for fix, _, _ in changes:
                    self._store_state("effect", fix, seq, record)

    def _store_state(self, what: str, name: str, seq: int, record: bytes) -> bool:
        """Keep a newest state; false once there are too many, which no honest pool of engines has."""
        if (what, name) not in self._states and len(self._states) >= self._limits.states_kept:
            return False
        self._states[what, name] = seq, record
        return True

    def _remember_drops(self, producer: str, frame: Frame) -> None:
        match frame:
            case Event(kind="probe.dropped", data={"producer": str(name), "incarnation": str(number), **data}) if (
                producer == HUB
            ):
                tail = self._tails.entry((name, int(number)))
                topics = dict(tail.topics)
                for topic, n in data.items():
                    if topic.startswith("topic."):
                        topic = topic.removeprefix("topic.")
                        topics[topic] = topics.get(topic, 0) + int(n)
                tail.dropped, tail.topics = int(data["total"]), topics

    # Producers

    def on_ingest(self, peer: bytes, grant: Grant | None, message: bytes, now: Now) -> list[Effect]:
        """One message of a producer's connection."""
        if grant is None or grant.role != "producer":
            return self._refuse(peer, grant, "this key may not produce", now)
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
        return self._malformed(grant, "a message to ingest", now)

    def _malformed(self, grant: Grant | None, what: str, now: Now) -> list[Effect]:
        self.bad_frames += 1
        return [*self.refusals.count("malformed", grant.identity if grant else "unknown", what, now)]

    def _on_hello(self, peer: bytes, grant: Grant, hello: wire.Hello, now: Now) -> list[Effect]:
        if _NAME.fullmatch(hello.producer) is None:
            return self._refuse(peer, grant, "a producer's name is 1 to 64 letters, digits, '.', '_' or '-'", now)
        if not grant.may_produce(hello.producer):
            return self._refuse(peer, grant, f"key '{grant.name}' may not produce as '{hello.producer}'", now)
        if hello.schema != SCHEMA:
            return self._refuse(peer, grant, f"schema {hello.schema}, this hub speaks {SCHEMA}", now)
        if not 0 < hello.incarnation < 2**63 or hello.first < 1:
            return self._malformed(grant, "a greeting without an incarnation", now)
        joined = self._joined.knows(hello.producer)
        if joined and (held := self._engines.name_held(peer, hello, self.sessions.values(), now)):
            return held
        for old in [s.peer for s in self.sessions.values() if s.key == (hello.producer, hello.incarnation)]:
            if old != peer:
                del self.sessions[old]
        session = self.sessions.get(peer)
        if session is None or session.key != (hello.producer, hello.incarnation):
            session = self.sessions[peer] = Session(peer, hello.producer, hello.incarnation, now)
        session.seen = self.producer_seen = now.mono
        session.dropped = max(session.dropped, hello.dropped)
        self._hello_asked.pop(peer, None)
        # The producer no longer has the frames that were acknowledged. If the disk has lost them since (a crash of the
        # machine), going on is all that is left; otherwise `first - 1` is never above the tail.
        tail = self._tails.newest(session.key)
        last = tail.last = max(tail.last, hello.first - 1)
        effects: list[Effect] = [
            ToProducer(peer, wire.pack(wire.Welcome(self.epoch, hello.nonce, 0 if self.holding else last)))
        ]
        if joined and self._joined.greeted(hello.producer, hello.incarnation):
            session.back = True
            effects += event("info", "engine.back", f"{hello.producer} is back under its name, as a new process", now)
        return effects + self._commands.on_hello(session.producer, peer, now)

    def _on_data(
        self, peer: bytes, grant: Grant, incarnation: int, pseq: int, dropped: int, message: bytes, now: Now
    ) -> list[Effect]:
        session = self.sessions.get(peer)
        if session is None or session.incarnation != incarnation:
            return self._ask_hello(peer, now)
        if not grant.may_produce(session.producer):
            return self._refuse(peer, grant, f"key '{grant.name}' may not produce as '{session.producer}'", now)
        session.seen = self.producer_seen = now.mono
        session.dropped = max(session.dropped, dropped)
        session.due = True
        tail = self._tails.entry(session.key).last
        if pseq > tail + 1:
            return self._ask_hello(peer, now)
        if pseq <= tail:
            return []
        session.unacked += 1
        body = message[wire.DATA_HEAD.size :]
        frame, body = self._checked(session.producer, body, now)
        audit = result_entry(frame, session.producer, now) if isinstance(frame, Ack) else None
        effects: list[Effect] = [Write(body, frame, session.producer, incarnation, pseq, audit=audit)]
        effects += self._engines.restored(session, frame, f"hub{self.epoch}n{self.head + 1}", now)
        session.leaving = session.leaving or (
            isinstance(frame, EngineState) and (frame.engine, frame.phase) == (session.producer, "dead")
        )
        return [*effects, *self._acks([session])] if session.unacked >= _ACK_EVERY_FRAMES else effects

    def _checked(self, producer: str, body: bytes, now: Now) -> tuple[Frame, bytes]:
        """The frame, or in its place an event that says what is wrong: every pseq has exactly one record."""
        try:
            frame = decode(body)
            if isinstance(frame, Command | Lease):
                raise FrameError("producers may not send commands, nor publish a lease")
            if isinstance(frame, Ack):
                answer = self._commands.check_ack(producer, frame)
                frame, body = answer, body if answer is frame else encode(answer)
            elif isinstance(frame, FixState) and self._joined.own_report(producer, frame):
                text = f"{producer}: its report of {frame.fix} is left out: in this run the trainer answers for fixes"
                left_out = Event(now.wall, "info", "engine.left-out", text)
                frame = left_out if self._joined.owned else self._joined.merged(frame)
                body = encode(frame)
        except FrameError as error:
            self.bad_frames += 1
            event = Event(now.wall, "warn", "hub.bad_frame", f"{producer}: a frame was refused: {str(error)[:200]}")
            return event, encode(event)
        return frame, body

    def _on_ping(self, peer: bytes, incarnation: int, dropped: int, now: Now) -> list[Effect]:
        session = self.sessions.get(peer)
        if session is None or session.incarnation != incarnation:
            return self._ask_hello(peer, now)
        session.seen = self.producer_seen = now.mono
        session.dropped = max(session.dropped, dropped)
        session.due = True
        return []

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

    def _refuse(self, peer: bytes, grant: Grant | None, reason: str, now: Now) -> list[Effect]:
        self.sessions.pop(peer, None)
        who = grant.identity if grant else "unknown"
        notes = self.refusals.count("role", who, reason, now)
        events = event("warn", "hub.refused", f"{who} was refused: {reason}", now) if notes else []
        return [*notes, *events, ToProducer(peer, wire.pack(wire.Refused(reason)))]

    def on_unknown_key(self, address: str, now: Now) -> list[Effect]:
        """A connection with a key that has no grant was refused."""
        notes = self.refusals.count("key", "unknown", f"an unknown key from {address}", now)
        text = f"a connection from {address} was refused: its key is not one of this run's"
        return [*notes, *(event("warn", "hub.refused", text, now) if notes else [])]

    def on_refused_subscription(self, grant: Grant | None, topic: str, now: Now) -> list[Effect]:
        """A key asked for a topic that it may not have."""
        return [*self.refusals.count("role", grant.identity if grant else "unknown", f"subscription to '{topic}'", now)]

    def on_banned(self, grant: Grant | None, now: Now) -> list[Effect]:
        """A key has broken the protocol in a way that no client of this project does."""
        return [*self.refusals.count("banned", grant.identity if grant else "unknown", "no subscription", now)]

    def on_grants(self, grants: Mapping[str, Grant], now: Now) -> list[Effect]:
        """The grants in force, by public key; call it whenever they may have changed."""
        return self._commands.on_grants(grants, now)

    def unrecorded(self, open_intents: set[str], now: Now) -> list[Entry]:
        """Entries that an earlier hub could not write to the audit log any more."""
        return self._commands.unrecorded(open_intents, now)

    def _connection(self, producer: str, now: Now) -> bytes | None:
        """Connection of the producer of this name, if it is there."""
        found = [
            s
            for s in self.sessions.values()
            if s.producer == producer and now.mono - s.seen < SESSION_SECONDS and not s.leaving
        ]
        return max(found, key=lambda s: s.seen).peer if found else None

    def on_gone(self, peer: bytes) -> None:
        """A connection turned out to be closed."""
        self.sessions.pop(peer, None)

    # Time

    def acks(self) -> list[Effect]:
        """Cumulative acks for every producer that has sent something; call it a few times in 100 ms."""
        return self._acks([s for s in self.sessions.values() if s.due])

    def _acks(self, sessions: Iterable[Session]) -> list[Effect]:
        effects: list[Effect] = []
        for session in sessions:
            session.due, session.unacked = False, 0
            # Number 0 acknowledges nothing, and says that the hub is there.
            last = 0 if self.holding else self._tails.entry(session.key).last
            acked = wire.Acked(session.incarnation, last)
            effects.append(ToProducer(session.peer, wire.pack(acked)))
        return effects

    def on_tick(self, now: Now) -> list[Effect]:
        """Everything that is due because time has passed; call it a few times a second."""
        for peer in [p for p, s in self.sessions.items() if now.mono - s.seen > SESSION_SECONDS]:
            del self.sessions[peer]
        for peer in [p for p, asked in self._hello_asked.items() if now.mono - asked > SESSION_SECONDS]:
            del self._hello_asked[peer]
        effects: list[Effect] = [*self.refusals.due_notes(now)]
        for session in self.sessions.values():
            reported = self._tails.entry(session.key)
            # A count that has run ahead of the topics waits for them, but not for ever: not every producer sends them.
            known = sum(session.topics.values()) >= session.dropped
            delay = DROP_REPORT_SECONDS if known else 3 * DROP_REPORT_SECONDS
            if session.dropped > reported.dropped and now.mono - max(session.reported, session.greeted) >= delay:
                session.reported = now.mono
                event = _drop_event(session, reported, now)
                effects.append(Write(encode(event), event))
        return effects + self._engines.departures(self.sessions.values(), now) + self._commands.on_tick(now)

    def beacon(self, now: Now, degraded: str) -> Publish:
        """The hub's heartbeat."""
        beacon = wire.Beacon(self.epoch, self.head, self.plain, self.base, now.wall, degraded)
        head = wire.LIVE_HEAD.pack(self.epoch, self.head, self.plain)
        return Publish(wire.BEACON, head, wire.pack(beacon))

    # Clients

    def on_request(self, peer: bytes, grant: Grant | None, message: bytes, now: Now) -> list[Effect]:
        """One request of a client's connection."""
        try:
            request = wire.request_decoder.decode(message)
        except DECODE_ERRORS as error:
            malformed = self._malformed(grant, "a request", now)
            return [*malformed, ToClient(peer, wire.pack(wire.Refusal(0, f"not a request: {str(error)[:200]}")))]
        if grant is None or not grant.may_watch:
            reason = f"this key may not watch: role {'none' if grant is None else grant.role}"
            notes = self.refusals.count("role", grant.identity if grant else "unknown", reason, now)
            return [*notes, ToClient(peer, wire.pack(wire.Refusal(request.id, reason)))]
        if not self._requests.allow(grant.public, now.mono):
            reason = f"too many requests from one key: {limit_text(self._limits.requests)}; try again later"
            return [
                *self.refusals.count("rate", grant.identity, reason, now),
                ToClient(peer, wire.pack(wire.Refusal(request.id, reason))),
            ]
        match request:
            case wire.PingRequest(id=number):
                reply: wire.Reply = wire.Pong(number, now.wall)
            case wire.SnapshotRequest(id=number):
                states = tuple(msgspec.Raw(record) for _, record in sorted(set(self._states.values())))
                reply = wire.SnapshotReply(number, self.run, self.epoch, self.head, now.wall, grant.role, states)
            case wire.PageRequest(id=number, start=start, limit=limit, tokens=tokens):
                if tokens and not grant.tokens:
                    reason = "this key may not read raw tokens"
                    notes = self.refusals.count("role", grant.identity, reason, now)
                    return [*notes, ToClient(peer, wire.pack(wire.Refusal(number, reason)))]
                limit = min(max(limit, 1), wire.PAGE_FRAMES)
                return [SendPage(peer, number, max(start, 1), limit, tokens)]
            case wire.AcksRequest(id=number, command=command, after=after):
                reply = self._commands.acks(number, command, after)
            case wire.CommandRequest(id=number, command=command):
                return self._commands.on_request((peer, number), grant, command, self._fix_generations, now)
            case wire.LeaseRequest(id=number):
                return self._commands.on_lease_request((peer, number), grant, request, now)
        return [ToClient(peer, wire.pack(reply))]


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
