"""The hub as a pure state machine: messages and time in, effects out; no clock, no disk, no socket.

The rule that everything rests on: nothing counts before it is written. A frame gets its number when the server is
about to write it (`stamp`), and only `on_written` moves the head, the producer's tail and the newest states, and
publishes. So whatever is acknowledged or published is in the journal, and a write that failed has had no effect: the
producer still holds the frame and sends it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from driftline import wire
from driftline.audit import RESULT, Entry
from driftline.frames import (
    DECODE_ERRORS,
    TOPIC,
    Command,
    Event,
    Frame,
    FrameError,
    encode,
)
from driftline.hub.commands import CommandTable
from driftline.hub.effects import HUB, Effect, Note, Now, Publish, SendPage, Stamp, ToClient, Write
from driftline.hub.engine_events import EngineEvents, event, states
from driftline.hub.engines import JoinedEngines
from driftline.hub.limits import AFTER_RESTART, Limits, RateLimiter, limit_text
from driftline.hub.name_watch import NameWatch
from driftline.hub.newest_states import NewestStates
from driftline.hub.producer_tails import Tail
from driftline.hub.producers import Producers
from driftline.hub.refusals import Refusals
from driftline.hub.tracked_command import SavedCommand
from driftline.journal.records import Record, kind, record_decoder, record_encoder
from driftline.keys import Grant

_SAVED: Final = 1


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
        self.missing: tuple[str, ...] = ()
        """Clauses about what the journal lacks, for those who ask; set by who looks at its files."""
        self.refusals = Refusals()
        self._states = NewestStates(limits.states_kept)
        self._names = NameWatch()
        self._joined = JoinedEngines(CommandTable.owner)
        self._commands = CommandTable(self.refusals, limits, self._joined, full)
        engines = EngineEvents(self._joined, self._commands, self.refusals)
        self.producers = Producers(epoch, self.refusals, self._commands, self._joined, engines)

    # Start

    def restore(self, record: Record) -> None:
        """Take over one record of the journal, in order."""
        if record.incarnation:
            self.producers.tails.entry((record.producer, record.incarnation)).last = record.pseq
        letter = kind(record.body)
        self.head = record.seq
        if letter != b"t":
            self.plain = record.seq
        if letter in b"rgfxcaw" or (letter == b"e" and record.producer == HUB):
            try:
                frame = record.frame()
            except FrameError:
                return  # journaled by another version; it stays in the journal and counts as an unknown frame
            self._states.remember(frame, record.seq, record_encoder.encode(record))
            self._remember_drops(record.producer, frame)
            self._joined.remember(record.producer, frame)
            self._commands.restore(frame)

    def save(self) -> bytes:
        """Everything that `restore` would add up to, for a checkpoint. Bounded, as all that it is made of."""
        states, generations = self._states.save()
        return record_encoder.encode(
            SavedCore(
                _SAVED,
                self.head,
                self.plain,
                self.producers.tails.save(),
                states,
                generations,
                self._commands.save(),
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
        self.producers.tails.load(known.tails)
        self._states.load(known.states, known.generations)
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
            self.producers.tails.entry((write.producer, write.incarnation)).last = write.pseq
        crowd = self._states.remember(write.frame, stamp.seq, stamp.record)
        self._remember_drops(write.producer, write.frame)
        self._joined.remember(write.producer, write.frame)
        head = wire.LIVE_HEAD.pack(self.epoch, stamp.seq, stamp.previous)
        effects: list[Effect] = [Publish(TOPIC[type(write.frame)], head, stamp.record)]
        effects += self._commands.on_written(write, stamp.seq)
        if isinstance(write.frame, Command) and write.frame.issuer != HUB:
            effects += states(self._joined.requested(write.frame, write.arrived.wall if write.arrived else 0.0))
        self._names.count(write.producer, write.frame)
        if crowd:
            self._names.add(write.producer, crowd, self._limits.states_kept)
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
        return self._commands.on_synced(seq, lambda producer: self.producers.connection(producer, now), now)

    def _remember_drops(self, producer: str, frame: Frame) -> None:
        match frame:
            case Event(kind="probe.dropped", data={"producer": str(name), "incarnation": str(number), **data}) if (
                producer == HUB
            ):
                tail = self.producers.tails.entry((name, int(number)))
                topics = dict(tail.topics)
                for topic, n in data.items():
                    if topic.startswith("topic."):
                        topic = topic.removeprefix("topic.")
                        topics[topic] = topics.get(topic, 0) + int(n)
                tail.dropped, tail.topics = int(data["total"]), topics

    # Producers

    def on_ingest(self, peer: bytes, grant: Grant | None, message: bytes, now: Now) -> list[Effect]:
        """One message of a producer's connection."""
        return self.producers.on_ingest(peer, grant, message, now)

    def on_gone(self, peer: bytes, now: Now) -> list[Effect]:
        """A producer's connection turned out to be closed."""
        return self.producers.on_gone(peer, now)

    # Keys

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
        return [*self.producers.on_grants(grants, now), *self._commands.on_grants(grants, now)]

    def unrecorded(self, open_intents: set[str], now: Now) -> list[Entry]:
        """Entries that an earlier hub could not write to the audit log any more."""
        return self._commands.unrecorded(open_intents, now)

    # Time

    def acks(self) -> list[Effect]:
        """Cumulative acks for every producer that has sent something; call it a few times in 100 ms."""
        return self.producers.acks()

    def on_tick(self, now: Now) -> list[Effect]:
        """Everything that is due because time has passed; call it a few times a second."""
        notes, events = self.refusals.due_notes(now), self._names.due(now)
        crowds = [Write(encode(event), event) for event in events]
        return [*notes, *crowds, *self.producers.on_tick(now), *self._commands.on_tick(now)]

    def beacon(self, now: Now, degraded: str) -> Publish:
        """The hub's heartbeat."""
        crowded, missing = self._names.crowded, "; ".join(self.missing)
        beacon = wire.Beacon(self.epoch, self.head, self.plain, self.base, now.wall, degraded, crowded, missing)
        head = wire.LIVE_HEAD.pack(self.epoch, self.head, self.plain)
        return Publish(wire.BEACON, head, wire.pack(beacon))

    # Clients

    def on_request(self, peer: bytes, grant: Grant | None, message: bytes, now: Now) -> list[Effect]:
        """One request of a client's connection."""
        try:
            request = wire.request_decoder.decode(message)
        except DECODE_ERRORS as error:
            malformed = self.producers.malformed(grant, "a request", now)
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
                states = tuple(map(msgspec.Raw, self._states.records()))
                at = self.epoch, self.head, now.wall
                reply = wire.SnapshotReply(number, self.run, *at, grant.role, states, self.missing)
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
                return self._commands.on_request((peer, number), grant, command, self._states.generations, now)
            case wire.LeaseRequest(id=number):
                return self._commands.on_lease_request((peer, number), grant, request, now)
        return [ToClient(peer, wire.pack(reply))]
