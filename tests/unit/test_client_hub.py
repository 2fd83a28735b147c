"""A real hub, real clients: who may do what, and the life of a command, whichever process dies meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from driftline import wire
from driftline.client import Client, ClientError, Feed, RefusedError, attach
from driftline.frames import (
    Ack,
    Command,
    EngineFix,
    EngineState,
    Event,
    FixState,
    Lease,
    Metrics,
    RunState,
    Stamped,
    Tokens,
)
from driftline.journal.journal import read
from driftline.keys import Keys, add, load, new_pair
from driftline.producer.probe import Probe
from driftline.rundir import RunDir
from driftline.sockets import Socket, configure, secure_client, wildcard
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("hub"))
    hub.start()
    yield hub
    hub.end()


@pytest.fixture
def own_hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path)
    hub.start()
    yield hub
    hub.end()


@pytest.fixture
def trainer(hub: Hub) -> Iterator[Probe]:
    probe = Probe("trainer", hub.run)
    until(lambda: probe.connected, "the trainer to connect")
    yield probe
    probe.close(0.1)


@pytest.fixture
def operator(hub: Hub) -> Iterator[Client]:
    with Client(*attach(hub.run, "operator")) as client:
        yield client


def test_a_script_that_emits_and_ends_at_once_loses_nothing(own_hub: Hub) -> None:
    for step in range(5):
        probe = Probe("trainer", own_hub.run)
        probe.emit({"reward/mean": 0.5}, step=step)
        probe.close(PATIENCE)
    frames = [stamped.frame() for stamped in read(own_hub.run.journal)]
    assert [frame.step for frame in frames if isinstance(frame, Metrics)] == list(range(5))


# The hub process


def test_a_second_hub_is_refused_at_once_and_the_first_goes_on(hub: Hub, operator: Client) -> None:
    start = time.monotonic()
    second = subprocess.run(
        [sys.executable, "-m", "driftline.hub", str(hub.run.path)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert second.returncode == 3
    assert second.stderr == f"driftline hub: run {hub.run.id} already has a hub (process {hub.process.pid})\n"
    assert time.monotonic() - start < 10
    assert operator.ping() > 0


@pytest.mark.parametrize("address", ["0.0.0.0", "*", "::", "[::]", ""])
def test_every_interface_is_refused(tmp_path: Path, address: str) -> None:
    command = [sys.executable, "-m", "driftline.hub", str(tmp_path / "r"), f"--bind={address}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "every interface is not allowed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("address", "everywhere"),
    [
        *[(address, True) for address in ("0.0", "0x0", "00.0.0.0", "0000::", "::ffff:0.0.0.0", " 0.0.0.0")],
        *[(address, False) for address in ("127.0.0.1", "::1", "[::1]", "10.0.0.0", "eth0", "\0")],
    ],
)
def test_every_interface_is_known_in_every_spelling(address: str, everywhere: bool) -> None:
    assert wildcard(address) is everywhere


def test_a_hub_can_be_reached_over_ipv6(tmp_path: Path) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    hub = Hub(tmp_path, "--bind", "::1")
    try:
        connection = hub.start()
        keys = load(hub.run, "viewer")
        with Probe("trainer", hub.run) as probe, Client(connection, keys) as client, Feed(connection, keys) as feed:
            probe.emit({"a": 1.0}, step=1)
            assert probe.flush(PATIENCE)
            assert client.snapshot().head == 1
            assert feed.wait(PATIENCE)
    finally:
        hub.end()


@pytest.mark.parametrize(
    ("options", "text"),
    [(["--bind", "203.0.113.7"], "cannot listen on 203.0.113.7"), (["--parent-pid", "4194304"], "no such process")],
)
def test_a_hub_that_cannot_run_says_why(tmp_path: Path, options: list[str], text: str) -> None:
    command = [sys.executable, "-m", "driftline.hub", str(tmp_path / "r"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_hub_imports_nothing_heavy() -> None:
    code = (
        "import sys, driftline.hub.server, driftline.hub.__main__\n"
        "heavy = {'torch', 'ray', 'vllm', 'textual', 'polars', 'asyncio'} & set(sys.modules)\n"
        "print(','.join(sorted(heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert set(done.stdout.strip().split(",")) <= {"", "asyncio"}  # pyzmq imports asyncio by itself


def test_a_hub_ends_when_asked_and_leaves_the_run_readable(own_hub: Hub) -> None:
    probe = Probe("trainer", own_hub.run)
    probe.emit({"a": 1.0}, step=1)
    assert probe.flush(PATIENCE)
    probe.close()
    assert own_hub.stop() == 0
    assert not own_hub.run.live()
    assert own_hub.run.connection_file.exists()
    assert [s.frame().step for s in read(own_hub.run.journal)] == [1]
    with pytest.raises(ClientError, match=r"^no live hub at .*ended, or was never started$"):
        attach(own_hub.run, "viewer")


def test_ctrl_c_does_not_end_a_hub_with_a_parent(tmp_path: Path) -> None:
    hub = Hub(tmp_path, "--parent-pid", str(os.getpid()))
    try:
        hub.start()
        os.kill(hub.process.pid, signal.SIGINT)
        with Client(*attach(hub.run, "viewer")) as client:
            assert client.ping() > 0
        assert hub.stop() == 0
    finally:
        hub.end()


@pytest.mark.slow
def test_a_hub_outlives_its_parent_until_the_producers_are_gone(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    hub = Hub(tmp_path, "--parent-pid", str(parent.pid))
    try:
        hub.start()
        probe = Probe("trainer", hub.run)
        until(lambda: probe.connected, "the probe to connect")
        parent.kill()
        parent.wait()
        time.sleep(6)  # longer than the hub waits for an orphan without producers
        probe.emit({"a": 1.0}, step=1)
        assert probe.flush(PATIENCE), "a hub with a producer stays"
        probe.close()
        assert hub.process.wait(PATIENCE) == 0
    finally:
        parent.kill()
        parent.wait()
        hub.end()


# Who may do what


def test_unknown_key_is_refused_with_a_sentence(hub: Hub) -> None:
    with Client(hub.run.connection(), new_pair()) as client, pytest.raises(RefusedError, match="not know this key"):
        client.ping()
    feed = Feed(hub.run.connection(), new_pair())
    try:
        until(lambda: "does not know this key" in feed.status.error, "the feed to say so")
        assert feed.status.received == 0
    finally:
        feed.close()
    stranger = Probe("trainer", connection=hub.run.connection(), keys=new_pair())
    stranger.emit({"a": 1.0}, step=1)
    assert not stranger.flush(0.5)
    assert not stranger.connected
    stranger.close(0.1)


def test_plaintext_and_a_wrong_server_key_get_nothing(hub: Hub) -> None:
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    wrong = context.socket(zmq.DEALER)
    try:
        secure_client(wrong, new_pair().public, load(hub.run, "operator"))
        for socket in (plain, wrong):
            socket.linger = 0
            socket.connect(hub.run.connection().rpc)
            socket.send(wire.pack(wire.PingRequest(1)))
            assert socket.poll(300) == 0
    finally:
        context.destroy(linger=0)


def test_viewer_may_watch_but_not_command(hub: Hub) -> None:
    with Client(*attach(hub.run, "viewer")) as client:
        assert client.snapshot().role == "viewer"
        head = client.page(1).head
        with pytest.raises(RefusedError, match=r"this key may not send commands: role viewer$"):
            client.command("stop")
        assert client.page(1).head == head, "a refused command leaves nothing behind"


def test_producer_may_neither_watch_nor_command_nor_subscribe(hub: Hub, trainer: Probe) -> None:
    keys = load(hub.run, "trainer")
    with Client(hub.run.connection(), keys) as client:
        for ask in (client.ping, client.snapshot, lambda: client.page(1), lambda: client.command("stop")):
            with pytest.raises(RefusedError, match="this key may not watch: role producer"):
                ask()
    feed = Feed(hub.run.connection(), keys)
    try:
        trainer.emit({"a": 1.0}, step=1)
        assert trainer.flush(PATIENCE)
        assert not feed.wait(0.5)
        assert feed.status.head == 0, "not even a beacon"
    finally:
        feed.close()


def test_viewer_and_operator_may_not_produce_and_names_belong_to_keys(hub: Hub) -> None:
    for who, name in (("viewer", "trainer"), ("operator", "trainer"), ("engine", "trainer"), ("trainer", "engine-0")):
        probe = Probe(name, hub.run, keys=who)
        probe.emit({"forged": 1.0}, step=1)
        assert not probe.flush(0.3), f"key {who} as {name}"
        probe.close(0.1)
    assert not [s for s in read(hub.run.journal) if isinstance(f := s.frame(), Metrics) and "forged" in f.values]


def test_a_grant_taken_away_counts_at_once(own_hub: Hub) -> None:
    authorized = own_hub.run.keys / "authorized"
    with Client(*attach(own_hub.run, "operator")) as client:
        client.ping()
        lines = [line for line in authorized.read_text().splitlines() if not line.startswith("operator")]
        authorized.write_text("\n".join(lines) + "\n")

        def refused() -> bool:
            try:
                client.ping()
            except RefusedError:
                return True
            return False

        until(refused, "the revoked key to be refused on its open connection")


def test_garbage_on_every_socket_changes_nothing(hub: Hub, operator: Client, trainer: Probe) -> None:
    connection = hub.run.connection()
    context = zmq.Context()
    messages = [
        [b""],
        [b"D"],
        [b"D" + b"\xff" * 40],
        [b"P"],
        [b"H\xc1"],
        [b"H" + b"\x91" * 5000],
        [b"x" * 60_000],
        [b"a", b"b", b"c"],
        [b"\x93\xa7command\x01\x02"],
    ]
    try:
        for endpoint, who in ((connection.ingest, "engine"), (connection.rpc, "operator")):
            socket: Socket = context.socket(zmq.DEALER)
            configure(socket, max_message=1 << 20, send_frames=100, receive_frames=100)
            secure_client(socket, connection.server, load(hub.run, who))
            socket.connect(endpoint)
            for message in messages:
                socket.send_multipart(message)
        subscriber: Socket = context.socket(zmq.XSUB)
        configure(subscriber, max_message=1 << 20, send_frames=100, receive_frames=100)
        add(hub.run, "sly", "viewer", "sly")  # of its own, because it will be banned
        until(lambda: "viewer sly" in hub.run.audit.read_text(), "the hub to know the key")
        secure_client(subscriber, connection.server, load(hub.run, "sly"))
        subscriber.connect(connection.live)
        for message in (b"", b"\x07hello", b"\x01" + b"t" * 900):
            subscriber.send(message)
        trainer.emit({"a": 1.0}, step=1)
        assert trainer.flush(PATIENCE)
        assert operator.ping() > 0
        assert hub.process.poll() is None
    finally:
        context.destroy(linger=0)


def test_a_bad_frame_becomes_an_event_and_the_rest_goes_on(hub: Hub, trainer: Probe) -> None:
    head = Client(*attach(hub.run, "viewer"))
    start = head.snapshot().head
    trainer._ring.add(b"\x92\xa1zjunk")
    trainer.send(Command("1", "stop"))  # a producer may not order anything
    trainer.ack("never-heard-of", "applied")
    trainer.emit({"a": 1.0}, step=5)
    assert trainer.flush(PATIENCE)
    frames = [s.frame() for s in head.page(start + 1).frames]
    head.close()
    bad = [f.kind for f in frames if isinstance(f, Event)]
    assert bad == ["hub.bad_frame", "hub.refused", "hub.bad_frame"]
    assert isinstance(frames[-1], Metrics)
    assert not [f for f in frames if isinstance(f, Command | Ack)]


# Snapshot and pages


def test_snapshot_holds_the_newest_of_each(hub: Hub, trainer: Probe, operator: Client) -> None:
    for step in range(3):
        trainer.send(RunState("r", "running", step, 9, step, 1.0))
        for engine in ("engine-0", "engine-1"):
            trainer.send(EngineState(engine, "running", step, 1.0))
        engines = (EngineFix("engine-0", "on", "live"),)
        trainer.send(FixState("fp32-lm-head", "on", step, "operator local", 1.0, "live", engines))
    assert trainer.flush(PATIENCE)
    snapshot = operator.snapshot()
    frames = [s.frame() for s in snapshot.states]
    assert {type(f) for f in frames} - {Lease} == {RunState, EngineState, FixState}
    assert [f.step for f in frames if isinstance(f, RunState)] == [2]
    assert sorted(f.engine for f in frames if isinstance(f, EngineState)) == ["engine-0", "engine-1"]
    assert all(f.version == 2 for f in frames if isinstance(f, EngineState))
    assert [s.seq for s in snapshot.states] == sorted(s.seq for s in snapshot.states)
    assert snapshot.run == hub.run.id
    # A fix command for a generation that is over is refused with both numbers.
    with pytest.raises(RefusedError, match="generation 2, the command was made for 1"):
        operator.command("fix.set", {"fix": "fp32-lm-head", "value": "off"}, generation=1)


def test_pages_are_bounded_and_tokens_are_left_out_on_request(hub: Hub, trainer: Probe, operator: Client) -> None:
    start = operator.snapshot().head + 1
    import numpy as np

    n = 60_000
    arrays = {k: np.arange(n) for k in ("ids", "seq", "position", "token_version", "rollout", "trainer")}
    for step in range(4):
        trainer.tokens(step=step, version=1, **arrays)
        trainer.emit({"a": 1.0}, step=step)
    assert trainer.flush(PATIENCE)
    first = operator.page(start)
    assert len(first.frames) < 8, "four megabytes are enough for one page"
    assert first.next == first.frames[-1].seq + 1
    got, at = [], start
    while at <= first.head:
        page = operator.page(at)
        got += page.frames
        at = page.next
    assert [s.seq for s in got] == list(range(start, first.head + 1))
    assert [type(s.frame()) for s in got] == [Tokens, Metrics] * 4
    plain = operator.page(start, tokens=False)
    assert [type(s.frame()) for s in plain.frames] == [Metrics] * 4
    assert plain.next == first.head + 1
    assert len(operator.page(start, 2).frames) == 2
    assert operator.page(first.head + 1).frames == ()

    connection, keys = attach(hub.run, "viewer")
    with Feed(connection, keys, start) as plainly, Feed(connection, keys, start, tokens=True) as fully:
        until(lambda: plainly.status.connected and plainly.status.behind == 0, "the feed without tokens")
        until(lambda: fully.status.connected and fully.status.behind == 0, "the feed with tokens")
        trainer.tokens(step=9, version=1, **arrays)
        trainer.emit({"live": 1.0}, step=9)
        assert trainer.flush(PATIENCE)
        head = first.head + 2
        until(lambda: plainly.status.received == fully.status.received == head, "the live frames")
        assert [s.seq for s in fully.drain()] == list(range(start, head + 1))
        assert [type(s.frame()) for s in plainly.drain()] == [Metrics] * 5
        assert (plainly.status.behind, fully.status.behind) == (0, 0)


def test_a_feed_counts_no_frame_before_it_can_be_drained(
    hub: Hub, trainer: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sees that nothing is behind, drains and ends, has everything."""
    early: list[tuple[int, int]] = []
    deliver = Feed._deliver

    def watched(feed: Feed, frames: list[tuple[Stamped, int]]) -> None:
        early.extend(
            (stamped.seq, feed.status.received) for stamped, _ in frames if feed.status.received >= stamped.seq
        )
        deliver(feed, frames)

    monkeypatch.setattr(Feed, "_deliver", watched)
    connection, keys = attach(hub.run, "viewer")
    with Feed(connection, keys) as plain, Feed(connection, keys, tokens=True) as full:
        for feed in (plain, full):
            until(lambda feed=feed: feed.status.connected and feed.status.behind == 0, "the feeds to be live")
        for step in range(200):
            trainer.emit({"a": 1.0}, step=step)
        assert trainer.flush(PATIENCE)
        with Client(connection, keys) as client:
            head = client.snapshot().head
        for feed in (plain, full):
            until(lambda feed=feed: feed.status.received >= head, "the last of them")
            assert feed.drain(100_000)[-1].seq == head
    assert early == []


