"""What one key may ask of a hub, and what a hub remembers: bounded, whatever is sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from driftline import wire
from driftline.frames import Ack, Command, EngineState, encode
from driftline.hub.core import Core
from driftline.hub.effects import Effect, Note, Now, ToClient, ToProducer, Write
from driftline.hub.limits import AFTER_RESTART, Limits, Rate, RateLimiter
from driftline.journal.journal import record_decoder
from driftline.keys import Grant

OPERATOR, OTHER = Grant("operator", "local", "o"), Grant("operator", "other", "x")


class Desk:
    """A core with a disk that never fails, and a trainer who applies at once."""

    def __init__(self, limits: Limits, *, applies: bool = True) -> None:
        self.core = Core("r", 1, limits)
        self.applies = applies
        self.time = 1000.0
        self.notes: list[str] = []
        self.applied: list[str] = []
        self.pseq = 0
        self.ingest(wire.HELLO + wire.pack(wire.Hello("trainer", 7, 1, 1, 0, 1)))

    def ingest(self, message: bytes) -> None:
        self.do(self.core.on_ingest(b"p", Grant("producer", "trainer", "k"), message, self.now()))

    def frame(self, body: bytes) -> None:
        self.pseq += 1
        self.ingest(wire.DATA_HEAD.pack(wire.DATA, 7, self.pseq, 0) + body)

    def now(self) -> Now:
        return Now(self.time, self.time)

    def do(self, effects: list[Effect]) -> list[wire.Reply]:
        replies: list[wire.Reply] = []
        for effect in effects:
            match effect:
                case Write():
                    stamp = self.core.stamp(effect, self.now())
                    record_decoder.decode(stamp.record)
                    replies += self.do(self.core.on_written(effect, stamp))
                case ToClient(message=message):
                    replies.append(wire.reply_decoder.decode(message))
                case ToProducer(message=message):
                    answer = wire.to_producer_decoder.decode(message)
                    if isinstance(answer, Command) and self.applies:
                        self.applied.append(answer.id)
                        self.frame(encode(Ack(answer.id, "applied", self.time)))
                case Note(entry=entry):
                    self.notes.append(entry.kind)
        return replies

    def ask(self, request: object, grant: Grant = OPERATOR) -> wire.Reply:
        effects = self.core.on_request(b"c", grant, wire.pack(request), self.now())
        replies = self.do(effects)
        replies += self.do(self.core.on_synced(self.core.head, self.now()))
        return replies[0]

    def command(self, number: int, seconds: float = 10.0, grant: Grant = OPERATOR) -> wire.Reply:
        return self.ask(wire.CommandRequest(number, Command(f"c{number}", "mark", {}, -1, self.time + seconds)), grant)


def test_a_flood_of_commands_passes_as_a_burst_and_then_at_the_rate() -> None:
    desk = Desk(Limits(commands=Rate(5.0, 10.0)))
    first = [desk.command(n) for n in range(100)]
    assert [type(reply) for reply in first[:10]] == [wire.CommandReply] * 10
    assert all(
        isinstance(r, wire.Refusal) and "too many commands from one key: 5 a second" in r.reason for r in first[10:]
    )
    assert isinstance(desk.command(1000, grant=OTHER), wire.CommandReply), "others are not punished for it"
    assert isinstance(desk.command(3), wire.CommandReply), "asking again for a known command costs nothing"
    desk.time += 1.0
    later = [desk.command(n) for n in range(100, 120)]
    assert sum(isinstance(reply, wire.CommandReply) for reply in later) == 5
    assert desk.notes.count("refused.rate") == 1, "one line of the audit log now, a count later"
    assert len(desk.applied) == len(set(desk.applied)) == 16


def test_a_flood_of_requests_is_refused_with_its_id() -> None:
    desk = Desk(Limits(requests=Rate(100.0, 200.0)))
    replies = [desk.ask(wire.PingRequest(n)) for n in range(1000)]
    assert [reply.id for reply in replies] == list(range(1000))
    assert sum(isinstance(reply, wire.Pong) for reply in replies) == 200
    assert isinstance(desk.ask(wire.PingRequest(1), OTHER), wire.Pong)


def test_a_restart_gives_half_a_burst_not_a_whole_one() -> None:
    rate = Rate(10.0, 50.0)
    first, later = RateLimiter(rate), RateLimiter(rate, AFTER_RESTART)
    assert sum(first.allow("k", 1.0) for _ in range(100)) == 50
    assert sum(later.allow("k", 1.0) for _ in range(100)) == 25
    assert sum(later.allow("k", 2.0) for _ in range(100)) == 10
    for epoch, allowed in ((1, 8), (2, 4)):
        core = Core("r", epoch, Limits(requests=Rate(1.0, 8.0)))
        now = Now(1.0, 1.0)
        replies = [core.on_request(b"c", OPERATOR, wire.pack(wire.PingRequest(n)), now)[-1] for n in range(20)]
        pongs = [r for r in replies if isinstance(wire.reply_decoder.decode(r.message), wire.Pong)]
        assert len(pongs) == allowed


@given(st.lists(st.floats(-5.0, 5.0), max_size=200))
def test_no_clock_gives_more_than_the_rate(steps: list[float]) -> None:
    """Also one that goes backwards."""
    buckets, at, forward, taken = RateLimiter(Rate(10.0, 20.0)), 0.0, 0.0, 0
    for step in steps:
        at += step
        forward += max(step, 0.0)
        while buckets.allow("k", at):
            taken += 1
    assert taken <= 20 + 10 * forward + 1


def test_the_table_of_commands_is_bounded_and_nothing_takes_effect_twice() -> None:
    limits = Limits(commands=Rate(1e9, 1e9), commands_kept=100)
    desk = Desk(limits)
    for number in range(1000):
        assert isinstance(desk.command(number, seconds=10.0), wire.CommandReply | wire.Refusal)
        desk.time += 0.5
        assert len(desk.core._commands._tracked) <= 100
    assert len(desk.applied) == 1000
    # Whatever was forgotten is past its deadline: repeating it has no effect.
    for number in range(1000):
        old = wire.CommandRequest(1, Command(f"c{number}", "mark", {}, -1, 1000.0 + 0.5 * number + 10.0))
        desk.ask(old)
    assert len(desk.applied) == 1000
    crowd = [desk.command(5000 + n, seconds=3600.0) for n in range(200)]
    refused = [reply for reply in crowd if isinstance(reply, wire.Refusal)]
    assert refused, "commands that may still be repeated are not forgotten for new ones"
    assert "may still be repeated" in refused[0].reason
    assert len(desk.applied) == len(set(desk.applied))


def test_acks_and_states_are_bounded_and_a_late_end_still_counts() -> None:
    desk = Desk(Limits(acks_kept=10, states_kept=20), applies=False)  # the test itself answers
    desk.command(1)
    for _ in range(500):
        desk.frame(encode(Ack("c1", "accepted", 1.0)))
    desk.frame(encode(Ack("c1", "failed", 1.0)))
    acks = desk.ask(wire.AcksRequest(1, "c1"))
    assert isinstance(acks, wire.AcksReply)
    assert len(acks.acks) == 11
    assert acks.acks[-1].state == "failed"
    for number in range(500):
        desk.frame(encode(EngineState(f"engine-{number}", "running", 1, 1.0)))
    snapshot = desk.ask(wire.SnapshotRequest(1))
    assert isinstance(snapshot, wire.SnapshotReply)
    assert len(snapshot.states) == 20


def test_a_journal_with_more_commands_than_a_hub_keeps() -> None:
    first = Desk(Limits(commands=Rate(1e9, 1e9), commands_kept=10_000))
    core = Core("r", 2, Limits(commands_kept=50))
    for number in range(500):
        core._commands.restore(Command(f"c{number}", "mark", {}, -1, 1000.0))
        core._commands.restore(Ack(f"c{number}", "applied", 1.0))
    first.do(core.on_tick(Now(2000.0, 1.0)))
    assert len(core._commands._tracked) <= 50
