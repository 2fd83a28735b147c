"""Faults of a soak that were known: processes, disk and network, and clients that misbehave.

Each does its harm, waits until that has been noticed, and takes it back; all are bounded in count and time. Whether
everything is as wanted afterwards is looked at by who calls them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket as tcp
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

import zmq

from driftline import wire
from driftline.client import Client, Feed, attach
from driftline.frames import Command
from driftline.keys import load
from driftline.sockets import Context, configure, secure_client
from tests.faults.soak_load import BURST
from tests.faults.soak_world import World
from tests.faults.test_bytes import mutated
from tests.unit.hubs import PATIENCE

SERIES: Final = 6
"""Deaths of a hub in a row: more than a supervisor once let happen in a run's whole life."""
BURST_CODE: Final = f"""
import sys
from driftline.producer.probe import Probe
probe = Probe({BURST!r}, sys.argv[1], keys="numbers")
step = 0
while True:
    probe.emit({{"a": 1.0}}, step=step)
    step += 1
    if step % 200 == 0:
        print(probe.stats.acked, flush=True)
        probe.flush(0.02)
"""
ASKS: Final = tuple(
    wire.pack(ask)
    for ask in (
        wire.SnapshotRequest(1), wire.PageRequest(1, 1, 4), wire.LeaseRequest(1, "a@b:1", "take"),
        wire.AcksRequest(1, "ab" * 16), wire.PingRequest(1),
    )
)  # fmt: skip


def hub_killed(world: World) -> None:
    """Killed, and started again by the supervisor."""
    pid = world.hub_pid()
    os.kill(pid, signal.SIGKILL)
    world.until(lambda: world.supervisor.hub_up() and world.hub_pid() != pid, "another hub")


def hub_stopped_then_killed(world: World) -> None:
    """As a machine that hangs before it is switched off."""
    os.kill(world.hub_pid(), signal.SIGSTOP)
    world.rest(1.5)
    hub_killed(world)


def hub_killed_in_a_series(world: World) -> None:
    """As soon as it is back, SERIES times."""
    for _ in range(SERIES):
        hub_killed(world)


def hub_stopped(world: World) -> None:
    """SIGSTOP for some seconds, then it goes on."""
    pid = world.hub_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        world.rest(world.rolls.uniform(0.5, 4.0))
    finally:
        os.kill(pid, signal.SIGCONT)


def hub_hangs(world: World) -> None:
    """Its loop alone: the sockets' threads go on."""
    with world.flag("hang"):
        world.rest(world.rolls.uniform(0.5, 3.0))


def second_hub(world: World) -> None:
    """On the same run."""
    command = [sys.executable, "-m", "driftline.hub", str(world.run.path)]
    assert subprocess.run(command, capture_output=True, timeout=2 * PATIENCE).returncode == 3


def disk_fails(world: World) -> None:
    """Writes, writes after half of their bytes, or syncs."""
    how = world.rolls.choice(["write", "short", "sync"])
    with world.flag(how):
        world.until(lambda: world.follower.degraded, f"consoles to hear of it ({how})")
    world.until(lambda: not world.follower.degraded, "the all-clear")


def feed_renewed(world: World) -> None:
    """The follower's feed is thrown away for another one."""
    world.follower.renew.set()


def console_stopped(world: World) -> None:
    """The attached console, for some seconds."""
    os.kill(world.console.pid, signal.SIGSTOP)
    try:
        world.rest(3.0)
    finally:
        os.kill(world.console.pid, signal.SIGCONT)


def console_killed(world: World) -> None:
    """One that prints, beside the attached one."""
    command = [sys.executable, "-m", "console.cli", "tail", "--run", str(world.run.path)]
    with world.child(command) as process:
        out = process.stdout
        assert out is not None
        world.until(lambda: select.select([out], [], [], 0)[0], "it to print a step")
        assert out.readline()