# Commands


def test_command_from_wish_to_applied(hub: Hub, trainer: Probe, operator: Client) -> None:
    start = operator.snapshot().head
    number = operator.command("fix.set", {"fix": "fp32-lm-head", "value": "on"})
    command = trainer.commands.get(timeout=PATIENCE)
    assert (command.id, command.verb, command.issuer) == (number, "fix.set", "operator local")
    trainer.ack(number, "accepted")
    trainer.ack(number, "applied", "on both engines", {"engines": 2})
    acks: list[Ack] = []
    final = operator.wait(number, PATIENCE, acks.append)
    assert (final.state, final.detail, final.data) == ("applied", "on both engines", {"engines": 2})
    assert [a.state for a in acks] == ["sent", "accepted", "applied"]
    page = operator.page(start + 1)
    frames = [(s.producer, type(s.frame())) for s in page.frames]
    expected = [("hub", Command), ("hub", Ack), ("trainer", Ack), ("trainer", Ack)]
    assert frames == [("hub", Lease), *expected], "everybody sees all of it, and who is at the controls"


@pytest.mark.parametrize(
    ("verb", "args", "text"),
    [
        ("fix.set", {"fix": "no-such-fix", "value": "on"}, "unknown fix 'no-such-fix'; allowed: processed-logprobs"),
        ("fix.set", {"fix": "fp32-lm-head", "value": "maybe"}, "'maybe' is not a value; allowed: off, on"),
        ("fix.set", {"fix": "fp32-lm-head"}, "takes the arguments fix and value"),
        ("correction.set", {"value": "ppo"}, "unknown correction 'ppo'; allowed: off, tis, sequence-mask, icepop"),
        ("correction.set", {"fix": "tis"}, "correction.set takes the argument value"),
        ("shadow.set", {"share": "2"}, "'2' is no fraction; allowed: 0 to 1"),
        ("shadow.set", {"value": "1"}, "shadow.set takes the argument share"),
        ("diagnose", {"rows": "1"}, "diagnose takes no argument but tokens"),
        ("diagnose", {"tokens": "1", "cancel": "c1"}, "or cancel alone"),
        ("fix.set", {"fix": "fp32-lm-head", "value": "on", "who": "me"}, "and engine where one alone is meant"),
        ("mark", {"text": "x" * 2000}, "1024 characters"),
        ("rm -rf", {}, "not a command"),
        ("mark", {"text": "x" * 100_000}, "at most 32768 bytes"),
    ],
)
def test_an_unfit_command_is_refused(operator: Client, verb: str, args: dict[str, str], text: str) -> None:
    with pytest.raises(ClientError) as caught:
        operator.command(verb, args)  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_a_forged_issuer_does_not_stick_and_an_id_counts_once(hub: Hub, trainer: Probe, operator: Client) -> None:
    command = Command("ab" * 16, "mark", {"text": "x"}, -1, time.time() + 60, "operator other")
    for _ in range(20):
        operator._ask(wire.CommandReply, lambda number: wire.CommandRequest(number, command))
    assert trainer.commands.get(timeout=PATIENCE).issuer == "operator local"
    trainer.ack(command.id, "applied")
    operator.wait(command.id, PATIENCE)
    assert trainer.commands.empty()
    assert sum(1 for s in read(hub.run.journal) if getattr(s.frame(), "id", "") == command.id) == 3


