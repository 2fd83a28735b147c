"""The hub's core under random histories: producers that drop, stall and reconnect, disks that fail, hubs that die.

No process, socket, clock or disk: a history runs in microseconds, and hypothesis shrinks one that breaks a rule.
"""

from __future__ import annotations

from collections import deque

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from driftline import wire
from driftline.audit import Entry
from driftline.frames import TERMINAL, Ack, Command, Event, Lease, Metrics, Verb, decode, encode
from driftline.hub.core import Core, SavedCore
from driftline.hub.effects import Effect, Note, Now, Publish, SendPage, Sync, ToClient, ToProducer, Write
from driftline.hub.producer_tails import ENTRIES_KEPT, INCARNATIONS_KEPT
from driftline.journal.journal import Record, record_decoder
from driftline.keys import Grant

OPERATOR = Grant("operator", "local", "o")
BO = Grant("operator", "bo", "b")
SESSIONS = ((OPERATOR, "ana@box:1"), (OPERATOR, "ana@box:2"), (BO, "ana@box:1"), (OPERATOR, ""))
"""Keys and sessions: two of one key, one of another key under the same name, and one that gives none."""


class Machine(RuleBasedStateMachine):
    """One hub after another over one disk, with producers and an operator who follow the protocol.

    What is on its way between a producer and the hub is in `link`, in order, until it is delivered or cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.disk: list[bytes] = []
        self.synced = 0
        self.disk_full = False
        self.time = 1000.0
        self.peers = 0
        self.published: list[int] = []
        self.producers: dict[str, Producer] = {}
        self.answers: dict[int, wire.Reply] = {}
        self.commands: dict[str, Command] = {}
        self.requests = 0
        self.asked: dict[int, str] = {}
        self.by: dict[str, Grant] = {}
        self.held = Lease()
        self.taking = False
        self.notes: list[Entry] = []
        self.checkpoint: tuple[int, bytes] | None = None
        self.epoch = 0
        self.boot()

    def boot(self) -> None:
        self.epoch += 1
        self.core = Core("run", self.epoch)
        start = 0
        if self.checkpoint is not None:
            start, saved = self.checkpoint
            self.core.load(saved)
        for record in self.disk[start:]:
            self.core.restore(record_decoder.decode(record))
        if start:
            reader = Core("run", self.epoch)
            for record in self.disk:
                reader.restore(record_decoder.decode(record))
            assert knowledge(self.core) == knowledge(reader), "a checkpoint stands for what it covers"
        self.core.start()
        self.synced = len(self.disk)  # opening the journal syncs it
        self.published = self.published[: len(self.disk)]

    def now(self) -> Now:
        return Now(self.time, self.time)

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Write():
                    stamp = self.core.stamp(effect, self.now())
                    if effect.audit is not None:
                        self.notes.append(effect.audit)
                    if self.disk_full:
                        self.do(self.core.on_write_failed(effect, "full", self.now()))
                        continue
                    self.check_writer(effect)
                    self.disk.append(stamp.record)
                    self.do(self.core.on_written(effect, stamp))
                case Publish(head=head):
                    _, seq, _ = wire.LIVE_HEAD.unpack(head)
                    assert seq == len(self.disk), "published is journaled"
                    self.published.append(seq)
                case ToProducer(peer=peer, message=message):
                    for producer in self.producers.values():
                        if producer.peer == peer:
                            producer.inbox.append(message)
                    answer = wire.to_producer_decoder.decode(message)
                    if isinstance(answer, Command):
                        self.durable(answer.id)
                case ToClient(message=message):
                    reply = wire.reply_decoder.decode(message)
                    if isinstance(reply, wire.CommandReply):
                        self.durable(self.asked[reply.id])
                    if isinstance(reply, wire.Refusal) and reply.kind == wire.HELD:
                        number = self.asked[reply.id]
                        assert not self.may_act(self.by[number].identity, self.commands[number]), "refused for a reason"
                    self.answers[reply.id] = reply
                case Sync(seq=seq):
                    assert seq == len(self.disk)
                case Note(entry=entry):
                    self.notes.append(entry)
                case SendPage():
                    raise AssertionError("no client asked for a page")

    def holder(self) -> Lease:
        """Who holds the run by what the journal says, and nothing else."""
        return self.held if self.held.until > self.time else Lease()

    def may_act(self, who: str, command: Command) -> bool:
        holder = self.holder()
        return command.verb == "mark" or holder == Lease() or (holder.issuer, holder.session) == (who, command.session)

    def check_writer(self, write: Write) -> None:
        """One writer at a time: looked at as each frame is written, with the frames before it."""
        match write.frame:
            case Command() as command:
                assert self.may_act(command.issuer, command)
                if command.verb != "mark" and command.session:
                    holder = self.holder()
                    assert (holder.issuer, holder.session) == (command.issuer, command.session), "who acts, holds"
            case Lease() as writer:
                before, self.held = self.holder(), writer
                same = (before.issuer, before.session) == (writer.issuer, writer.session)
                assert writer.session or writer == Lease(), "no holder, or a holder with a name"
                assert writer.until <= self.time + wire.LEASE_SECONDS
                if before != Lease() and same:
                    assert (writer.since, write.audit) == (before.since, None)
                    assert writer.until > before.until
                elif writer != Lease():
                    assert before == Lease() or self.taking, "no holder loses it but to who takes it"
                    assert write.audit is not None
                    assert write.audit.kind == "writer.taken"
                    assert bool(write.audit.data.get("former")) == (before != Lease())

    def durable(self, command: str) -> None:
        found = [r.seq for r in self.records() if isinstance(f := r.frame(), Command) and f.id == command]
        assert len(found) == 1
        assert found[0] <= self.synced, "a command is on the disk before anybody hears of it"

    def acknowledged(self, producer: str, incarnation: int, last: int) -> None:
        journaled = {r.pseq for r in self.records() if (r.producer, r.incarnation) == (producer, incarnation)}
        assert journaled >= set(range(1, last + 1)), "acknowledged is journaled"

    def records(self) -> list[Record]:
        return [record_decoder.decode(record) for record in self.disk]

    names = Bundle("names")

    @initialize(target=names)
    def people(self):  # type: ignore[no-untyped-def]
        for name in ("trainer", "engine-0"):
            self.producers[name] = Producer(self, name)
        return multiple("trainer", "engine-0")

    @rule(name=names, count=st.integers(1, 5))
    def emit(self, name: str, count: int) -> None:
        for _ in range(count):
            self.producers[name].emit()

    @rule(name=names, count=st.integers(1, 5))
    def exchange(self, name: str, count: int) -> None:
        """The usual case in one step, without the ack."""
        producer = self.producers[name]
        self.emit(name, count)
        producer.send(count)
        producer.deliver(100)
        producer.read()
        producer.send(count)
        producer.deliver(100)

    @rule(name=names)
    def go_back(self, name: str) -> None:
        """A producer may send again whatever is not acknowledged."""
        self.producers[name].next = 1

    @rule(name=names)
    def drop_oldest(self, name: str) -> None:
        self.producers[name].drop()

    @rule(name=names, count=st.integers(1, 8))
    def send(self, name: str, count: int) -> None:
        self.producers[name].send(count)

    @rule(name=names, count=st.integers(1, 8))
    def deliver(self, name: str, count: int) -> None:
        self.producers[name].deliver(count)

    @rule(name=names)
    def read(self, name: str) -> None:
        self.producers[name].read()

    @rule(name=names, junk=st.binary(max_size=40))
    def send_junk(self, name: str, junk: bytes) -> None:
        """A frame that is no frame still takes its place, as an event."""
        self.producers[name].emit(junk)

    @rule(name=names)
    def cut(self, name: str) -> None:
        self.producers[name].connect()

    @rule(name=names)
    def crash_producer(self, name: str) -> None:
        old = self.producers[name]
        self.producers[name] = Producer(self, name, old.incarnation + 1)
        self.producers[name].taken_before = old.taken_before | set(old.taken)

    @rule()
    def kill_hub(self) -> None:
        for producer in self.producers.values():
            producer.connect()
        self.boot()

    @rule()
    def close_segment(self) -> None:
        """The journal goes on in a new segment: the old one is synced and a checkpoint left."""
        self.sync(0)
        self.checkpoint = len(self.disk), self.core.save()

    @rule(full=st.booleans())
    def fill_disk(self, full: bool) -> None:
        self.disk_full = full

    @rule(seconds=st.sampled_from([0.05, 0.5, 3.0, 20.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.time += seconds
        self.do(self.core.on_tick(self.now()))
        self.do(self.core.acks())

    @rule(back=st.integers(0, 3))
    def sync(self, back: int) -> None:
        """The disk is behind what is written by the time it answers."""
        self.synced = max(self.synced, len(self.disk) - back)
        self.do(self.core.on_synced(self.synced, self.now()))

    ids = Bundle("ids")

    @rule(
        target=ids,
        seconds=st.sampled_from([1.0, 30.0]),
        verb=st.sampled_from(["mark", "sync"]),
        session=st.sampled_from(SESSIONS),
    )
    def command(self, seconds: float, verb: Verb, session: tuple[Grant, str]) -> str:
        number = f"c{len(self.commands)}"
        self.by[number], name = session
        self.commands[number] = Command(number, verb, {"text": "x"}, -1, self.time + seconds, session=name)
        self.ask(number)
        return number

    @rule(session=st.sampled_from(SESSIONS[:3]), action=st.sampled_from(["take", "renew", "release"]))
    def ask_for_the_run(self, session: tuple[Grant, str], action: str) -> None:
        (grant, name), before = session, self.holder()
        self.requests += 1
        number, self.taking = self.requests, action == "take"
        request = wire.LeaseRequest(number, name, action)  # type: ignore[arg-type]
        self.do(self.core.on_request(b"client", grant, wire.pack(request), self.now()))
        self.taking = False
        reply, holder = self.answers.get(number), self.holder()
        if isinstance(reply, wire.Refusal):
            assert self.disk_full or "too many" in reply.reason
            return
        assert isinstance(reply, wire.LeaseReply), "it is answered at once"
        mine = (before.issuer, before.session) == (grant.identity, name)
        match action:
            case "take":
                assert reply.mine
                assert (holder.issuer, holder.session) == (grant.identity, name)
                assert reply.former == ("" if mine or before == Lease() else f"{before.issuer} ({before.session})")
            case "renew":
                assert reply.mine == mine
                assert mine or holder == before
            case "release":
                assert not reply.mine
                assert holder == (Lease() if mine else before)

    @rule(number=ids)
    def ask_again(self, number: str) -> None:
        self.ask(number)

    def ask(self, number: str) -> None:
        self.requests += 1
        self.asked[self.requests] = number
        request = wire.CommandRequest(self.requests, self.commands[number])
        self.do(self.core.on_request(b"client", self.by[number], wire.pack(request), self.now()))

    @rule(number=consumes(ids))
    def give_up(self, number: str) -> None:
        """The operator stops asking; the command lives on without them."""

    @invariant()
    def numbers_are_contiguous_and_nothing_is_double(self) -> None:
        records = self.records()
        assert [r.seq for r in records] == list(range(1, len(records) + 1))
        origins = [(r.producer, r.incarnation, r.pseq) for r in records if r.incarnation]
        assert len(set(origins)) == len(origins)
        assert self.published == [r.seq for r in records][: len(self.published)]

    @invariant()
    def a_producers_frames_are_in_its_order(self) -> None:
        last: dict[tuple[str, int], int] = {}
        for r in self.records():
            if r.incarnation:
                assert r.pseq == last.get((r.producer, r.incarnation), 0) + 1, "no hole"
                last[r.producer, r.incarnation] = r.pseq

    @invariant()
    def a_command_is_journaled_once_and_ends_once(self) -> None:
        frames = [record.frame() for record in self.records()]
        commands = [f.id for f in frames if isinstance(f, Command)]
        assert len(set(commands)) == len(commands)
        for number in commands:
            expired = [f for f in frames if isinstance(f, Ack) and f.id == number and f.state == "expired"]
            assert len(expired) <= 1

    def teardown(self) -> None:
        """Let everything settle: then every frame that was not dropped is journaled, every command over."""
        self.disk_full = False
        for _ in range(3):
            for producer in self.producers.values():
                producer.connect()
                producer.settle()
            self.time += 1.0
            self.sync(0)
            self.wait(0.5)
        self.numbers_are_contiguous_and_nothing_is_double()
        self.a_producers_frames_are_in_its_order()
        for _ in range(2):
            self.time += 60.0
            self.wait(0.5)
        assert self.held == Lease(), "a silent holder loses it, and the end of its lease is published"
        for producer in self.producers.values():
            assert not producer.pending
            assert producer.acked == producer.numbered
            mine = [r for r in self.records() if (r.producer, r.incarnation) == (producer.name, producer.incarnation)]
            assert len(mine) == producer.numbered == producer.emitted - producer.dropped
        frames = [record.frame() for record in self.records()]
        for number in {f.id for f in frames if isinstance(f, Command)}:
            states = [f.state for f in frames if isinstance(f, Ack) and f.id == number]
            assert set(states) & TERMINAL, f"command {number} ended in no terminal state: {states}"
            trainer = self.producers["trainer"]
            assert trainer.taken.count(number) <= 1


def knowledge(core: Core) -> object:
    """What a core has from the journal, in an order that does not depend on who greeted last."""
    saved = msgspec.msgpack.decode(core.save(), type=SavedCore)
    tails = sorted((name, number, tail) for name, number, tail in saved.tails if tail.last or tail.dropped)
    return msgspec.structs.replace(saved, tails=tails, states=sorted(saved.states))


class Producer:
    """The producer's half of the protocol, in its shortest form."""

    def __init__(self, machine: Machine, name: str, incarnation: int = 1) -> None:
        self.machine, self.name, self.incarnation = machine, name, incarnation
        self.grant = Grant("producer", name, name, kinds=("trainer", "engine"))
        self.pending: deque[bytes] = deque()
        self.window: dict[int, bytes] = {}
        self.emitted = self.dropped = self.numbered = self.acked = 0
        self.next = 1
        self.nonce = 0
        self.taken: list[str] = []
        self.taken_before: set[str] = set()
        self.connect()

    def connect(self) -> None:
        self.machine.peers += 1
        self.peer = str(self.machine.peers).encode()
        self.link: deque[bytes] = deque()
        self.inbox: deque[bytes] = deque()
        self.greeted = False

    def greet(self) -> None:
        self.nonce += 1
        hello = wire.Hello(self.name, self.incarnation, self.acked + 1, self.nonce, self.dropped, 1)
        self.link.append(wire.HELLO + wire.pack(hello))

    def emit(self, body: bytes | None = None) -> None:
        self.pending.append(encode(Metrics(self.emitted, 1, 1.0, {"a": 1.0})) if body is None else body)
        self.emitted += 1

    def drop(self) -> None:
        if self.pending:
            self.pending.popleft()
            self.dropped += 1

    def send(self, count: int) -> None:
        if not self.greeted:
            self.greet()
        for _ in range(count):
            self.next = max(self.next, self.acked + 1)
            if self.next > self.numbered:
                if not self.pending:
                    return
                self.numbered += 1
                self.window[self.numbered] = self.pending.popleft()
            head = wire.DATA_HEAD.pack(wire.DATA, self.incarnation, self.next, self.dropped)
            self.link.append(head + self.window[self.next])
            self.next += 1

    def deliver(self, count: int) -> None:
        machine = self.machine
        for _ in range(min(count, len(self.link))):
            machine.do(machine.core.on_ingest(self.peer, self.grant, self.link.popleft(), machine.now()))

    def read(self) -> None:
        while self.inbox:
            match wire.to_producer_decoder.decode(self.inbox.popleft()):
                case wire.Acked(last=last):
                    self.ack(last)
                case wire.Welcome(nonce=nonce, last=last) if nonce == self.nonce:
                    self.ack(last)
                    self.next = self.acked + 1
                    self.greeted = True
                case wire.HelloPlease():
                    self.greet()
                case Command(id=number):
                    if number not in self.taken:
                        self.taken.append(number)
                        self.emit(encode(Ack(number, "applied", 1.0)))

    def ack(self, last: int) -> None:
        self.machine.acknowledged(self.name, self.incarnation, last)
        for number in range(self.acked + 1, last + 1):
            del self.window[number]
        self.acked = max(self.acked, last)

    def settle(self) -> None:
        for _ in range(200):
            self.machine.time += 0.3
            self.greet()
            self.send(50)
            self.deliver(100)
            self.machine.sync(0)
            self.machine.do(self.machine.core.acks())
            self.read()
            if not self.pending and self.acked == self.numbered and not self.inbox:
                return
        raise AssertionError("the producer did not settle")


