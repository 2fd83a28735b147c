"""Fault 15 through the sockets: mutated messages on each of the hub's three endpoints, over CURVE, at full speed."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable

import psutil
import pytest
import zmq

from driftline import wire
from driftline.audit import entries
from driftline.client import Client, Feed, attach
from driftline.frames import DECODE_ERRORS, SCHEMA, TOPIC, Command, Metrics, encode
from driftline.hub.effects import Publish
from driftline.hub.live_socket import LiveSocket
from driftline.journal.journal import Damage, read
from driftline.keys import Grant, Keys, add, load
from driftline.producer.probe import Probe
from driftline.sockets import Context, configure, secure_client
from tests.faults.scale import dice, scaled
from tests.faults.test_bytes import FRAMES, mutated
from tests.unit.hubs import PATIENCE, Hub, until

COMMAND = Command("ab" * 16, "fix.set", {"fix": "fp32-lm-head", "value": "on"}, -1, 4e9)
ASKS = tuple(
    wire.pack(ask)
    for ask in (
        wire.SnapshotRequest(1), wire.PageRequest(1, 1, 4), wire.CommandRequest(1, COMMAND),
        wire.LeaseRequest(1, "a@b:1", "take"), wire.AcksRequest(1, "ab" * 16), wire.PingRequest(1),
    )
)  # fmt: skip
HELLO = wire.HELLO + wire.pack(wire.Hello("fuzz", 7, 1, 1, 0, SCHEMA))
INGEST = (
    *(wire.DATA_HEAD.pack(wire.DATA, 7, 1, 0) + encode(frame) for frame in FRAMES),
    HELLO, wire.PING_HEAD.pack(wire.PING, 7, 0), wire.LOST + wire.pack(wire.Lost(7, {"tokens": 1})),
)  # fmt: skip
GREETING = wire.HELLO + wire.pack(wire.Hello("fuzz", 7, 1, 77, 0, SCHEMA)), wire.pack(wire.Welcome(1, 77, 0))[:-1]
LAST = wire.pack(wire.PingRequest(2**40)), wire.pack(wire.Pong(2**40, 0.0))[:-9]
TOPICS = tuple(b"\1" + topic for topic in sorted({*TOPIC.values(), wire.BEACON, b""}))


def is_request(message: bytes) -> bool:
    try:
        wire.request_decoder.decode(message)
    except DECODE_ERRORS:
        return False
    return True


class Flood(threading.Thread):
    """Sends `count` messages of `make` to an endpoint as fast as the hub takes them; throws the answers away.

    `last` is a good message and its answer: once that has come, everything before it has been handled.
    """

    def __init__(
        self,
        kind: int,
        endpoint: str,
        server: str,
        keys: Keys,
        count: int,
        make: Callable[[], bytes],
        last: tuple[bytes, bytes] = (b"", b""),
    ) -> None:
        super().__init__()
        self._last, self._answer = last
        self._context: Context = zmq.Context()
        self._socket = self._context.socket(kind)
        configure(self._socket, max_message=1 << 25, send_frames=1000, receive_frames=100)
        secure_client(self._socket, server, keys)
        self._socket.connect(endpoint)
        self._count, self._make = count, make
        self.sent = 0

    def run(self) -> None:
        deadline = time.monotonic() + 300
        while self.sent < self._count and time.monotonic() < deadline:
            message = self._make()
            while not self._socket.poll(100, zmq.POLLOUT) and time.monotonic() < deadline:
                pass
            self._socket.send(message)
            self.sent += 1
            with contextlib.suppress(zmq.Again):
                while True:
                    self._socket.recv_multipart(zmq.NOBLOCK)

        while self._last and time.monotonic() < deadline:
            self._socket.send(self._last)
            while self._socket.poll(1000):
                if self._socket.recv_multipart(zmq.NOBLOCK)[-1].startswith(self._answer):
                    return

    def close(self) -> None:
        self.join()
        self._context.destroy(linger=2000)


@pytest.mark.timeout(900)
def test_f15_mutated_messages_on_every_socket_end_nothing(hub: Hub) -> None:
    """The hub outlives them, handles every one, counts every one, grows by little, and serves the others meanwhile.

    Who sends mutated subscriptions is banned after a few; what the rest would do is the next test's.
    """
    count, run = scaled(20_000, 1_000_000), hub.run
    rolls = dice("f15 sockets")
    add(run, "fuzz", "producer", "fuzz")
    add(run, "fuzzer", "operator", "fuzzer")
    add(run, "watcher", "operator", "watcher")
    there = run.connection()
    until(lambda: [e.kind for e in entries(run.audit)].count("key.added") == 3, "the hub to have read the new keys")
    assert hub.process is not None
    process = psutil.Process(hub.process.pid)

    def maker(seeds: tuple[bytes, ...], seed: int) -> Callable[[], bytes]:
        own = random.Random(seed)
        # Mutating is slower than the hub is: a stock of mutations, each sent with a fresh change of its own.
        stock = [mutated(own, own.choice(seeds)) for _ in range(scaled(5_000, 50_000))]

        def make() -> bytes:
            data = bytearray(own.choice(stock))
            if data and own.random() < 0.3:
                data[own.randrange(len(data))] ^= 1 << own.randrange(8)
            return bytes(data)

        return make

    hello = maker(INGEST, rolls.randrange(2**32))
    number = 0

    def ingest() -> bytes:
        nonlocal number
        number += 1
        return HELLO if number % 100 == 1 else hello()

    bad_requests = 0
    ask = maker(ASKS, rolls.randrange(2**32))

    def request() -> bytes:
        nonlocal bad_requests
        message = ask()
        bad_requests += not is_request(message)
        return message

    floods = (
        Flood(zmq.DEALER, there.ingest, there.server, load(run, "fuzz"), count, ingest, GREETING),
        Flood(zmq.DEALER, there.rpc, there.server, load(run, "fuzzer"), count, request, LAST),
        Flood(zmq.XSUB, there.live, there.server, load(run, "watcher"), count, maker(TOPICS, rolls.randrange(2**32))),
    )
    steps = 0
    with Probe("trainer", run) as probe, Feed(*attach(run, "viewer")) as feed, Client(*attach(run, "viewer")) as client:
        until(lambda: probe.connected and feed.status.connected, "the others")
        start, before = time.monotonic(), 0
        for flood in floods:
            flood.start()
        trips = []
        while any(flood.is_alive() for flood in floods):
            probe.emit({"a": 1.0}, step=steps)
            steps += 1
            trips.append(client.ping())
            time.sleep(0.05)
            if not before and floods[0].sent > count // 10:
                before = process.memory_info().rss
        took = time.monotonic() - start
        assert [flood.sent for flood in floods] == [count] * 3
        for flood in floods:
            flood.close()
        assert probe.flush(PATIENCE)
        grown = (process.memory_info().rss - before) / 2**20
        trips.sort()
    assert hub.process.poll() is None
    assert hub.stop() == 0
    assert "was not handled" not in hub.log.read_text()
    malformed = {"fuzz": 0, "fuzzer": 0}
    assert {e.who for e in entries(run.audit) if e.kind == "refused.banned"} == {"operator watcher"}
    for entry in entries(run.audit):
        if entry.kind == "refused.malformed":
            malformed[entry.who.split()[1]] += int(entry.data["count"])
    damage = Damage()
    mine = (s.frame() for s in read(run.journal, damage=damage) if s.producer == "trainer")
    own = [frame.step for frame in mine if isinstance(frame, Metrics)]
    print(
        f"f15 sockets: {2 * count} messages in {took:.0f} s; malformed: {malformed['fuzz']} to ingest, "
        f"{malformed['fuzzer']} of {bad_requests} requests; others' ping p99 {trips[len(trips) * 99 // 100] * 1e3:.0f} "
        f"ms; hub grew by {grown:.1f} MiB"
    )
    assert own == list(range(steps)), "the others lose nothing"
    assert damage.bytes == 0
    assert malformed["fuzzer"] == bad_requests, "every one that is no request was counted"
    assert malformed["fuzz"] > count // 20
    assert grown < 50


def test_f15_mutated_subscriptions_raise_nothing() -> None:
    """Given to the live socket one after the other, as if no client were ever banned for them."""
    count, rolls, context = scaled(20_000, 1_000_000), dice("f15 live"), zmq.Context()
    granted = (Grant("viewer", "v", "v"), Grant("viewer", "w", "w", tokens=False), Grant("producer", "p", "p"), None)

    def make() -> zmq.Socket[bytes]:
        socket = context.socket(zmq.XPUB)
        configure(socket, max_message=1024, send_frames=10, receive_frames=1000)
        return socket

    try:
        live = LiveSocket(make, lambda frame: rolls.choice(granted), "127.0.0.1", "")
        one = context.socket(zmq.XSUB)
        one.linger = 0
        one.connect(live.endpoint)
        handled = offences = 0
        for _ in range(count):
            one.send(mutated(rolls, rolls.choice(TOPICS))[:1000])
            if rolls.random() < 0.01:
                asked = live.subscriptions()
                handled, offences = handled + asked.busy, offences + bool(asked.offenders)
        # To the last one: libzmq 4.3.5 may abort when it closes a connection whose reader has stopped at its limit.
        while live.subscriptions().busy or live.socket.poll(200):
            pass
        print(f"f15 live: {count} messages, {offences} times an offender in {handled} turns")
        assert offences > 0
        live.publish(Publish(wire.BEACON, bytes(24), b""))
    finally:
        context.destroy(linger=0)