def producer_killed(world: World) -> None:
    """In a burst: what it had seen acknowledged is there."""
    acked = 0
    with world.child([sys.executable, "-c", BURST_CODE, str(world.run.path)]) as process:
        assert process.stdout is not None
        for _ in range(world.rolls.randrange(3, 20)):
            acked = int(process.stdout.readline())
    world.until(lambda: world.follower.count.burst + 1 >= acked, "what was acknowledged")


def readers_stopped(world: World) -> None:
    """Ten consoles that stop reading, with tokens."""
    with _context() as context:
        there, keys = attach(world.run, "viewer")
        for _ in range(10):
            one = context.socket(zmq.SUB)
            configure(one, max_message=1 << 24, send_frames=10, receive_frames=1)
            one.rcvbuf = 65_536
            secure_client(one, there.server, keys)
            one.subscribe(b"")
            one.connect(there.live)
        world.rest(5.0)


def pages_not_read(world: World) -> None:
    """Clients that ask for pages and do not read the answers."""
    with _context() as context, Client(*attach(world.run, "viewer")) as client:
        there, keys = attach(world.run, "viewer")
        for _ in range(5):
            lazy = context.socket(zmq.DEALER)
            configure(lazy, max_message=1 << 25, send_frames=1000, receive_frames=1)
            secure_client(lazy, there.server, keys)
            lazy.connect(there.rpc)
            for number in range(20):
                lazy.send(wire.pack(wire.PageRequest(number, max(1, world.follower.at - 500))))
        for _ in range(20):
            client.ping(PATIENCE)


def joins(world: World) -> None:
    """Another console begins in the past and comes to the present without a gap."""
    first = max(1, world.follower.at - 300)
    got: list[int] = []
    with Feed(*attach(world.run, "viewer"), since=first, tokens=True) as feed:

        def there() -> bool:
            got.extend(stamped.seq for stamped in feed.drain())
            return len(got) >= 400

        world.until(there, "live frames after paged ones")
    assert got == list(range(first, first + len(got)))


def network_cut(world: World) -> None:
    """Between an engine and the hub: a reset, an end that one side never hears of, a black hole."""
    far = world.load.probes["engine-1"]
    match world.rolls.choice(["reset", "half open", "black hole"]):
        case "reset":
            world.proxy.reset()
        case "half open":
            world.proxy.half_open()
            world.until(lambda: not far.connected, "the engine to notice")
        case _:
            world.proxy.mode = "blackhole"
            world.until(lambda: not far.connected, "the engine to notice")
            world.proxy.mode = "pass"


def garbage(world: World) -> None:
    """Connections that send random bytes."""
    for port in world.ports() * 15:
        with contextlib.suppress(OSError), tcp.create_connection(("127.0.0.1", port), timeout=5.0) as one:
            one.sendall(world.rolls.randbytes(100))


def mutated_requests(world: World) -> None:
    """Two thousand, by an operator's key."""
    with _context() as context:
        one = context.socket(zmq.DEALER)
        configure(one, max_message=1 << 25, send_frames=1000, receive_frames=100)
        secure_client(one, world.run.connection().server, load(world.run, "fuzzer"))
        one.connect(world.run.connection().rpc)
        for _ in range(2000):
            if one.poll(1000, zmq.POLLOUT):
                one.send(mutated(world.rolls, world.rolls.choice(ASKS)))
            while one.poll(0):
                one.recv_multipart()


def command_repeated(world: World) -> None:
    """The same id two hundred times is one effect."""
    command = Command(f"{world.rolls.randrange(2**128):032x}", "mark", {"text": "x"}, -1, time.time() + 60)
    with Client(*attach(world.run, "operator")) as client:
        for _ in range(200):
            client._ask(wire.CommandReply, lambda number: wire.CommandRequest(number, command))
        assert client.wait(command.id, PATIENCE).state == "applied"
    assert world.load.effects[command.id] == 1


@contextlib.contextmanager
def _context() -> Iterator[Context]:
    context: Context = zmq.Context()
    try:
        yield context
    finally:
        context.destroy(linger=0)
