"""The live socket against a subscriber who sends what no client of ours can send."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from driftline import rundir, wire
from driftline.audit import entries
from driftline.client import Client, Feed, RefusedError, attach
from driftline.frames import Metrics
from driftline.hub import auth, server
from driftline.hub.auth import GrantTable
from driftline.hub.effects import Publish
from driftline.hub.live_socket import UNKNOWN_TOPICS_ALLOWED, LiveSocket
from driftline.keys import Grant, add, load, make_run_keys
from driftline.producer.probe import Probe
from driftline.rundir import RunDir
from driftline.sockets import Context, Socket, configure, secure_client
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def test_no_client_gets_the_subscription_of_another(context: Context) -> None:
    """One sends a message that is no subscription, another asks for tokens, a third for metrics: all at once.

    libzmq decides by order; without care the third gets the tokens that the second was allowed, whichever client it is.
    """
    operator = Grant("operator", "o", "o")

    def make() -> Socket:
        socket: Socket = context.socket(zmq.XPUB)
        socket.linger = 0
        return socket

    live = LiveSocket(make, lambda frame: operator, "127.0.0.1", "")
    sly, honest, accomplice = (context.socket(zmq.XSUB) for _ in range(3))
    for one in (sly, honest, accomplice):
        one.linger = 0
        one.connect(live.endpoint)
    time.sleep(0.3)
    for one, message in ((sly, b"\5"), (honest, b"\1tokens"), (accomplice, b"\1metrics")):
        one.send(message)
        time.sleep(0.2)  # so that they arrive in this order
    asked = live.subscriptions()
    live.publish(Publish(b"tokens", bytes(wire.LIVE_HEAD.size), b""))
    assert not accomplice.poll(300), "the allowed subscription of another"
    assert (asked.offenders, asked.out_of_step) == ({"o"}, True)
    live.reopen()

    def heard() -> bool:
        live.subscriptions()
        live.publish(Publish(b"tokens", bytes(wire.LIVE_HEAD.size), b""))
        assert not accomplice.poll(1)
        return bool(honest.poll(20))

    until(heard, "the honest one to hear")


def test_who_asks_for_beacons_has_come_and_who_asks_for_else_has_not(context: Context) -> None:
    def make() -> Socket:
        socket: Socket = context.socket(zmq.XPUB)
        socket.linger = 0
        return socket

    live = LiveSocket(make, lambda frame: Grant("viewer", "v", "v"), "127.0.0.1", "")
    one = context.socket(zmq.XSUB)
    one.linger = 0
    one.connect(live.endpoint)
    for message, new in ((b"\1metrics", False), (b"\1beacon", True), (b"\0beacon", False), (b"\1beacons", False)):
        one.send(message)
        until(lambda: bool(live.socket.poll(0)), "the message to arrive")
        assert live.subscriptions().new_listener == new, message


def test_who_has_come_hears_a_beacon_before_the_next_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BEACON_SECONDS", 3600.0)
    run = rundir.create(tmp_path, "test")
    hub = server.Server(run)
    thread = threading.Thread(target=hub.run)
    thread.start()
    try:
        until(run.connection_file.exists, "the hub to be there")
        for _ in range(3):
            with Feed(run.connection(), load(run, "viewer")) as feed:
                until(lambda: feed.status.connected, "the hub to be heard")
    finally:
        hub.stopping = True
        thread.join(PATIENCE)
        hub.close()


def test_a_ban_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path)
    make_run_keys(run)
    table, public = GrantTable(run.keys / "authorized"), load(run, "viewer").public
    before = table.grant(public)
    assert table.ban(public) == before is not None
    assert table.grant(public) is None
    assert table.grant(load(run, "operator").public) is not None
    monkeypatch.setattr(auth.time, "monotonic", lambda: time.time() + 1e9)
    assert table.grant(public) == before


@pytest.mark.parametrize("how", ["no subscription", "topics that there are not"])
def test_who_breaks_the_protocol_is_banned_and_the_others_lose_nothing(hub: Hub, context: Context, how: str) -> None:
    add(hub.run, "sly", "viewer", "sly", tokens=False)
    keys, connection = load(hub.run, "sly"), hub.run.connection()

    def known() -> bool:
        try:
            with Client(connection, keys) as client:
                return client.ping() > 0
        except RefusedError:
            return False

    until(known, "the new key")
    seen: list[int] = []
    with Probe("trainer", hub.run) as probe, Feed(*attach(hub.run, "viewer"), refresh=hub.run.connection) as feed:
        until(lambda: feed.status.connected, "the feed")
        sly: Socket = context.socket(zmq.XSUB)
        configure(sly, max_message=1 << 20, send_frames=1000, receive_frames=10)
        secure_client(sly, connection.server, keys)
        sly.connect(connection.live)
        for step in range(300):
            probe.emit({"a": 1.0}, step=step)
            if step == 100:
                for number in range(2 * UNKNOWN_TOPICS_ALLOWED if how != "no subscription" else 1):
                    sly.send(b"\1topic-%d" % number if how != "no subscription" else b"\5hello")
        until(lambda: not known(), "the ban")
        assert probe.flush(PATIENCE)

        def there() -> bool:
            # The hub adds an event of its own about the key that it does not know any more.
            frames = (s.frame() for s in feed.drain() if s.producer == "trainer")
            seen.extend(frame.step for frame in frames if isinstance(frame, Metrics))
            return len(seen) >= 300

        until(there, "the others' frames")
        assert seen == list(range(300))
    assert hub.stop() == 0
    (entry,) = [entry for entry in entries(hub.run.audit) if entry.kind == "refused.banned"]
    assert entry.who == "viewer sly"
