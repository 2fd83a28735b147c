"""Fault 9: a network that swallows, half closes, delays and cuts connections between the hub and everybody else."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from driftline.client import Client, ClientError, Feed, attach
from driftline.consumer.feed import STALE_SECONDS
from driftline.frames import Metrics
from driftline.journal.journal import read
from driftline.keys import load
from driftline.producer.probe import Probe
from driftline.producer.sender import SILENT_SECONDS
from driftline.rundir import Connection
from driftline.sockets import HEARTBEAT_MS
from tests.faults.proxy import Proxy
from tests.faults.scale import dice, scaled
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(600)

DETECT = 3 * HEARTBEAT_MS / 1000


class Wire:
    """A producer at 200 frames/s and a console, with a proxy on each of the hub's three endpoints."""

    def __init__(self, hub: Hub, proxies: dict[str, Proxy]) -> None:
        self.hub, self.proxies = hub, proxies
        there = hub.run.connection()
        ends = {name: f"tcp://127.0.0.1:{proxy.port}" for name, proxy in proxies.items()}
        self.connection: Connection = msgspec.structs.replace(there, **ends)
        self.probe = Probe("trainer", keys=load(hub.run, "trainer"), connection=self.connection)
        self.feed = Feed(self.connection, attach(hub.run, "viewer")[1])
        self.sent = 0
        self.seen: list[int] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._produce)
        self._thread.start()

    def _produce(self) -> None:
        while not self._ending.is_set():
            self.probe.emit({"a": 1.0}, step=self.sent)
            self.sent += 1
            time.sleep(0.005)

    def take(self) -> None:
        self.seen.extend(s.seq for s in self.feed.drain())

    def healthy(self) -> bool:
        self.take()
        return self.probe.connected and self.feed.status.connected

    def detected(self) -> tuple[float, float]:
        """Wait until both sides say that something is wrong; seconds until the producer's and the console's word."""
        start, found = time.monotonic(), {}

        def said() -> bool:
            if not self.probe.connected:
                found.setdefault("probe", time.monotonic() - start)
            if self.feed.status.stale and self.feed.status.error:
                found.setdefault("feed", time.monotonic() - start)
            return len(found) == 2

        until(said, "both sides to notice")
        return found["probe"], found["feed"]

    def end(self) -> None:
        """Everything that was emitted is journaled once, and the console has had every number once."""
        self._ending.set()
        self._thread.join()
        assert self.probe.flush(2 * PATIENCE)
        journal = list(read(self.hub.run.journal))
        assert Counter(f.step for s in journal if isinstance(f := s.frame(), Metrics)) == Counter(range(self.sent))
        assert self.probe.stats.dropped == 0

        def all_there() -> bool:
            self.take()
            return len(self.seen) >= len(journal)

        until(all_there, "the console to have everything", 2 * PATIENCE)
        assert self.seen == list(range(1, len(journal) + 1))

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self.feed.close()
        self.probe.close(0.1)


@pytest.fixture
def wire(hub: Hub) -> Iterator[Wire]:
    rolls, there = dice("f09"), hub.run.connection()
    ends = ("ingest", "live", "rpc")
    proxies = {name: Proxy(int(getattr(there, name).rpartition(":")[2]), rolls) for name in ends}
    wire = Wire(hub, proxies)
    try:
        until(wire.healthy, "both to be connected")
        yield wire
    finally:
        wire.close()
        for proxy in proxies.values():
            proxy.close()


def test_f09_a_black_hole_is_noticed_and_costs_nothing(wire: Wire) -> None:
    for proxy in wire.proxies.values():
        proxy.mode = "blackhole"
    start = time.monotonic()
    probe, feed = wire.detected()
    print(f"f09 blackhole: noticed by the producer after {probe:.1f} s, by the console after {feed:.1f} s")
    assert SILENT_SECONDS < DETECT
    assert STALE_SECONDS < DETECT
    assert max(probe, feed) <= DETECT
    with contextlib.suppress(ClientError), Client(wire.connection, load(wire.hub.run, "viewer")) as client:
        client.ping(0.5)
        raise AssertionError("an answer out of a black hole")
    time.sleep(max(0.0, scaled(0.0, 30.0) - (time.monotonic() - start)))
    for proxy in wire.proxies.values():
        proxy.mode = "pass"
    healed = time.monotonic()
    until(wire.healthy, "both to be connected again")
    print(f"f09 blackhole: connected again after {time.monotonic() - healed:.1f} s")
    wire.end()


def test_f09_connections_half_open_are_noticed_and_replaced(wire: Wire) -> None:
    for _ in range(scaled(1, 3)):
        assert sum(proxy.half_open() for proxy in wire.proxies.values()) >= 2
        probe, feed = wire.detected()
        print(f"f09 half open: noticed by the producer after {probe:.1f} s, by the console after {feed:.1f} s")
        assert max(probe, feed) <= DETECT
        until(wire.healthy, "both to be connected again")
    wire.end()


def test_f09_delay_and_loss_lose_nothing(wire: Wire) -> None:
    for proxy in wire.proxies.values():
        proxy.mode = "slow"
    end = time.monotonic() + scaled(2.0, 30.0)
    while time.monotonic() < end:
        wire.take()
        time.sleep(0.05)
    assert wire.probe.connected, "slow is not lost"
    with Client(wire.connection, load(wire.hub.run, "viewer")) as client:
        until(lambda: answered(client), "an answer on a line on which shaking hands takes longer than a retry")
    wire.end()


def answered(client: Client) -> bool:
    try:
        return client.ping(1.5) > 0
    except ClientError:
        return False


def test_f09_resets_every_few_seconds_lose_nothing(wire: Wire) -> None:
    resets, pause = scaled(3, 6), scaled(0.7, 5.0)
    for _ in range(resets):
        time.sleep(pause)
        assert sum(proxy.reset() for proxy in wire.proxies.values()) >= 2
        until(wire.healthy, "both to be connected again")
    wire.end()