TestCore = Machine.TestCase
TestCore.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def clock(seconds: float) -> Now:
    return Now(seconds, seconds)


def without_notes(effects: list[Effect]) -> list[Effect]:
    """The effects that reach the journal or a peer: without the notes for the audit log."""
    return [effect for effect in effects if not isinstance(effect, Note)]


def run_effects(core: Core, effects: list[Effect], disk: list[Record], now: Now) -> list[Effect]:
    """Carry out writes on a list; return the other effects."""
    others: list[Effect] = []
    for effect in effects:
        if isinstance(effect, Write):
            stamp = core.stamp(effect, now)
            disk.append(record_decoder.decode(stamp.record))
            others += run_effects(core, core.on_written(effect, stamp), disk, now)
        else:
            others.append(effect)
    return others


def test_a_checkpoint_of_another_version_is_refused_and_changes_nothing() -> None:
    core, other = Core("r", 2), Core("r", 1)
    saved = msgspec.msgpack.decode(other.save())
    for wrong in (b"", b"\xc1", msgspec.msgpack.encode([*saved[:3], [["p", 1]], *saved[4:]]), b"\x97" + b"\xff" * 7):
        with pytest.raises(ValueError, match="not a checkpoint"):
            core.load(wrong)
    with pytest.raises(ValueError, match="version 99"):
        core.load(msgspec.msgpack.encode([99, *saved[1:]]))
    assert core.head == 0


