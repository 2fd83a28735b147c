"""The faults of a soak: each does its harm, waits until that has been noticed, and takes it back.

All are bounded in count and time; whether everything is as wanted afterwards is looked at by the soak itself.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket as tcp
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import zmq

from driftline import wire
from driftline.client import Client, ClientError, Feed, attach
from driftline.frames import Command, Frame, FrameError, decode, encode
from driftline.journal.journal import segments
from driftline.keys import add, load, revoke
from driftline.producer.probe import Probe
from driftline.sockets import Context, configure, secure_client
from tests.faults.soak_load import BURST
from tests.faults.soak_world import World
from tests.faults.test_bytes import mutated
from tests.unit.hubs import PATIENCE

SERIES: Final = 6
"""Deaths of a hub in a row: more than a supervisor once let happen in a run's whole life."""
NAMES, NAMES_A_STEP = 4000, 20
SILENT: Final = 300
BURST_CODE: Final = f"""
import sys
from driftline.producer.probe import Probe
probe = Probe({BURST!r}, sys.argv[1], keys="engine")
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
        world.until(lambda: world.follower.degraded, f"consoles to be told ({how})")
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
        assert process.stdout is not None
        assert process.stdout.readline(), "it prints"


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
    """Between an engine and the hub: a reset, an end that one side is never told of, a black hole."""
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


# New with the issue on what a watcher may do to a run


def journal_renamed(world: World) -> None:
    """Renamed, noticed, put back."""
    away = world.run.path / "away"
    world.run.journal.rename(away)
    try:
        _lost(world)
    finally:
        away.rename(world.run.journal)
    _found(world)


def journal_replaced(world: World) -> None:
    """Renamed for good, and an empty directory in its place."""
    world.run.journal.rename(world.aside())
    _lost(world)
    world.run.journal.mkdir(mode=0o700)
    _found(world)


def journal_removed(world: World) -> None:
    """Removed, and an empty directory made. Closed segments keep a second name, so that all can be counted at the end;
    what is in the open one has to be saved by the hub."""
    aside = world.aside()
    aside.mkdir()
    for path in segments(world.run.journal)[:-1]:
        os.link(path, aside / path.name)
    while world.run.journal.exists():
        shutil.rmtree(world.run.journal, ignore_errors=True)  # the hub may be making a file in it
    _lost(world)
    world.run.journal.mkdir(mode=0o700)
    _found(world)


def journal_read_only(world: World) -> None:
    """Made read-only and given back; for root by an attribute of the directory."""
    folder = world.run.journal
    folder.chmod(0o500)
    attribute = os.access(folder, os.W_OK)
    try:
        if attribute:
            subprocess.run(["chattr", "+i", str(folder)], check=True, timeout=PATIENCE)
        _lost(world)
    finally:
        if attribute:
            subprocess.run(["chattr", "-i", str(folder)], check=True, timeout=PATIENCE)
        folder.chmod(0o700)
    _found(world)


def run_renamed(world: World) -> None:
    """The whole run directory, and back."""
    away = world.run.path.with_name("moved")
    world.run.path.rename(away)
    try:
        _lost(world)
    finally:
        away.rename(world.run.path)
    _found(world)


def clock_jumps(world: World) -> None:
    """The hub's wall clock goes an hour ahead, then an hour back: who holds the lease keeps it."""
    with Client(*attach(world.run, "operator")) as client:
        client.take_lease()
        for jump in ("3600", "-3600"):
            with world.flag("clock", jump):
                world.rest(2.0)
                ahead, _ = client.clock()
                assert abs(ahead - float(jump)) < 600, "the clock has jumped"
                assert client.renew_lease(), "the lease goes by the monotonic clock"
        client.release_lease()


def odd_frames(world: World) -> None:
    """Frames with numbers outside their ranges, by a producer that checks nothing; the refusals are counted."""
    with Probe("odd", world.run, keys="odd") as probe:
        for body in (chosen := world.rolls.sample(world.odd_bodies, 50)):
            probe._ring.add(body)
        assert probe.flush(2 * PATIENCE)
    world.odd_sent += len(chosen)