def test_a_command_waits_for_the_trainer_or_expires(own_hub: Hub) -> None:
    with Client(*attach(own_hub.run, "operator")) as client:
        short = client.command("pause", timeout=1.0)
        long = client.command("sync", timeout=60)
        acks: list[Ack] = []
        assert client.wait(short, PATIENCE, acks.append).state == "expired"
        assert [a.state for a in acks] == ["queued", "expired"]
        with Probe("trainer", own_hub.run) as probe:
            command = probe.commands.get(timeout=PATIENCE)
            assert command.id == long
            probe.ack(long, "applied")
            assert client.wait(long, PATIENCE).state == "applied"
            assert probe.commands.empty()


@pytest.mark.slow
def test_commands_survive_kills_of_the_hub_and_take_effect_once(own_hub: Hub) -> None:
    effects: list[str] = []
    probe: Probe

    def apply(command: Command) -> None:
        effects.append(command.id)
        time.sleep(0.02)
        probe.ack(command.id, "applied")

    probe = Probe("trainer", own_hub.run, on_command=apply)
    until(lambda: probe.connected, "the trainer to connect")
    sent: list[str] = []
    try:
        with Client(*attach(own_hub.run, "operator")) as client:
            for round_ in range(4):
                sent += [client.command("mark", {"text": str(round_)}, timeout=60) for _ in range(5)]
                own_hub.kill()
                own_hub.start()
            for number in sent:
                assert client.wait(number, PATIENCE).state == "applied"
        assert sorted(effects) == sorted(sent)
    finally:
        probe.close(0.1)