def test_tails_are_bounded_and_the_connected_ones_stay() -> None:
    """A thousand lives of one producer, one of which stays connected all the time; and a thousand names."""
    core, now = Core("r", 1), clock(1.0)
    grant = Grant("producer", "*", "k", kinds=("trainer",))

    def greet(name: str, incarnation: int, peer: bytes, first: int = 1) -> int:
        hello = wire.HELLO + wire.pack(wire.Hello(name, incarnation, first, 1, 0, 1))
        *_, welcome = without_notes(core.on_ingest(peer, grant, hello, now))
        return wire.to_producer_decoder.decode(welcome.message).last

    def frame(incarnation: int, pseq: int, peer: bytes) -> int:
        data = wire.DATA_HEAD.pack(wire.DATA, incarnation, pseq, 0) + encode(Metrics(1, 1, 1.0, {}))
        disk: list[Record] = []
        run_effects(core, core.on_ingest(peer, grant, data, now), disk, now)
        return len(disk)

    greet("trainer", 1, b"first")
    assert frame(1, 1, b"first") == 1
    for incarnation in range(2, 1000):
        greet("trainer", incarnation, b"p")
        assert frame(incarnation, 1, b"p") == 1
    assert len(core.producers.tails) == INCARNATIONS_KEPT
    assert frame(1, 1, b"first") == 0, "what is connected is never forgotten: no frame twice"
    for incarnation in range(1000 - INCARNATIONS_KEPT + 1, 1000):
        assert greet("trainer", incarnation, b"q") == 1, "nor are the newest"
    assert greet("trainer", 500, b"q", first=8) == 7, "one long gone goes on where it says it is"
    for number in range(2 * ENTRIES_KEPT):
        greet(f"engine-{number}", 1, b"r")
    assert len(core.producers.tails) <= ENTRIES_KEPT
    assert frame(1, 1, b"first") == 0


