"""The hub at work: share of a core and latency under token streams, cost per frame by producers, journal, catch-up.

Everything crosses real sockets with CURVE to a hub process of its own. CPU time is the hub process's, its I/O thread
(which encrypts) included. Latencies hold the producer's tick of 20 ms, on which its thread looks for what was emitted.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import psutil
import zmq

from driftline import Probe, rundir, wire
from driftline.client import Feed, attach
from driftline.frames import SCHEMA, Metrics, Tokens, encode
from driftline.journal.journal import Journal, Record, record_encoder
from driftline.keys import load
from driftline.rundir import RunDir
from driftline.sockets import Context, Socket, configure, secure_client
from tests.unit.hubs import numbers_key

TOKENS = 4096
RATES = (100_000, 1_000_000)
SECONDS = 6.0
PRODUCERS = (1, 16, 64, 256)
FRAMES_PER_SECOND, FRAMES_SECONDS = 5000, 4.0
FLAT = 2.0
APPEND_BYTES = 48 * 1024 * 1024
APPEND_ROUNDS = 5
CATCH_UP = {"metrics": 60_000, "tokens": 1500}

VALUES = {f"group{i % 5}/metric{i}": 0.1 * i + 0.01 for i in range(30)}


@contextmanager
def hub(folder: Path) -> Iterator[tuple[RunDir, psutil.Process]]:
    """A hub process on a fresh run directory, ended afterwards."""
    run = rundir.create(folder, "bench")
    with (run.logs / "hub.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "driftline.hub", str(run.path)], stdout=log, stderr=log)
    try:
        rundir.wait_connection(run, 30.0)
        yield run, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def cpu(process: psutil.Process) -> float:
    """CPU seconds that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def percentile(values: list[float], share: float) -> float:
    """A value that `share` of them do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def stream(folder: Path, rate: int) -> None:
    """Tokens at `rate` a second from one producer to one console that asked for them."""
    ints = np.arange(TOKENS, dtype=np.int32)
    floats = np.random.default_rng(0).normal(size=TOKENS).astype(np.float32)
    arrays = dict.fromkeys(("ids", "seq", "position", "token_version"), ints)
    arrays |= {"rollout": floats, "trainer": floats}
    whole: list[float] = []
    hub_to_console: list[float] = []
    with (
        hub(folder) as (run, process),
        Probe("trainer", run) as probe,
        Feed(*attach(run, "viewer"), tokens=True) as feed,
    ):

        def take() -> None:
            now = time.time()
            for stamped in feed.drain():
                if len(whole) < sent:
                    whole.append(now - stamped.frame().time)
                    hub_to_console.append(now - stamped.time)

        sent = 0
        probe.emit(VALUES, step=0)
        probe.flush(30.0)
        while not feed.drain():
            feed.wait(1.0)
        before, start = cpu(process), time.monotonic()
        while (now := time.monotonic() - start) < SECONDS:
            if sent * TOKENS < now * rate:
                probe.tokens(step=sent, version=1, **arrays)
                sent += 1
            else:
                feed.wait(max(0.0005, sent * TOKENS / rate - now))
            take()
        probe.flush(30.0)
        took = time.monotonic() - start
        share = (cpu(process) - before) / took
        until = time.monotonic() + 10
        while len(whole) < sent and time.monotonic() < until:
            feed.wait(0.1)
            take()
    print(
        f"  {sent * TOKENS / took:9.0f} tokens/s: hub {100 * share:5.1f} % of a core; emit to console p50 "
        f"{1e3 * statistics.median(whole):5.1f} ms, p99 {1e3 * percentile(whole, 0.99):5.1f} ms; hub to console p50 "
        f"{1e3 * statistics.median(hub_to_console):5.2f} ms, p99 {1e3 * percentile(hub_to_console, 0.99):5.1f} ms; "
        f"{sent - len(whole)} of {sent} frames lost, {probe.stats.dropped} dropped"
    )


class Producer:
    """The least that speaks the wire: hundreds of probes with a thread each would measure this machine's scheduler."""

    def __init__(self, context: Context, run: RunDir, number: int) -> None:
        self.socket: Socket = context.socket(zmq.DEALER)
        configure(self.socket, max_message=wire.REQUEST_BYTES, send_frames=1000, receive_frames=1000)
        there = run.connection()
        secure_client(self.socket, there.server, load(run, numbers_key(run)))
        self.socket.connect(there.ingest)
        self.sent = self.acked = 0
        self.greeted = False
        self.socket.send(wire.HELLO + wire.pack(wire.Hello(f"engine-{number}", number + 1, 1, 1, 0, SCHEMA)))
        self.incarnation = number + 1

    def send(self, body: bytes) -> None:
        self.sent += 1
        self.socket.send(wire.DATA_HEAD.pack(wire.DATA, self.incarnation, self.sent, 0) + body)

    def read(self) -> None:
        while self.socket.poll(0):
            match wire.to_producer_decoder.decode(self.socket.recv()):
                case wire.Welcome():
                    self.greeted = True
                case wire.Acked(last=last):
                    self.acked = last


