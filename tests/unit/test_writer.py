"""One writer at a time: the lease by itself, and two real clients of one hub who both want to act."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from console.cli.main import main
from console.connect import source as source_module
from console.connect.live_source import LiveSource
from console.connect.target import LocalRun
from console.errors import FAILED, OK
from console.store.model import RunModel
from driftline import audit, wire
from driftline.client import Client, ClientError, LeaseHeldError, LeaseKeeper, RefusedError, attach
from driftline.consumer.rpc import own_session
from driftline.frames import Command, Event, Lease, Verb
from driftline.hub.effects import Effect, Now, ToClient, Write
from driftline.hub.lease import END_RETRY, NO_LEASE, RENEW_STEP, LeaseState
from driftline.journal.journal import read
from driftline.keys import add, load, load_file, revoke
from driftline.testing import Clock
from driftline.wire import LEASE_SECONDS
from tests.unit.hubs import Hub, until

pytestmark = pytest.mark.timeout(120)

ANA, BO = "operator ana", "operator bo"
ONE, TWO = "ana@box:1", "ana@box:2"


def at(clock: Clock) -> Now:
    return Now(clock.wall, clock.mono)


def written(lease: LeaseState, effects: list[Effect]) -> list[Write]:
    """Take in what the effects write; return the writes of a Lease."""
    writes = [effect for effect in effects if isinstance(effect, Write)]
    for write in writes:
        lease.apply(write.frame)
    return [write for write in writes if isinstance(write.frame, Lease)]


def order(session: str, verb: Verb = "sync") -> Command:
    return Command("c", verb, session=session)


def act(lease: LeaseState, clock: Clock, who: str, session: str, verb: Verb = "sync") -> list[Write]:
    assert lease.refusal(who, order(session, verb), at(clock)) == ""
    return written(lease, lease.on_command(who, order(session, verb), at(clock)))


def test_the_first_who_acts_holds_it_and_the_others_learn_who_and_since_when() -> None:
    lease, clock = LeaseState(), Clock()
    (write,) = act(lease, clock, ANA, ONE)
    assert write.frame == Lease(ANA, ONE, clock.wall, clock.wall + LEASE_SECONDS)
    assert write.audit is not None
    assert (write.audit.kind, write.audit.who, write.audit.data["session"]) == ("writer.taken", ANA, ONE)
    for who, session in ((ANA, TWO), (BO, ONE), (ANA, "")):
        said = lease.refusal(who, order(session), at(clock))
        since = "since 2001-09-09 01:46:40 UTC"
        assert said == f"operator ana (ana@box:1) has held the lease {since}; to act, take over from them"
        assert lease.refusal(who, order(session, "mark"), at(clock)) == "", "a mark is anybody's"
        assert act(lease, clock, who, session, "mark") == [], "and takes nothing"


def test_a_holder_lasts_a_lease_after_the_last_sign_of_life() -> None:
    lease, clock = LeaseState(), Clock()
    act(lease, clock, ANA, ONE)
    began = clock.wall
    for _ in range(10):
        clock.wait(LEASE_SECONDS - 1.0)
        (write,) = act(lease, clock, ANA, ONE, "mark")
        assert write.audit is None
        assert write.frame == Lease(ANA, ONE, began, clock.wall + LEASE_SECONDS)
    clock.wait(RENEW_STEP - 1.0)
    assert act(lease, clock, ANA, ONE) == [], "not a frame for each command"
    assert lease.on_tick(at(clock)) == []
    clock.wait(LEASE_SECONDS - RENEW_STEP + 1.0)
    assert lease.refusal(BO, order(TWO), at(clock)) == "", "free at once, published or not"
    (write,) = written(lease, lease.on_tick(at(clock)))
    assert write.frame == NO_LEASE
    assert write.audit is not None
    assert (write.audit.kind, write.audit.who) == ("writer.expired", ANA)
    assert lease.on_tick(at(clock)) == []


def test_a_disk_that_takes_nothing_holds_no_command_up_and_is_not_asked_all_the_time() -> None:
    lease, clock = LeaseState(), Clock()
    act(lease, clock, ANA, ONE)
    clock.wait(LEASE_SECONDS + 1.0)
    tries = 0
    for _ in range(100):
        tries += len(lease.on_tick(at(clock)))
        clock.wait(END_RETRY / 50)
    assert tries == 2
    assert lease.refusal(BO, order(TWO), at(clock)) == ""
    (write,) = act(lease, clock, BO, TWO)
    assert write.frame.issuer == BO


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_jump_of_the_wall_clock_neither_ends_nor_prolongs_it(jump: float) -> None:
    lease, clock = LeaseState(), Clock()
    act(lease, clock, ANA, ONE)
    assert lease.current(at(clock)).issuer == ANA
    clock.wall += jump
    clock.wait(LEASE_SECONDS - 1.0)
    assert lease.current(at(clock)).issuer == ANA
    clock.wait(1.5)
    assert lease.current(at(clock)) == NO_LEASE
    later, clock = LeaseState(), Clock()
    later.apply(Lease(ANA, ONE, clock.wall, clock.wall + LEASE_SECONDS))
    clock.wall -= 3600.0
    assert later.current(at(clock)).issuer == ANA
    clock.wait(LEASE_SECONDS + 0.5)
    assert later.current(at(clock)) == NO_LEASE, "no longer than a lease, whatever the clock said before the restart"


def test_a_restarted_hub_goes_on_with_what_was_left() -> None:
    lease, clock = LeaseState(), Clock()
    (write,) = act(lease, clock, ANA, ONE)
    clock.wait(LEASE_SECONDS - 10.0)
    later = LeaseState()
    later.apply(write.frame)
    assert later.refusal(BO, order(TWO), at(clock))
    clock.wait(10.5)
    assert not later.refusal(BO, order(TWO), at(clock))


def test_taking_over_is_recorded_with_both_names() -> None:
    lease, clock = LeaseState(), Clock()
    act(lease, clock, ANA, ONE)
    effects = lease.on_request(b"p", BO, wire.LeaseRequest(7, TWO, "take"), at(clock))
    write, event = effects
    assert isinstance(write, Write)
    assert isinstance(event, Write)
    assert write.audit is not None
    assert (write.audit.kind, write.audit.who, write.audit.data["former"]) == ("writer.taken", BO, f"{ANA} ({ONE})")
    assert isinstance(event.frame, Event)
    assert event.frame.text == f"{BO} ({TWO}) took over from {ANA} ({ONE})"
    written(lease, effects)
    assert lease.refusal(ANA, order(ONE), at(clock))
    (reply,) = lease.on_request(b"p", ANA, wire.LeaseRequest(8, ONE, "renew"), at(clock))
    assert isinstance(reply, ToClient)
    said = wire.reply_decoder.decode(reply.message)
    assert (said.id, said.mine, said.writer.issuer) == (8, False, BO), "and who lost it learns from whom"


# Real clients, a real hub


@pytest.fixture
def two(hub: Hub) -> Iterator[tuple[Client, Client]]:
    """Two consoles of the same person, on one hub."""
    with (
        Client(*attach(hub.run, "operator"), session=ONE) as one,
        Client(*attach(hub.run, "operator"), session=TWO) as two,
    ):
        yield one, two


def holder(client: Client) -> Lease:
    frames = [stamped.frame() for stamped in client.snapshot().states]
    return next((frame for frame in frames if isinstance(frame, Lease)), NO_LEASE)


def test_two_clients_and_one_run(hub: Hub, two: tuple[Client, Client]) -> None:
    first, second = two
    assert holder(first) == NO_LEASE
    assert not first.renew_lease(), "renewing takes nothing"
    first.command("pause")
    assert (holder(second).issuer, holder(second).session) == ("operator local", ONE)
    match = r"operator local \(ana@box:1\) has held the lease since .* UTC; to act"
    with pytest.raises(LeaseHeldError, match=match):
        second.command("resume")
    assert (first.holds_lease, second.holds_lease) == (True, False)
    second.command("mark", {"text": "x"})
    second.release_lease()
    assert holder(first).session == ONE, "no session gives back what another has"

    hub.kill()
    hub.start()
    with pytest.raises(LeaseHeldError):
        second.command("resume")
    first.command("resume")

    assert second.take_lease() == f"operator local ({ONE})"
    second.command("pause")
    with pytest.raises(LeaseHeldError, match=TWO):
        first.command("resume")
    assert not first.holds_lease
    first.close()
    assert holder(second).session == TWO, "who has lost it takes nothing away at the end"
    second.close()
    with Client(*attach(hub.run, "operator"), session="three") as third:
        until(lambda: holder(third) == NO_LEASE, "the run to be given back by the one who closes")
        assert third.take_lease() == ""

    kinds = [line.kind for line in audit.entries(hub.run.audit) if line.kind.startswith("writer.")]
    assert kinds == ["writer.taken", "writer.taken", "writer.released", "writer.taken", "writer.released"]
    assert [line.kind for line in audit.entries(hub.run.audit) if line.kind == "refused.held"]
    assert audit.verify(hub.run.audit).error == ""
    frames = [frame for stamped in read(hub.run.journal) if isinstance(frame := stamped.frame(), Lease | Event)]
    sessions = [frame.session for frame in frames if isinstance(frame, Lease)]
    assert sessions == [ONE, TWO, "", "three", ""]
    assert [frame.kind for frame in frames if isinstance(frame, Event)] == ["writer.taken"]


def test_a_revoked_operator_holds_nothing(hub: Hub, two: tuple[Client, Client]) -> None:
    local, _ = two
    ana = load_file(add(hub.run, "ana", "operator", "ana"))
    with Client(hub.run.connection(), ana, session="ana@far:1") as far:
        far.take_lease()
        assert holder(local).issuer == ANA
        revoke(hub.run, "ana")
        until(lambda: holder(local) == NO_LEASE, "the hub to notice")
        local.command("sync")
        assert holder(local).session == ONE
    kinds = [line.kind for line in audit.entries(hub.run.audit) if line.who == ANA]
    assert [kind for kind in kinds if kind.startswith(("key", "writer"))] == [
        "key.added", "writer.taken", "key.removed", "writer.revoked",
    ]  # fmt: skip


def test_a_keeper_keeps_only_what_is_held(hub: Hub, two: tuple[Client, Client]) -> None:
    first, second = two
    first.command("pause")
    asked: list[bool] = []
    first.renew_lease = lambda: asked.append(True) or Client.renew_lease(first)  # type: ignore[method-assign, func-returns-value]
    keeper = LeaseKeeper(first, every=0.02)
    try:
        until(lambda: len(asked) >= 3, "the keeper to renew")
        second.take_lease()
        until(lambda: not first.holds_lease, "the keeper to learn of it")
        asked.clear()
        assert not keeper._ending.wait(0.3)
        assert len(asked) <= 1, "one may have been on its way"
        assert holder(second).session == TWO
    finally:
        keeper.close()


def test_only_operators_hold_a_run_and_a_session_has_a_name(hub: Hub) -> None:
    add(hub.run, "guest", "viewer", "guest")
    for who in ("viewer", "trainer"):
        with Client(hub.run.connection(), load(hub.run, who)) as client:
            for ask in (client.take_lease, client.renew_lease, client.release_lease):
                with pytest.raises(RefusedError, match="this key may not"):
                    ask()
    for session, text in (("", "needs a name"), ("x" * 81, "80 printable"), ("a\x1bb", "80 printable")):
        with Client(*attach(hub.run, "operator"), session=session) as client:
            with pytest.raises(RefusedError, match=text):
                client.take_lease()
            if session:
                with pytest.raises(RefusedError, match=text):
                    client.command("sync")
    with Client(*attach(hub.run, "operator"), session="") as client:
        client.command("sync")
        assert holder(client) == NO_LEASE, "who gives no name takes no hold"


def test_a_process_has_a_name_of_its_own() -> None:
    assert own_session().endswith(f":{os.getpid()}")
    assert 0 < len(own_session()) <= wire.MAX_SESSION


def test_the_verbs_of_the_command_line(
    hub: Hub, two: tuple[Client, Client], capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = two
    run = ["--run", str(hub.run.path)]
    assert main(["pause", *run]) == OK
    assert holder(first) == NO_LEASE, "one that has said its word leaves nothing behind"
    first.command("resume")
    for words in (["sync"], ["pause"], ["resume"], ["stop"], ["fix", "set", "fp32-lm-head", "on"]):
        capsys.readouterr()
        assert main([*words, *run]) == FAILED
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert "operator local (ana@box:1) has held the lease since" in said.err
        assert said.err.endswith("that is what --take-over does\n")
    assert main(["sync", "--take-over", *run]) == OK
    assert f"taken over from operator local ({ONE})" in capsys.readouterr().err
    assert holder(first) == NO_LEASE
    first.command("pause")
    assert holder(first).session == ONE


def test_who_follows_a_command_to_its_end_is_there(
    hub: Hub, two: tuple[Client, Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    number = first.command("sync", timeout=60)
    monkeypatch.setattr("driftline.consumer.rpc.RENEW_SECONDS", 0.05)
    renewed: list[bool] = []
    monkeypatch.setattr(first, "renew_lease", lambda: renewed.append(Client.renew_lease(first)))
    with pytest.raises(ClientError, match="was not done"):
        first.wait(number, 0.5)
    assert renewed
    assert all(renewed)
    second.take_lease()
    renewed.clear()
    with pytest.raises(ClientError, match="was not done"):
        first.wait(number, 0.5)
    assert renewed == [False], "and where it was lost, it is not asked for again"


def test_a_console_sees_who_holds_it_and_takes_over(hub: Hub, two: tuple[Client, Client]) -> None:
    first, _ = two
    source, model = LiveSource(LocalRun(hub.run), operate=True), RunModel()

    def seen() -> str:
        source.wait(0.05)
        for stamped in source.drain(100):
            model.apply(stamped)
        return model.writer.session if model.writer is not None else ""

    try:
        first.command("pause")
        until(lambda: seen() == ONE, "the console to see who it is")
        with pytest.raises(source_module.LeaseHeldError, match="has held the lease since"):
            source.command("resume", {}, -1)
        assert source.take_lease() == f"operator local ({ONE})"
        until(lambda: seen() == source.session, "the console to see itself")
        source.command("resume", {}, -1)
        source.release_lease()
        until(lambda: seen() == "", "the run to be free")
    finally:
        source.close()
    watching = LiveSource(LocalRun(hub.run), operate=False)
    try:
        assert watching.session == ""
        with pytest.raises(source_module.SourceError, match="may not hold the lease"):
            watching.take_lease()
    finally:
        watching.close()