def test_a_failed_write_has_happened_for_no_peer() -> None:
    core, now = Core("r", 1), clock(1.0)
    grant = Grant("producer", "trainer", "k")
    hello = wire.HELLO + wire.pack(wire.Hello("trainer", 7, 1, 1, 0, 1))
    core.on_ingest(b"p", grant, hello, now)
    data = wire.DATA_HEAD.pack(wire.DATA, 7, 1, 0) + encode(Metrics(1, 1, 1.0, {}))
    (write,) = core.on_ingest(b"p", grant, data, now)
    assert isinstance(write, Write)
    assert core.on_write_failed(write, "disk full", now) == []
    assert core.head == 0
    (ack,) = core.acks()
    assert wire.to_producer_decoder.decode(ack.message) == wire.Acked(7, 0)
    assert core.on_ingest(b"p", grant, data, now) == [write], "the same frame again is welcome"


def test_dropped_frames_become_an_event_with_the_exact_count() -> None:
    core, disk = Core("r", 1), []
    grant = Grant("producer", "trainer", "k")
    core.on_ingest(b"p", grant, wire.HELLO + wire.pack(wire.Hello("trainer", 7, 1, 1, 3, 1)), clock(1.0))
    run_effects(core, core.on_tick(clock(5.0)), disk, clock(5.0))
    core.on_ingest(b"p", grant, wire.PING_HEAD.pack(wire.PING, 7, 10), clock(5.1))
    run_effects(core, core.on_tick(clock(5.2)), disk, clock(5.2))  # at most one a second
    run_effects(core, core.on_tick(clock(8.1)), disk, clock(8.1))
    run_effects(core, core.on_tick(clock(9.0)), disk, clock(9.0))
    events = [record.frame() for record in disk]
    assert [e.data["dropped"] for e in events if isinstance(e, Event)] == [3, 7]
    assert {record.producer for record in disk} == {"hub"}

    # Neither another connection nor another hub reports them again.
    later = Core("r", 2)
    for record in disk:
        later.restore(record)
    again: list[Record] = []
    hello = wire.HELLO + wire.pack(wire.Hello("trainer", 7, 1, 1, 12, 1))
    for at, (peer, hub) in enumerate([(b"q", core), (b"q", later), (b"r", later)]):
        hub.on_ingest(peer, grant, hello, clock(10.0 + 10 * at))
        run_effects(hub, hub.on_tick(clock(18.0 + 10 * at)), again, clock(18.0 + 10 * at))
    assert [record.frame().data["dropped"] for record in again] == [2, 2], "one report by each of the two hubs"


