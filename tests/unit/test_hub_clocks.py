"""Leases and deadlines go by the monotonic clock, whatever the wall clock does; a revoked key holds nothing."""

from __future__ import annotations

import pytest

from driftline import clocks, wire
from driftline.frames import TERMINAL, Ack, Command, Event, Frame, Lease
from driftline.hub.core import Core
from driftline.hub.effects import Effect, Now, ToClient, ToProducer, Write
from driftline.journal.records import Record, record_decoder
from driftline.keys import Grant
from driftline.testing import Clock
from driftline.wire import LEASE_SECONDS
from trainer.control.deadline import by_monotonic, check_deadline
from trainer.errors import ExpiredError

ANA, BO = Grant("operator", "ana", "A" * 40), Grant("operator", "bo", "B" * 40)
TRAINER = Grant("producer", "trainer", "T" * 40)
GRANTS = {grant.public: grant for grant in (ANA, BO, TRAINER)}
JUMPS = [-3600.0, 0.0, 3600.0]


class World(Clock):
    """One hub behind a disk that is a list, by a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.core, self.disk = Core("r", 1), list[Record]()
        self.requests = 0

    @property
    def now(self) -> Now:
        return Now(self.wall, self.mono)

    def do(self, effects: list[Effect]) -> list[Effect]:
        others: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Write):
                stamp = self.core.stamp(effect, self.now)
                self.disk.append(record_decoder.decode(stamp.record))
                others += self.do(self.core.on_written(effect, stamp))
            else:
                others.append(effect)
        return others

    def ask(self, grant: Grant, request: wire.CommandRequest | wire.LeaseRequest) -> wire.Reply:
        others = self.do(self.core.on_request(b"c", grant, wire.pack(request), self.now))
        others += self.do(self.core.on_synced(len(self.disk), self.now))
        (reply,) = [wire.reply_decoder.decode(e.message) for e in others if isinstance(e, ToClient)]
        return reply

    def command(self, grant: Grant, number: str, timeout: float = 30.0, session: str = "s") -> wire.Reply:
        made = Command(number, "sync", {}, -1, self.wall + timeout, session=session)
        return self.ask(grant, wire.CommandRequest(1, made))

    def lease(self, grant: Grant, action: str, session: str = "s") -> wire.Reply:
        return self.ask(grant, wire.LeaseRequest(1, session, action))

    def greet(self, incarnation: int = 1) -> list[Command]:
        hello = wire.HELLO + wire.pack(wire.Hello("trainer", incarnation, 1, 1, 0, 1))
        others = self.do(self.core.on_ingest(b"p%d" % incarnation, TRAINER, hello, self.now))
        answers = [wire.to_producer_decoder.decode(e.message) for e in others if isinstance(e, ToProducer)]
        return [answer for answer in answers if isinstance(answer, Command)]

    def tick(self) -> None:
        self.do(self.core.on_tick(self.now))

    def frames(self, kind: type[Frame]) -> list[Frame]:
        return [frame for record in self.disk if isinstance(frame := record.frame(), kind)]

    def ended(self) -> list[str]:
        return [f"{ack.id} {ack.state}" for ack in self.frames(Ack) if ack.state in TERMINAL]

    def restart(self) -> None:
        self.core = Core("r", self.core.epoch + 1)
        for record in self.disk:
            self.core.restore(record)
        self.core.start()


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("jump", JUMPS)
def test_a_command_has_the_time_that_its_deadline_left_on_arrival(world: World, jump: float) -> None:
    assert world.command(ANA, "c1") == wire.CommandReply(1, "queued")
    world.jump(jump)
    world.wait(29.0)
    world.tick()
    assert world.ended() == []
    (handed,) = world.greet()
    assert handed.deadline - world.wall == pytest.approx(1.0), "the trainer reads it by the clock of now"
    world.wait(1.5)
    world.tick()
    assert world.ended() == ["c1 expired"]
    assert world.greet(2) == []


@pytest.mark.parametrize("jump", JUMPS)
def test_a_hub_that_starts_counts_from_its_first_look(world: World, jump: float) -> None:
    world.command(ANA, "c1")
    world.restart()
    world.wait(10.0)
    world.tick()
    world.jump(jump)
    world.wait(19.0)
    world.tick()
    assert world.ended() == []
    world.wait(1.5)
    world.tick()
    assert world.ended() == ["c1 expired"]


@pytest.mark.parametrize("jump", JUMPS)
def test_commands_after_a_jump_keep_their_order_and_the_lease_its_holder(world: World, jump: float) -> None:
    world.command(ANA, "c1", timeout=60.0)
    world.jump(jump)
    world.wait(1.0)
    assert world.command(ANA, "c2", timeout=60.0) == wire.CommandReply(1, "queued")
    refused = world.command(BO, "c3")
    assert isinstance(refused, wire.Refusal)
    assert refused.kind == wire.HELD
    assert [command.id for command in world.greet()] == ["c1", "c2"]
    world.wait(LEASE_SECONDS + 1.0)
    world.tick()
    assert isinstance(world.command(BO, "c4"), wire.CommandReply)


@pytest.mark.parametrize("jump", JUMPS)
def test_a_lease_that_was_taken_just_before_a_jump_keeps_its_time(world: World, jump: float) -> None:
    """Its end is known from its beginning, not only once a client has asked for it."""
    world.lease(ANA, "take")
    world.jump(jump)
    world.wait(LEASE_SECONDS - 1.0)
    assert isinstance(world.command(BO, "c1"), wire.Refusal)
    world.wait(1.5)
    assert isinstance(world.command(BO, "c2"), wire.CommandReply)


def test_a_late_trainer_gets_nothing_whatever_the_wall_clock_says(world: World) -> None:
    world.command(ANA, "c1")
    world.wait(31.0)
    world.wall -= 3600.0
    assert world.greet() == [], "also before the tick that expires it"


@pytest.mark.parametrize("jump", JUMPS)
def test_in_the_trainer_too_what_is_left_on_arrival_counts(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    clock = Clock(mono=5.0)
    monkeypatch.setattr(clocks, "time", clock)
    command = by_monotonic(Command("c1", "sync", deadline=clock.wall + 30.0))
    clock.jump(jump)
    clock.mono += 29.0
    check_deadline(command)
    clock.mono += 1.5
    with pytest.raises(ExpiredError):
        check_deadline(command)
    with pytest.raises(ExpiredError):
        check_deadline(by_monotonic(Command("c2", "sync", deadline=clock.wall - 100.0)))
    check_deadline(by_monotonic(Command("c3", "sync")))


@pytest.mark.parametrize("jump", JUMPS)
def test_an_end_survives_a_jump_and_is_handed_on_by_the_clock_of_then(
    monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    clock = Clock(mono=5.0)
    monkeypatch.setattr(clocks, "time", clock)
    end = clocks.by_monotonic(clock.wall + 30.0)
    clock.jump(jump)
    clock.mono += 10.0
    assert clocks.by_wall(end) == clock.wall + 20.0
    assert not clocks.passed(end)
    clock.mono += 20.5
    assert clocks.passed(end)
    assert clocks.passed(clocks.by_monotonic(clock.wall - 100.0)), "longer ago than the machine runs"
    assert (clocks.by_monotonic(0.0), clocks.by_wall(0.0), clocks.passed(0.0)) == (0.0, 0.0, False), "no end"


def granted(*grants: Grant) -> dict[str, Grant]:
    return {grant.public: grant for grant in grants}


@pytest.mark.parametrize("how", ["command", "take"])
def test_a_lease_ends_with_the_grant_of_its_holder(world: World, how: str) -> None:
    if how == "command":
        world.command(ANA, "c1")
    else:
        world.lease(ANA, "take")
    assert world.core.on_grants(GRANTS, world.now) == []
    assert isinstance(world.command(BO, "c2"), wire.Refusal)
    effects = world.core.on_grants(granted(BO, TRAINER), world.now)
    (entry,) = [effect.audit for effect in effects if isinstance(effect, Write) and effect.audit is not None]
    assert (entry.kind, entry.who) == ("writer.revoked", ANA.identity)
    world.do(effects)
    assert world.frames(Lease)[-1] == Lease()
    (event,) = world.frames(Event)
    assert isinstance(event, Event)
    assert (event.kind, event.text) == ("writer.revoked", "operator ana (s) lost the lease: the key was revoked")
    assert world.core.on_grants(granted(BO, TRAINER), world.now) == [], "once"
    assert isinstance(world.command(BO, "c3"), wire.CommandReply)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("grants", "ends"),
    [
        (GRANTS, False),
        (granted(ANA), False),
        (granted(BO, TRAINER), True),
        (granted(BO, Grant("viewer", "ana", ANA.public)), True),
        (granted(Grant("operator", "eve", ANA.public)), True),
        ({}, True),
    ],
)
def test_which_edits_of_the_grants_end_a_lease(
    world: World, grants: dict[str, Grant], ends: bool, restarted: bool
) -> None:
    world.lease(ANA, "take")
    if restarted:
        world.restart()
    world.do(world.core.on_grants(grants, world.now))
    assert (world.frames(Lease)[-1] == Lease()) == ends


def test_of_two_keys_of_one_name_the_holders_counts(world: World) -> None:
    other = Grant("operator", "ana", "C" * 40)
    world.lease(ANA, "take")
    world.do(world.core.on_grants(granted(ANA), world.now))
    world.restart()
    world.do(world.core.on_grants(granted(other), world.now))
    assert len(world.frames(Lease)) == 1, "a hub that has started anew does not know whose key it was"
    world.lease(ANA, "renew")
    world.do(world.core.on_grants(granted(other), world.now))
    assert world.frames(Lease)[-1] == Lease()


def test_a_disk_that_takes_nothing_keeps_no_revoked_holder(world: World) -> None:
    world.lease(ANA, "take")
    assert world.core.on_grants(granted(BO), world.now), "and none of it is written"
    assert isinstance(world.command(BO, "c1"), wire.CommandReply)