def test_a_callback_that_raises_fails_the_command_not_the_trainer(own_hub: Hub) -> None:
    def broken(_: Command) -> None:
        raise RuntimeError("no such engine")

    with Probe("trainer", own_hub.run, on_command=broken) as probe, Client(*attach(own_hub.run, "operator")) as client:
        until(lambda: probe.connected, "the trainer to connect")
        ack = client.wait(client.command("sync"), PATIENCE)
        assert (ack.state, ack.detail) == ("failed", "RuntimeError: no such engine")
        probe.emit({"a": 1.0}, step=1)
        assert probe.flush(PATIENCE)


def test_wait_gives_up_in_time(operator: Client, trainer: Probe) -> None:
    number = operator.command("mark", {"text": "never"}, timeout=60)
    with pytest.raises(ClientError, match=r"was not done within 0\.2 s; its state is 'sent'"):
        operator.wait(number, 0.2)
    with pytest.raises(ClientError, match="does not know command"):
        operator.wait("f" * 32, 1.0)
    trainer.commands.get(timeout=PATIENCE)
    trainer.ack(number, "failed")
    operator.wait(number, PATIENCE)


def test_a_dead_hub_gets_a_sentence(own_hub: Hub) -> None:
    connection, keys = attach(own_hub.run, "operator")
    own_hub.kill()
    with Client(connection, keys) as client, pytest.raises(ClientError, match=r"does not answer \(waited 0\.4 s"):
        client._ask(wire.Pong, lambda number: wire.PingRequest(number), 0.4)
    with pytest.raises(ClientError, match="no live hub"):
        attach(own_hub.run)


def test_text_from_the_wire_is_safe_to_show(hub: Hub, trainer: Probe, operator: Client) -> None:
    start = operator.snapshot().head
    trainer.event("bad\x1b[2Jkind", "one\ntwo\x1b]0;pwned\x07 \u202egnp.exe", data="\x9b31m", half="a\ud800b")
    trainer.emit({"na\x1bme": 1.0}, step=1)
    assert trainer.flush(PATIENCE)
    event, metrics = (s.frame() for s in operator.page(start + 1).frames)
    assert event.kind == "bad[2Jkind"
    assert event.text == "one↵two]0;pwned gnp.exe"
    assert event.data["data"] == "31m"
    assert event.data["half"] == "a?b"
    assert metrics.values == {"name": 1.0}


def test_keys_of_another_run_do_not_open_this_one(hub: Hub, own_hub: Hub) -> None:
    other: RunDir = own_hub.run
    foreign: Keys = load(other, "operator")
    with Client(hub.run.connection(), foreign) as client, pytest.raises(RefusedError, match="does not know this key"):
        client.ping()