def test_counts_that_no_event_can_hold_do_not_end_the_hub() -> None:
    core, grant = Core("r", 1), Grant("producer", "trainer", "k")
    core.on_ingest(b"p", grant, wire.HELLO + wire.pack(wire.Hello("trainer", 7, 1, 1, 0, 1)), clock(1.0))
    for topics in ({str(n): 2**62 for n in range(5)}, {"tokens": 2**62, "metrics": 1}):
        core.on_ingest(b"p", grant, wire.LOST + msgspec.msgpack.encode([7, topics]), clock(2.0))
    assert core.producers.bad_frames == 2
    assert [e for e in core.on_tick(clock(9.0)) if isinstance(e, Write)] == [], "nothing was lost"


def test_numbers_of_which_no_record_is_left_are_not_given_away_again() -> None:
    core = Core("r", 2)
    core.start(41)
    assert (core.head, core.plain, core.base) == (41, 41, 41)


def test_drops_are_reported_by_topic() -> None:
    core, disk = Core("r", 1), []
    grant = Grant("producer", "trainer", "k")
    core.on_ingest(b"p", grant, wire.HELLO + wire.pack(wire.Hello("trainer", 7, 1, 1, 0, 1)), clock(1.0))
    for at, topics in ((2.0, {"tokens": 5, "metrics": 2}), (4.0, {"tokens": 9, "metrics": 2, "forged\x1b": 0})):
        core.on_ingest(b"p", grant, wire.LOST + wire.pack(wire.Lost(7, topics)), clock(at))
        run_effects(core, core.on_tick(clock(at + 0.5)), disk, clock(at + 0.5))
    events = [record.frame() for record in disk]
    assert [e.data for e in events if isinstance(e, Event)] == [
        {"producer": "trainer", "dropped": 7, "total": 7, "incarnation": "7", "topic.tokens": 5, "topic.metrics": 2},
        {"producer": "trainer", "dropped": 4, "total": 11, "incarnation": "7", "topic.tokens": 4},
    ]
    before = core.producers.bad_frames
    for junk in (wire.pack(wire.Lost(7, {"tokens": -1})), b"", b"\xc1", wire.pack({"a": 1})):
        core.on_ingest(b"p", grant, wire.LOST + junk, clock(9.0))
    assert core.producers.bad_frames == before + 4