def growing_names(world: World) -> None:
    """A producer whose names grow with its steps."""
    with Probe("names", world.run, keys="names") as probe:
        for step in range(NAMES // NAMES_A_STEP):
            first = step * NAMES_A_STEP
            probe.emit({f"grown/{world.rolls.random()}/{first + i}": 1.0 for i in range(NAMES_A_STEP)}, step=step)
        assert probe.flush(2 * PATIENCE)


def key_revoked(world: World) -> None:
    """Of an operator who holds the lease and follows: cut off, and the lease is free."""
    key = f"former-{world.rolls.randrange(10**9)}"
    add(world.run, key, "operator", key)
    there, keys = world.run.connection(), load(world.run, key)

    def refused(client: Client) -> bool:
        try:
            client.ping(1.0)
        except ClientError:
            return True
        return False

    with Client(there, keys) as client:
        world.until(lambda: not refused(client), "the new key to be known")
        client.take_lease()
        revoke(world.run, key)
        world.until(lambda: refused(client), "the revoked key to be refused")
        with Client(*attach(world.run, "operator")) as other:

            def free() -> bool:
                with contextlib.suppress(ClientError):
                    return not other.take_lease() or other.holds_lease
                return False

            world.until(free, "the lease to be free")
            other.release_lease()


def compaction_killed(world: World) -> None:
    """And started again by the supervisor."""
    children = world.supervisor._children
    pid = children["compact"].pid
    children["compact"].kill()
    world.until(lambda: children["compact"].pid != pid and children["compact"].poll() is None, "another", 120.0)


def connection_endless(world: World) -> None:
    """`connection.json` is /dev/zero for a while: a verb says so at once."""
    file = world.run.connection_file
    kept = file.with_name("kept.json")
    file.rename(kept)
    file.symlink_to("/dev/zero")
    try:
        command = [sys.executable, "-m", "console.cli", "status", "--run", str(world.run.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert str(file) in done.stderr + done.stdout, "it names the file"
    finally:
        kept.replace(file)


def connections_silent(world: World) -> None:
    """They are made and say nothing; the hub lets go of them, and serves the others."""
    silent = []
    try:
        for number in range(SILENT):
            ports = world.ports()
            silent.append(tcp.create_connection(("127.0.0.1", ports[number % len(ports)]), timeout=PATIENCE))
        with Client(*attach(world.run, "viewer")) as client:
            for _ in range(20):
                client.ping(PATIENCE)
        world.rest(5.0)
    finally:
        for one in silent:
            one.close()


def audit_removed(world: World) -> None:
    """The hub puts it back."""
    world.run.audit.unlink()
    world.until(world.run.audit.exists, "the audit log")


Fault = Callable[[World], None]
ENDING: Final[tuple[Fault, ...]] = (hub_killed, hub_stopped_then_killed, hub_killed_in_a_series)
"""After these there is another hub process."""
HEAPING: Final[tuple[Fault, ...]] = (growing_names,)
"""What these leave is held by name, in hub and console: at the beginning, where memory may still grow."""
OLD: Final[tuple[Fault, ...]] = (
    hub_stopped, hub_hangs, second_hub, disk_fails, feed_renewed, console_stopped, console_killed, producer_killed,
    readers_stopped, pages_not_read, joins, network_cut, garbage, mutated_requests, command_repeated,
)  # fmt: skip
NEW: Final[tuple[Fault, ...]] = (
    journal_renamed, journal_replaced, journal_removed, journal_read_only, run_renamed, clock_jumps, odd_frames,
    key_revoked, compaction_killed, connection_endless, connections_silent, audit_removed,
)  # fmt: skip


def in_turn(faults: tuple[Fault, ...], rolls: random.Random) -> Iterator[Fault]:
    """Every fault once in a random order, then again in another one."""
    while True:
        yield from rolls.sample(faults, len(faults))


def refused_bodies(frames: list[Frame]) -> list[bytes]:
    """Bodies that are frames of this schema with a number outside its range."""
    bodies = []
    for frame in frames:
        try:
            body = encode(frame)
        except FrameError:
            continue  # no body can be made of it
        try:
            decode(body)
        except FrameError:
            bodies.append(body)
    return bodies


@contextlib.contextmanager
def _context() -> Iterator[Context]:
    context: Context = zmq.Context()
    try:
        yield context
    finally:
        context.destroy(linger=0)


def _lost(world: World) -> None:
    world.until(lambda: "journal lost" in world.follower.degraded, "consoles to be told that the journal is lost")


def _found(world: World) -> None:
    world.until(lambda: not world.follower.degraded, "the all-clear")