def producers(folder: Path) -> bool:
    """CPU time of the hub per frame with ever more producers, at one rate of frames in all."""
    body = encode(Metrics(1, 1, 1.0, VALUES))
    costs = {}
    for count in PRODUCERS:
        with hub(folder) as (run, process):
            context: Context = zmq.Context()
            context.set(zmq.MAX_SOCKETS, 2048)
            crowd = [Producer(context, run, number) for number in range(count)]
            try:
                while not all(one.greeted for one in crowd):
                    for one in crowd:
                        one.read()
                idle, start = cpu(process), time.monotonic()
                time.sleep(1.0)
                idle = (cpu(process) - idle) / (time.monotonic() - start)
                before, start, sent = cpu(process), time.monotonic(), 0
                while (now := time.monotonic() - start) < FRAMES_SECONDS:
                    while sent < now * FRAMES_PER_SECOND:
                        crowd[sent % count].send(body)
                        sent += 1
                    for one in crowd[:: max(1, count // 16)]:
                        one.read()
                    time.sleep(0.002)
                while any(one.acked < one.sent for one in crowd):
                    for one in crowd:
                        one.read()
                took = time.monotonic() - start
                costs[count] = (cpu(process) - before - idle * took) / sent
            finally:
                context.destroy(linger=0)
        print(f"  {count:4d} producers: {1e6 * costs[count]:6.1f} µs of the hub's CPU a frame at {sent / took:.0f}/s")
    ratio = max(costs.values()) / min(costs.values())
    print(f"producers: the dearest {ratio:.2f} times the cheapest (wanted: at most {FLAT:g})")
    return ratio <= FLAT


def append(folder: Path) -> None:
    """Journal.append against os.write of the same bytes, in alternating rounds; neither waits for the disk."""
    blob = np.random.default_rng(0).bytes(4 * TOKENS)
    bodies = {
        "metrics": encode(Metrics(1, 1, 1.0, VALUES)),
        "tokens": encode(Tokens(1, 1, 1.0, TOKENS, blob, blob, blob, blob, blob, blob)),
    }
    for name, body in bodies.items():
        record = record_encoder.encode(Record(1, 1.0, "trainer", msgspec.Raw(body), 7, 1))
        count = APPEND_BYTES // (len(record) + 20)
        whole = bytes(20) + record
        mine, raw = [], []
        for round_ in range(APPEND_ROUNDS):
            journal = Journal(folder / f"{name}-{round_}")
            start = time.perf_counter()
            for seq in range(1, count + 1):
                journal.append(record, seq, True)
            mine.append(time.perf_counter() - start)
            journal.close()
            shutil.rmtree(journal.folder)
            fd = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            start = time.perf_counter()
            for _ in range(count):
                os.write(fd, whole)
            raw.append(time.perf_counter() - start)
            os.close(fd)
            (folder / "raw").unlink()
        a, b, mb = min(mine), min(raw), count * len(whole) / 1e6
        print(
            f"  append of {len(record):6d} bytes ({name}): {mb / a:6.0f} MB/s, os.write {mb / b:6.0f} MB/s: "
            f"{a / b:.2f} times its time ({1e6 * (a - b) / count:+.1f} µs a record)"
        )


def catch_up(folder: Path, name: str, count: int) -> None:
    """A console that was away: how fast the pages come, of numbers or of raw tokens."""
    arrays = dict.fromkeys(("ids", "seq", "position", "token_version", "rollout", "trainer"), np.zeros(TOKENS))
    with hub(folder) as (run, process), Probe("trainer", run) as probe:
        for step in range(count):
            if name == "metrics":
                probe.emit(VALUES, step=step)
            else:
                probe.tokens(step=step, version=1, **arrays)
            if step % 200 == 199:
                probe.flush(30.0)
        probe.flush(30.0)
        before, start, got = cpu(process), time.monotonic(), 0
        with Feed(*attach(run, "viewer"), tokens=name == "tokens") as feed:
            while got < count:
                feed.wait(1.0)
                got += len(feed.drain())
        took = time.monotonic() - start
        size = sum(path.stat().st_size for path in run.journal.glob("*.rlj"))
        print(
            f"  catch-up, {name}: {got / took:.0f} frames/s, {size / took / 1e6:.0f} MB/s, connecting included; hub "
            f"{100 * (cpu(process) - before) / took:.0f} % of a core meanwhile"
        )


def main() -> int:
    """Print all of it; 0 when the cost per frame is flat."""
    folder = Path(tempfile.mkdtemp(prefix="driftline-bench-"))
    try:
        for rate in RATES:
            stream(folder, rate)
        flat = producers(folder)
        append(folder)
        for name, count in CATCH_UP.items():
            catch_up(folder, name, count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if flat else 1


if __name__ == "__main__":
    raise SystemExit(main())