def test_a_tail_the_disk_has_lost_does_not_stop_its_producer() -> None:
    """After a crash of the machine the journal may end before what was acknowledged; the producer goes on."""
    core, now = Core("r", 2), clock(1.0)
    grant = Grant("producer", "trainer", "k")
    (welcome,) = core.on_ingest(b"p", grant, wire.HELLO + wire.pack(wire.Hello("trainer", 7, 41, 1, 0, 1)), now)
    assert wire.to_producer_decoder.decode(welcome.message) == wire.Welcome(2, 1, 40)
    data = wire.DATA_HEAD.pack(wire.DATA, 7, 41, 0) + encode(Metrics(1, 1, 1.0, {}))
    assert isinstance(core.on_ingest(b"p", grant, data, now)[0], Write)


def test_a_command_without_a_terminal_ack_is_handed_over_to_each_trainer_in_turn() -> None:
    core, disk, now = Core("r", 1), [], clock(1.0)
    grant = Grant("producer", "trainer", "k")
    request = wire.CommandRequest(1, Command("c1", "stop", {}, -1, 50.0))
    others = run_effects(core, core.on_request(b"client", OPERATOR, wire.pack(request), now), disk, now)
    assert [e for e in others if isinstance(e, ToClient)] == [], "no answer before it is on the disk"
    others = run_effects(core, core.on_synced(1, now), disk, now)
    assert [wire.reply_decoder.decode(e.message).state for e in others if isinstance(e, ToClient)] == ["queued"]

    def greet(core: Core, incarnation: int, now: Now) -> list[Command]:
        hello = wire.HELLO + wire.pack(wire.Hello("trainer", incarnation, 1, 1, 0, 1))
        others = run_effects(core, core.on_ingest(b"p%d" % incarnation, grant, hello, now), disk, now)
        answers = [wire.to_producer_decoder.decode(e.message) for e in others if isinstance(e, ToProducer)]
        return [answer for answer in answers if isinstance(answer, Command)]

    assert [command.issuer for command in greet(core, 1, now)] == ["operator local"]
    assert greet(core, 2, now) == [], "a second one gets nothing while the first is there"
    (handed,) = without_notes(core.on_gone(b"p1", now))
    assert (handed.peer, type(wire.to_producer_decoder.decode(handed.message))) == (b"p2", Command)
    later = Core("r", 2)
    for record in disk:
        later.restore(record)
    later.start()
    assert len(greet(later, 3, now)) == 1
    states = [f.state for record in disk if isinstance(f := record.frame(), Ack)]
    assert states == ["queued", "sent"], "handed over again is no news"
    after = Core("r", 3)
    for record in disk:
        after.restore(record)
    (expired,) = [e for e in after.on_tick(clock(60.0)) if isinstance(e, Write)]
    assert isinstance(expired.frame, Ack)
    assert expired.frame.detail == "handed over, not accepted before the deadline", "if not by this hub"
    done = Ack("c1", "applied", 1.0)
    data = wire.DATA_HEAD.pack(wire.DATA, 3, 1, 0) + encode(done)
    run_effects(later, later.on_ingest(b"p3", grant, data, now), disk, now)
    later.on_gone(b"p3", now)
    assert greet(later, 4, now) == []


