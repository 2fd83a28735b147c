"""Faults 3, 6, 8, 10, 12, 16, 18, 19 and 25: who is let in, who is slow, and clocks and disks that misbehave."""

from __future__ import annotations

import resource
import signal
import socket as tcp
import subprocess
import sys
import threading
import time

import msgspec
import psutil
import pytest
import zmq

from driftline import wire
from driftline.client import Client, Feed, RefusedError, attach
from driftline.frames import TOPIC, Ack, Command, Event, Metrics, Verb, encode
from driftline.hub.auth import Authenticator, GrantTable, secure_server
from driftline.hub.core import Core
from driftline.hub.effects import Effect, Now, Write
from driftline.journal.journal import Damage, Record, read
from driftline.keys import Grant, Keys, add, load, make_run_keys, new_pair, revoke
from driftline.producer.probe import Probe
from driftline.rundir import RunDir
from driftline.sockets import Context, configure, secure_client
from tests.faults.scale import FULL, dice, scaled
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(600)


def test_f03_consoles_killed_and_stopped_get_every_number_once(hub: Hub, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A console process that writes down what it gets, and goes on from there when it is started again."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from driftline.client import Feed, attach\n"
        "from driftline.rundir import RunDir\n"
        "file = Path(sys.argv[2])\n"
        "have = len(file.read_text().split()) if file.exists() else 0\n"
        "with Feed(*attach(RunDir(Path(sys.argv[1])), 'viewer'), since=have + 1) as feed, file.open('a') as out:\n"
        "    while True:\n"
        "        feed.wait(1.0)\n"
        "        out.write(''.join(f'{s.seq:08d}\\n' for s in feed.drain()))\n"
        "        out.flush()\n"
    )
    file = tmp_path / "got"
    rolls = dice("f03")
    probe = Probe("trainer", hub.run)
    sent = 0

    def emit(seconds: float) -> None:
        nonlocal sent
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(5):
                probe.emit({"a": 1.0}, step=sent)
                sent += 1
            time.sleep(0.01)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code, str(hub.run.path), str(file)])

    console = start()
    try:
        for _ in range(scaled(3, 20)):
            emit(rolls.uniform(0.3, 0.8))
            console.send_signal(signal.SIGSTOP)
            emit(scaled(0.5, rolls.uniform(1.0, 6.0)))
            console.send_signal(signal.SIGCONT)
            emit(0.2)
            console.kill()
            console.wait()
            whole = file.read_bytes() if file.exists() else b""
            file.write_bytes(whole[: len(whole) // 9 * 9])  # a line that the kill cut in two was not delivered
            emit(0.2)
            console = start()
        assert probe.flush(PATIENCE)
        start = time.monotonic()
        until(lambda: len(file.read_bytes()) == 9 * sent, "the console to have everything")
        print(f"f03: {sent} frames, each once; the console caught up {time.monotonic() - start:.2f} s after the last")
        assert [int(line) for line in file.read_text().split()] == list(range(1, sent + 1))
    finally:
        console.kill()
        console.wait()
        probe.close(0.1)


@pytest.mark.alone
def test_f06_ten_consoles_that_stopped_reading_cost_a_bound_and_the_others_nothing(hub: Hub) -> None:
    """Beside ten that stopped, one that reads a MB a second, far less than there is."""
    frames, size, per_peer, stopped = scaled(3000, 20_000), 20_000, 256, 10
    connection, keys = attach(hub.run, "viewer")
    context: Context = zmq.Context()
    lags: list[float] = []
    slow_read, ending = 0, threading.Event()

    def read_slowly() -> None:
        nonlocal slow_read
        with context.socket(zmq.SUB) as one:
            configure(one, max_message=1 << 24, send_frames=10, receive_frames=1)
            one.rcvbuf = 65_536
            secure_client(one, connection.server, keys)
            one.subscribe(b"")
            one.connect(connection.live)
            while not ending.is_set():
                if one.poll(50):
                    slow_read += sum(map(len, one.recv_multipart()))
                    time.sleep(size / 1e6)

    slow = threading.Thread(target=read_slowly)
    with Probe("trainer", hub.run) as probe, Feed(connection, keys) as feed:
        try:
            for _ in range(stopped):
                one = context.socket(zmq.SUB)
                configure(one, max_message=1 << 24, send_frames=10, receive_frames=1)
                one.rcvbuf = 65_536
                secure_client(one, connection.server, keys)
                one.subscribe(b"")
                one.connect(connection.live)
            slow.start()
            until(lambda: feed.status.connected, "the feed")
            process = psutil.Process(hub.process.pid)
            rss = process.memory_info().rss
            got: list[int] = []

            def take() -> bool:
                for stamped in feed.drain():
                    got.append(stamped.seq)
                    lags.append(time.time() - stamped.time)
                return len(got) >= step + 1

            for step in range(frames):
                probe.event("k", "x" * size)
                if step % 20 == 19:
                    until(take, "the healthy console to be up to date")
            until(take, "the healthy console to have everything")
            assert got == list(range(1, frames + 1))
            grown = process.memory_info().rss - rss
            lags.sort()
            p99 = lags[len(lags) * 99 // 100]
            print(
                f"f06: lag p50 {lags[len(lags) // 2] * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms; the slow one has read "
                f"{slow_read / 2**20:.1f} of {frames * size / 2**20:.0f} MiB; hub grew by {grown / 2**20:.1f} MiB"
            )
            assert 0 < slow_read < frames * size / 2, "it is slow, and it reads"
            assert not FULL or p99 <= 0.25
            # The queues of all peers share one copy of a frame; without a limit it would be all of them.
            bound = 2 * per_peer * (size + 200) + 12 * 2**20
            assert grown <= bound < frames * size / 2
        finally:
            ending.set()
            slow.join()
            context.destroy(linger=0)


def test_f08_a_client_that_asks_and_does_not_read_holds_up_no_other(hub: Hub) -> None:
    frames = scaled(3000, 100_000)
    context: Context = zmq.Context()
    with Probe("trainer", hub.run) as probe, Client(*attach(hub.run, "operator")) as client:
        for step in range(frames):
            probe.emit({f"m/{i}": 1.0 for i in range(30)}, step=step)
            if step % 2000 == 1999:
                assert probe.flush(PATIENCE)
        assert probe.flush(PATIENCE)
        calm = sorted(client.ping() for _ in range(50))[25]
        rss = psutil.Process(hub.process.pid).memory_info().rss
        try:
            connection = hub.run.connection()
            for _ in range(5):
                lazy = context.socket(zmq.DEALER)
                configure(lazy, max_message=1 << 25, send_frames=1000, receive_frames=1)
                secure_client(lazy, connection.server, load(hub.run, "viewer"))
                lazy.connect(connection.rpc)
                for number in range(100):
                    lazy.send(wire.pack(wire.PageRequest(number, 1)))
            busy = sorted(client.ping() for _ in range(100))
            print(
                f"f08: ping p50 {calm * 1e3:.2f} ms calm, p99 {busy[98] * 1e3:.2f} ms beside clients that do not read"
            )
            got, at = 0, 1
            while at <= frames:
                page = client.page(at)
                got, at = got + len(page.frames), page.next
            assert got == frames, "one that reads gets to the end"
            grown = (psutil.Process(hub.process.pid).memory_info().rss - rss) / 2**20
            print(f"f08: hub grew by {grown:.1f} MiB")
            assert grown < 64
        finally:
            context.destroy(linger=0)


def test_f10_a_hung_hub_is_called_stale(hub: Hub) -> None:
    with Feed(*attach(hub.run, "viewer")) as feed:
        until(lambda: feed.status.connected, "the feed")
        hub.freeze()
        try:
            until(lambda: feed.status.stale and "silent" in feed.status.error, "the feed to say so")
        finally:
            hub.thaw()
        until(lambda: feed.status.connected and not feed.status.error, "the feed to recover")


def test_f12_a_full_disk_acknowledges_nothing_and_the_journal_stays_whole(hub: Hub) -> None:
    assert hub.process is not None
    limit = resource.RLIMIT_FSIZE
    with Probe("trainer", hub.run) as probe, Feed(*attach(hub.run, "operator")) as feed:
        probe.emit({"a": 1.0}, step=0)
        assert probe.flush(PATIENCE)
        for round_ in range(scaled(2, 20)):
            size = max(path.stat().st_size for path in hub.run.journal.iterdir())
            old = resource.prlimit(hub.process.pid, limit, (size + 100, resource.RLIM_INFINITY))
            for step in range(50):
                probe.emit({"a": 1.0}, step=1 + 50 * round_ + step)
            until(lambda: feed.status.degraded, "the feed to report it")
            assert probe.stats.acked <= sum(1 for _ in read(hub.run.journal))
            resource.prlimit(hub.process.pid, limit, old)
            assert probe.flush(PATIENCE)
            until(lambda: not feed.status.degraded, "the all-clear")
        damage = Damage()
        steps = [s.frame().step for s in read(hub.run.journal, damage=damage)]
        assert steps == list(range(1 + 50 * scaled(2, 20)))
        assert (damage.bytes, damage.torn) == (0, 0)


def test_f16_garbage_and_silent_connections_hold_up_no_client(hub: Hub) -> None:
    connection = hub.run.connection()
    ports = [int(e.rpartition(":")[2]) for e in (connection.ingest, connection.live, connection.rpc)]
    rolls = dice("f16")
    process = psutil.Process(hub.process.pid)
    silent: list[tcp.socket] = []
    with Client(*attach(hub.run, "operator")) as client:
        client.ping()
        fds = process.num_fds()
        try:
            silent.extend(tcp.create_connection(("127.0.0.1", rolls.choice(ports))) for _ in range(scaled(60, 1000)))
            for _ in range(scaled(300, 10_000)):
                with tcp.create_connection(("127.0.0.1", rolls.choice(ports))) as one:
                    one.sendall(rolls.randbytes(rolls.randrange(1, 200)))
            trips = sorted(client.ping() for _ in range(100))
            print(f"f16: ping p99 {trips[98] * 1e3:.2f} ms")
            # The silent ones are still open here: the hub itself lets go of them.
            until(lambda: process.num_fds() <= fds + 5, "the hub to close what does not shake hands")
        finally:
            for one in silent:
                one.close()


ROLES = ("unknown", "producer", "viewer", "no-tokens", "operator", "revoked")
MAY_WATCH, MAY_COMMAND = {"viewer", "no-tokens", "operator"}, {"operator"}
VERBS: tuple[tuple[Verb, dict[str, str]], ...] = (
    ("fix.set", {"fix": "fp32-lm-head", "value": "on"}),
    ("sync", {}),
    ("pause", {}),
    ("resume", {}),
    ("stop", {}),
    ("mark", {"text": "x"}),
    ("correction.set", {"value": "tis"}),
    ("cache.reset", {}),
    ("digest", {}),
)


def test_f18_every_role_by_every_topic_page_and_verb(hub: Hub) -> None:
    """The whole table; `revoked` is an operator who was connected when the grant was taken away."""
    connection = hub.run.connection()
    add(hub.run, "quiet", "viewer", "quiet", tokens=False)
    add(hub.run, "former", "operator", "former")
    pairs: dict[str, Keys] = {
        "unknown": new_pair(),
        "producer": load(hub.run, "trainer"),
        "viewer": load(hub.run, "viewer"),
        "no-tokens": load(hub.run, "quiet"),
        "operator": load(hub.run, "operator"),
        "revoked": load(hub.run, "former"),
    }
    clients: dict[str, Client] = {}
    context: Context = zmq.Context()
    probe = Probe("trainer", hub.run)
    try:

        def known(who: str) -> bool:
            try:
                with Client(connection, pairs[who]) as client:
                    return client.ping() > 0
            except RefusedError:
                return False

        until(lambda: known("revoked") and known("no-tokens"), "the new keys")
        clients = {role: Client(connection, pair) for role, pair in pairs.items()}
        clients["revoked"].ping()
        revoke(hub.run, "former")
        until(lambda: not known("revoked"), "the hub to have read it")

        def may(role: str, ask) -> bool:  # type: ignore[no-untyped-def]
            try:
                ask(clients[role])
            except RefusedError:
                return False
            return True

        for role in ROLES:
            watch, command = role in MAY_WATCH, role in MAY_COMMAND
            assert may(role, Client.ping) is watch, role
            assert may(role, Client.snapshot) is watch, role
            assert may(role, lambda c: c.page(1, tokens=False)) is watch, role
            assert may(role, lambda c: c.page(1, tokens=True)) is (watch and role != "no-tokens"), role
            for verb, args in VERBS:
                assert may(role, lambda c, v=verb, a=args: c.command(v, a)) is command, (role, verb)
            for ask in (Client.take_lease, Client.renew_lease, Client.release_lease):
                assert may(role, ask) is command, (role, ask.__name__)

        topics = sorted({*TOPIC.values(), wire.BEACON})
        subscribers: dict[tuple[str, bytes], zmq.Socket[bytes]] = {}
        for role in ROLES:
            for topic in topics:
                one = context.socket(zmq.SUB)
                configure(one, max_message=1 << 24, send_frames=10, receive_frames=1000)
                secure_client(one, connection.server, pairs[role])
                one.subscribe(topic)
                one.connect(hub.run.connection().live)
                subscribers[role, topic] = one
        frames = every_frame()
        got: set[tuple[str, bytes]] = set()
        expected = {(role, topic) for role in MAY_WATCH for topic in topics} - {("no-tokens", TOPIC[type(frames[1])])}

        def heard() -> bool:
            for frame in frames:
                probe.send(frame)
            for (role, topic), one in subscribers.items():
                while one.poll(0):
                    assert one.recv_multipart()[0] == topic
                    got.add((role, topic))
            return got >= expected

        probe.send(frames[0])
        with Client(connection, pairs["operator"]) as client:

            def all_topics() -> bool:
                client.command("mark", {"text": "x"})
                time.sleep(0.1)
                return heard()

            until(all_topics, "every allowed subscription to hear something")
        time.sleep(0.5)
        heard()
        assert got == expected, "and no other"

        # A forged issuer, a forged producer name: the key decides.
        forged = Command("ef" * 16, "mark", {"text": "x"}, -1, time.time() + 60, "operator root")
        with Client(connection, pairs["operator"]) as client:
            client._ask(wire.CommandReply, lambda number: wire.CommandRequest(number, forged))
        (written,) = [f for s in read(hub.run.journal) if isinstance(f := s.frame(), Command) and f.id == forged.id]
        assert written.issuer == "operator local"
        for who in ("viewer", "operator", "engine"):
            liar = Probe("trainer", hub.run, keys=who)
            liar.emit({"forged": 1.0}, step=1)
            assert not liar.flush(0.3), who
            liar.close(0.1)
        frames = [s.frame() for s in read(hub.run.journal)]
        assert not [f for f in frames if isinstance(f, Metrics) and "forged" in f.values]
        for endpoint in (connection.rpc, connection.ingest):
            plain = context.socket(zmq.DEALER)
            plain.linger = 0
            plain.connect(endpoint)
            plain.send(wire.pack(wire.PingRequest(1)))
            assert plain.poll(300) == 0, "plaintext"
    finally:
        for client in clients.values():
            client.close()
        context.destroy(linger=0)
        probe.close(0.1)


def every_frame() -> list:  # type: ignore[type-arg]
    from driftline.frames import RunState, Span, Tokens

    return [
        Metrics(1, 1, 1.0, {"a": 1.0}),
        Tokens(1, 1, 1.0, 0, b"", b"", b"", b"", b"", b""),
        Span("s", "e", "load", 1.0, 1.0, 1, 2, 3),
        Event(1.0, "info", "k", "t"),
        RunState("r", "running", 1, 2, 3, 4.0),
    ]


class BrokenTable:
    def grant(self, public: str) -> Grant | None:
        raise RuntimeError("a mistake of ours")


@pytest.mark.parametrize("how", ["dead", "silent", "raises"])
def test_f19_without_its_handler_a_socket_accepts_no_client(tmp_path, how: str) -> None:  # type: ignore[no-untyped-def]
    run = RunDir(tmp_path)
    make_run_keys(run)
    server, table, friend = load(run, "server"), GrantTable(run.keys / "authorized"), load(run, "operator")
    context: Context = zmq.Context()
    others: Context = zmq.Context()
    try:
        gate = Authenticator(context, table)
        router = context.socket(zmq.ROUTER)
        configure(router, max_message=1 << 20, send_frames=10, receive_frames=10)
        secure_server(router, server)
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def let_in(keys: Keys, serving: bool, seconds: float) -> bool:
            one = others.socket(zmq.DEALER)
            configure(one, max_message=1 << 20, send_frames=10, receive_frames=10)
            secure_client(one, server.public, keys)
            one.connect(f"tcp://127.0.0.1:{port}")
            one.send(b"hello")
            for _ in range(int(seconds * 200)):
                if serving:
                    gate.serve()
                if router.poll(5):
                    router.recv_multipart()
                    one.close(linger=0)
                    return True
            one.close(linger=0)
            return False

        assert let_in(friend, True, PATIENCE), "the control: with its handler it lets a friend in"
        if how == "dead":
            gate.socket.close(linger=0)
        if how == "raises":
            gate._table = BrokenTable()  # type: ignore[assignment]
        assert not let_in(new_pair(), how == "raises", 0.6)
        assert not let_in(friend, how == "raises", 0.6), "not even a friend: closed is the safe side"
        if how == "raises":
            gate._table = table
            assert let_in(friend, True, PATIENCE), "and it heals by itself"
            assert not let_in(new_pair(), True, 0.6)
    finally:
        context.destroy(linger=0)
        others.destroy(linger=0)


def test_f25_clock_jumps_and_other_versions_reorder_and_crash_nothing() -> None:
    core, disk = Core("r", 1), []
    producer = Grant("producer", "trainer", "k")
    core.on_ingest(b"p", producer, wire.HELLO + wire.pack(wire.Hello("trainer", 7, 1, 1, 0, 1)), Now(5e3, 1.0))

    def do(effects: list[Effect], now: Now) -> None:
        for effect in effects:
            if isinstance(effect, Write):
                stamp = core.stamp(effect, now)
                disk.append(msgspec.msgpack.decode(stamp.record, type=Record))
                do(core.on_written(effect, stamp), now)

    bodies = {
        "of a newer one, with fields more": msgspec.msgpack.encode(["m", 1, 1, 1.0, {"a": 1.0}, {}, "new", [1, 2]]),
        "of an older one, with fields less": msgspec.msgpack.encode(["m", 1, 1, 1.0, {"a": 1.0}]),
        "a kind that no version knows": msgspec.msgpack.encode(["z", 1, 2, 3]),
        "as it should be": encode(Ack("x", "applied", 1.0)),
    }
    wall, pseq = 5e3, 0
    for round_ in range(scaled(50, 1000)):
        wall += (-3600.0, 3600.0, 0.1, 0.0)[round_ % 4]
        for body in bodies.values():
            pseq += 1
            now = Now(wall, 1.0 + 0.01 * pseq)
            do(core.on_ingest(b"p", producer, wire.DATA_HEAD.pack(wire.DATA, 7, pseq, 0) + body, now), now)
        do(core.on_tick(now), now)
        assert core.acks(), "a session does not end by the wall clock"
    assert [r.seq for r in disk] == list(range(1, len(disk) + 1))
    assert [r.pseq for r in disk if r.incarnation] == list(range(1, pseq + 1))
    frames = [r.frame() for r in disk]
    assert sum(isinstance(f, Metrics) for f in frames) == pseq // 2
    assert core.producers.bad_frames == pseq // 2
