"""Fault 27: hours in small. Load as of a real run, a fault every half minute; nothing lost, nothing grows.

`python -m tests.faults.soak FOLDER SEED` is a whole soak in a process of its own, beside other tests.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from driftline.client import Feed, attach
from driftline.frames import Metrics, Tokens
from driftline.journal.journal import read
from driftline.producer.probe import Probe
from tests.faults.scale import scaled
from tests.unit.hubs import PATIENCE, Hub, numbers_key, until

RATE, N = 100_000, 2048
"""Tokens a second, and in one frame."""
SECONDS, EVERY = scaled(16.0, 900.0), scaled(2.0, 30.0)
SETTLED = 4.0
"""MiB that a settled hub's memory may move within minutes."""


class Load(threading.Thread):
    """Two engines' worth of tokens and a trainer's metrics, at RATE, until told to end."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        keys = {"trainer": "trainer", "engine-0": numbers_key(hub.run)}
        self.probes = {name: Probe(name, hub.run, keys=key) for name, key in keys.items()}
        self.sent: Counter[str] = Counter()
        self.ending = threading.Event()

    def run(self) -> None:
        logprobs = np.random.default_rng(1).normal(size=N).astype(np.float32)
        numbers = np.arange(N, dtype=np.int32)
        values = {f"m/{i}": i / 3 for i in range(30)}
        due = time.monotonic()
        while not self.ending.is_set():
            step = self.sent["engine-0"]
            self.probes["engine-0"].tokens(
                step=step,
                version=1,
                ids=numbers,
                seq=numbers,
                position=numbers,
                token_version=numbers,
                rollout=logprobs,
                trainer=logprobs,
            )
            self.probes["trainer"].emit(values, step=step)
            self.sent.update(self.probes.keys())
            due += N / RATE
            time.sleep(max(0.0, due - time.monotonic()))


class Console(threading.Thread):
    """Follows with tokens and checks that every number comes once; `renew` throws the feed away for another."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub, self.at, self.wrong = hub, 0, ""
        self.renew, self.ending = threading.Event(), threading.Event()

    def run(self) -> None:
        connection, keys = attach(self.hub.run, "viewer")
        while not self.ending.is_set():
            self.renew.clear()
            with Feed(connection, keys, since=self.at + 1, tokens=True) as feed:
                while not (self.renew.is_set() or self.ending.is_set()):
                    feed.wait(0.1)
                    for stamped in feed.drain():
                        if stamped.seq != self.at + 1:
                            self.wrong = self.wrong or f"{stamped.seq} after {self.at}"
                        self.at = stamped.seq


def slope(samples: list[tuple[float, float]]) -> float:
    """Theil-Sen slope of (seconds, value): the median over pairs, which single spikes do not move."""
    step = max(1, len(samples) // 200)
    few = samples[::step]
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(few) for b in few[i + 1 :])


def soak(hub: Hub, rolls: random.Random) -> str:
    """Run it and say what came out. Kills come in the first third, so that the hub that is measured lives through
    all that follows. Raises AssertionError."""
    load, console = Load(hub), Console(hub)
    garbage = [int(end.rpartition(":")[2]) for end in (hub.run.connection().ingest, hub.run.connection().rpc)]

    def kill() -> None:
        hub.kill()
        hub.start()

    def freeze() -> None:
        hub.freeze()
        time.sleep(scaled(0.3, 3.0))
        hub.thaw()

    def knock() -> None:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", rolls.choice(garbage))) as one:
                one.sendall(rolls.randbytes(100))

    gentle: list[Callable[[], None]] = [freeze, console.renew.set, knock]
    done: Counter[str] = Counter()
    samples: list[tuple[float, float, int]] = []
    mine: list[tuple[float, float]] = []
    start = time.monotonic()
    load.start()
    console.start()
    try:
        next_fault = start + EVERY
        while (now := time.monotonic()) < start + SECONDS:
            early = now - start < SECONDS / 3
            if now >= next_fault:
                next_fault += EVERY
                fault = kill if early and not done["kill"] else rolls.choice([kill, *gentle] if early else gentle)
                fault()
                done[getattr(fault, "__name__", "renew")] += 1
            if now - start > SECONDS / 2 and hub.process is not None:
                process = psutil.Process(hub.process.pid)
                samples.append((now, process.memory_info().rss / 2**20, process.num_fds()))
                mine.append((now, psutil.Process(os.getpid()).memory_info().rss / 2**20))
            time.sleep(scaled(0.1, 0.5))
        load.ending.set()
        load.join()
        assert all(probe.flush(2 * PATIENCE) for probe in load.probes.values())
        assert [probe.stats.dropped for probe in load.probes.values()] == [0, 0]
        kept: Counter[str] = Counter()
        head = 0
        for stamped in read(hub.run.journal):
            assert stamped.seq == head + 1
            head = stamped.seq
            if (frame := stamped.frame()) and isinstance(frame, Metrics | Tokens):
                assert frame.step == kept[stamped.producer], "each once, in order"
                kept[stamped.producer] += 1
        assert kept == load.sent
        until(lambda: console.at >= head, "the console to have everything", 2 * PATIENCE)
        assert not console.wrong
    finally:
        load.ending.set()
        console.ending.set()
        console.join()
        for probe in load.probes.values():
            probe.close(0.1)
    rss = slope([(at, size) for at, size, _ in samples]) * 3600
    own = slope(mine) * 3600
    fds = slope([(at, float(number)) for at, _, number in samples]) * 3600
    last = samples[len(samples) // 2 :]
    rate = N * load.sent["engine-0"] / SECONDS
    report = (
        f"f27: {sum(load.sent.values())} frames, {rate:.0f} tokens/s for {SECONDS:.0f} s, faults "
        f"{dict(done)}: lost 0, double 0; over the second half the hub's memory {rss:+.2f} MiB/h, descriptors "
        f"{fds:+.1f}/h; producers and console {own:+.1f} MiB/h"
    )
    assert sum(done.values()) >= SECONDS / EVERY / 2, report
    # One more for each fault would be four and more. Connections that were cut end late on a busy machine.
    assert fds / 3600 * SECONDS / 2 < scaled(2.0, 1.0), report
    first = samples[: len(samples) // 2]
    assert max(size for _, size, _ in last) <= max(size for _, size, _ in first) + SETTLED, report
    return report


def main(folder: str, seed: str) -> None:
    """One soak on a hub of its own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    hub = Hub(Path(folder))
    try:
        hub.start()
        print(soak(hub, random.Random(int(seed))), flush=True)
    finally:
        hub.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