@pytest.mark.parametrize(
    ("schema", "name", "text"),
    [
        (2, "trainer", "schema 2, this hub speaks 1"),
        (1, "engine-0", "may not produce as"),
        (1, "tra\x1biner", "1 to 64 letters"),
        (1, "", "1 to 64 letters"),
    ],
)
def test_a_greeting_can_be_refused(schema: int, name: str, text: str) -> None:
    core = Core("r", 1)
    hello = wire.HELLO + wire.pack(wire.Hello(name, 7, 1, 1, 0, schema))
    written, refused = without_notes(core.on_ingest(b"p", Grant("producer", "trainer", "k"), hello, clock(1.0)))
    assert text in wire.to_producer_decoder.decode(refused.message).reason
    assert not core.producers.sessions
    assert (written.frame.kind, text in written.frame.text) == ("hub.refused", True)
    again = without_notes(core.on_ingest(b"p", Grant("producer", "trainer", "k"), hello, clock(1.1)))
    assert len(again) == 1, "a producer that keeps trying does not fill the journal"


def test_a_client_that_wrote_nothing_readable_gets_a_refusal() -> None:
    core = Core("r", 1)
    for junk in (b"", b"\xc1", b"\x91\xa7nothing", b"\x95" * 2000, wire.pack(wire.PingRequest(1)) + b"x"):
        (refusal,) = without_notes(core.on_request(b"p", OPERATOR, junk, clock(1.0)))
        assert isinstance(wire.reply_decoder.decode(refusal.message), wire.Refusal)
    extra = msgspec.msgpack.encode(["ping", 1, "more"])
    (refusal,) = core.on_request(b"p", OPERATOR, extra, clock(1.0))
    assert isinstance(wire.reply_decoder.decode(refusal.message), wire.Refusal)


def test_deadlines_far_away_or_past_are_refused() -> None:
    core = Core("r", 1)
    for deadline in (float("nan"), float("inf"), 0.0, 99.0, 100.0 + 25 * 3600):
        request = wire.CommandRequest(1, Command("c1", "stop", {}, -1, deadline))
        (reply,) = without_notes(core.on_request(b"p", OPERATOR, wire.pack(request), clock(100.0)))
        assert isinstance(wire.reply_decoder.decode(reply.message), wire.Refusal)
    for number in ("", "x" * 65, "a b", "ä", "../x"):
        request = wire.CommandRequest(1, Command(number, "stop", {}, -1, 160.0))
        (reply,) = without_notes(core.on_request(b"p", OPERATOR, wire.pack(request), clock(100.0)))
        assert isinstance(wire.reply_decoder.decode(reply.message), wire.Refusal)


def test_a_live_frame_names_the_plain_one_before_it() -> None:
    from driftline.frames import Tokens

    core, disk = Core("r", 1), []
    plain = Metrics(1, 1, 1.0, {})
    tokens = Tokens(1, 1, 1.0, 0, b"", b"", b"", b"", b"", b"")
    heads = []
    for frame in (plain, tokens, tokens, plain, plain):
        others = run_effects(core, [Write(encode(frame), frame)], disk, clock(1.0))
        heads += [wire.LIVE_HEAD.unpack(e.head)[1:] for e in others if isinstance(e, Publish)]
    assert heads == [(1, 0), (2, 1), (3, 1), (4, 1), (5, 4)]
    assert decode(bytes(disk[1].body)) == tokens


BODIES = (
    wire.DATA_HEAD.pack(wire.DATA, 7, 1, 0) + encode(Metrics(1, 1, 1.0, {"a": 1.0}, {"a": "b"})),
    wire.DATA_HEAD.pack(wire.DATA, 7, 1, 0) + encode(Ack("c1", "applied", 1.0)),
    wire.PING_HEAD.pack(wire.PING, 7, 3),
    wire.HELLO + wire.pack(wire.Hello("trainer", 7, 1, 1, 0, 1)),
)
REQUESTS = (
    wire.PingRequest(1),
    wire.SnapshotRequest(2),
    wire.PageRequest(3, 1, 256, True),
    wire.AcksRequest(4, "c1", 0),
    wire.CommandRequest(5, Command("c1", "fix.set", {"fix": "fp32-lm-head", "value": "on"}, 3, 40.0, "", "a@b:1")),
    wire.LeaseRequest(6, "a@b:1", "take"),
)


@settings(max_examples=600, deadline=None)
@given(
    original=st.sampled_from([(b, True) for b in BODIES] + [(wire.pack(r), False) for r in REQUESTS]),
    edits=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
    tail=st.one_of(st.just(b""), st.binary(max_size=20)),
    cut=st.integers(0, 200),
)
def test_mutated_messages_never_raise(
    original: tuple[bytes, bool], edits: list[tuple[int, int]], tail: bytes, cut: int
) -> None:
    message = bytearray(original[0])
    for at, byte in edits:
        message[at % len(message)] = byte
    mutated = bytes(message[: max(1, len(message) - cut % len(message))] if cut % 3 == 0 else message) + tail
    core, disk, now = Core("r", 1), [], clock(10.0)
    trainer = Grant("producer", "trainer", "k")
    core.on_ingest(b"p", trainer, BODIES[3], now)
    ingest = original[1]
    effects = core.on_ingest(b"p", trainer, mutated, now) if ingest else core.on_request(b"p", OPERATOR, mutated, now)
    run_effects(core, effects, disk, now)
    run_effects(core, core.on_synced(core.head, now), disk, now)
    run_effects(core, core.on_tick(clock(1e4)), disk, now)
    restored = Core("r", 2)
    for record in disk:
        restored.restore(record)
    assert restored.head == core.head
