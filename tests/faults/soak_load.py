"""What runs in a soak beside the hub: producers at a rate, a follower that counts, a console on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import statistics
import sys
import threading
import time
from collections import Counter

import msgspec
import numpy as np

from driftline.catalog.metrics import METRICS
from driftline.client import Feed, attach
from driftline.frames import Command, EngineState, Metrics, Span, Stamped, Tokens
from driftline.keys import load
from driftline.producer.probe import Probe
from driftline.rundir import RunDir
from tests.faults.proxy import Proxy
from tests.unit.hubs import numbers_key

RATE, N = 100_000, 2048
"""Tokens a second, and in one frame."""
STEP_SECONDS, STATE_SECONDS, SYNC_SECONDS = 10.0, 0.5, 10.0
"""A step of 10^6 tokens, an engine's state, a weight sync."""
RING_BYTES = 512 * 2**20
"""The supervisor waits up to 30 s before it starts a hub that dies often: 70 MB of tokens."""
BURST = "engine-9"
"""The producer that is killed in a burst: it begins with step 0 each time, and loses what was not acknowledged."""


class Load(threading.Thread):
    """Two engines' tokens at RATE together, their states and syncs, and a trainer's metrics, until it is to end.

    `engine-1` goes through `proxy`. Commands for the trainer are acknowledged as applied, and counted by id.
    """

    def __init__(self, run: RunDir, proxy: Proxy) -> None:
        super().__init__(name="load")
        there = run.connection()
        far = msgspec.structs.replace(there, ingest=f"tcp://127.0.0.1:{proxy.port}")
        self.probes = {
            "trainer": Probe("trainer", run, ring_bytes=RING_BYTES, on_command=self._apply),
            "engine-0": Probe("engine-0", run, keys=numbers_key(run), ring_bytes=RING_BYTES),
            "engine-1": Probe("engine-1", keys=load(run, numbers_key(run)), connection=far, ring_bytes=RING_BYTES),
        }
        self.sent: Counter[tuple[str, str]] = Counter()
        """Frames by producer and kind."""
        self.tokens = 0
        self.effects: Counter[str] = Counter()
        self.ending = threading.Event()

    def _apply(self, command: Command) -> None:
        self.effects[command.id] += 1
        self.probes["trainer"].ack(command.id, "applied")

    def run(self) -> None:
        logprobs = np.random.default_rng(1).normal(size=N).astype(np.float32)
        numbers = np.arange(N, dtype=np.int32)
        values = {metric.name: (number + 1) / 40 for number, metric in enumerate(METRICS[:30])}
        engines = ("engine-0", "engine-1")
        due = time.monotonic()
        step_at = state_at = sync_at = due
        turn = 0
        while not self.ending.is_set():
            name = engines[turn % 2]
            turn += 1
            self.probes[name].tokens(
                step=self.sent[name, "Tokens"],
                version=1,
                ids=numbers,
                seq=numbers,
                position=numbers,
                token_version=numbers,
                rollout=logprobs,
                trainer=logprobs,
            )
            self.sent[name, "Tokens"] += 1
            self.tokens += N
            if due >= step_at:
                step_at += STEP_SECONDS
                self.probes["trainer"].emit(values, step=self.sent["trainer", "Metrics"])
                self.sent["trainer", "Metrics"] += 1
            if due >= state_at:
                state_at += STATE_SECONDS
                for name in engines:
                    self.probes[name].send(EngineState(name, "running", 1, time.time(), 8, 2, 0.5, 0.1, RATE / 2))
                    self.sent[name, "EngineState"] += 1
            if due >= sync_at:
                sync_at += SYNC_SECONDS
                for name in engines:
                    sync = f"sync-{self.sent[name, 'Span']}"
                    self.probes[name].send(Span(sync, name, "total", time.time(), 0.3, 1, 1, turn, 10**6))
                    self.sent[name, "Span"] += 1
            due += N / RATE
            time.sleep(max(0.0, due - time.monotonic()))

    def close(self) -> None:
        """End it, whatever is still queued."""
        self.ending.set()
        if self.ident is not None:
            self.join()
        for probe in self.probes.values():
            probe.close(0.1)


class Count:
    """What came of the load: each frame's number within its producer once and in order; others are counted."""

    def __init__(self) -> None:
        self.kept: Counter[tuple[str, str]] = Counter()
        self.burst = -1
        """Newest step of the producer that is killed."""

    def take(self, stamped: Stamped, producers: tuple[str, ...]) -> str:
        """Count one frame; what is wrong with it, or ""."""
        if stamped.producer not in producers:
            if stamped.producer == BURST and isinstance(frame := stamped.frame(), Metrics):
                if frame.step not in (0, self.burst + 1):
                    return f"{BURST}: step {frame.step} after {self.burst}"
                self.burst = frame.step
            return ""
        frame = stamped.frame()
        key = stamped.producer, type(frame).__name__
        if isinstance(frame, Metrics | Tokens) and frame.step != self.kept[key]:
            return f"{key}: step {frame.step}, {self.kept[key]} expected"
        if isinstance(frame, Metrics | Tokens | EngineState | Span):
            self.kept[key] += 1
        return ""


class Follower(threading.Thread):
    """A console that follows with tokens and checks every number; `renew` throws its feed away for another."""

    def __init__(self, run: RunDir, producers: tuple[str, ...]) -> None:
        super().__init__(name="follower")
        self._run, self._producers = run, producers
        self.at, self.wrong, self.degraded = 0, "", ""
        self.count = Count()
        self.renew, self.ending = threading.Event(), threading.Event()

    def run(self) -> None:
        keys = load(self._run, "viewer")
        connection, _ = attach(self._run, "viewer")
        while not self.ending.is_set():
            self.renew.clear()
            with Feed(connection, keys, since=self.at + 1, tokens=True) as feed:
                while not (self.renew.is_set() or self.ending.is_set()):
                    feed.wait(0.1)
                    self.degraded = feed.status.degraded
                    for stamped in feed.drain():
                        if stamped.seq != self.at + 1:
                            self.wrong = self.wrong or f"number {stamped.seq} after {self.at}"
                        self.at = stamped.seq
                        self.wrong = self.wrong or self.count.take(stamped, self._producers)

    def close(self) -> None:
        """End it."""
        self.ending.set()
        if self.ident is not None:
            self.join()


class Console(threading.Thread):
    """`driftline attach` on a terminal of its own, which is read and forgotten."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(name="terminal", daemon=True)
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
                command = [sys.executable, "-m", "console.cli", "attach", str(run.path)]
                os.execve(command[0], command, environment)
            finally:
                os._exit(127)
        self.bytes = 0
        self.last = b""
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.is_set():
            if not select.select([self._fd], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                return  # it has ended
            self.bytes += len(data)
            self.last = (self.last + data)[-4096:]

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._fd, keys)

    def alive(self) -> bool:
        """Whether it still runs."""
        if self.pid and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = 0
        return self.pid != 0

    def close(self) -> None:
        """End it by its id."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        self._ending.set()
        if self.ident is not None:
            self.join()
        os.close(self._fd)


def slope(samples: list[tuple[float, float]]) -> float:
    """Theil-Sen slope of (seconds, value): the median over pairs, which single spikes do not move."""
    step = max(1, len(samples) // 200)
    few = samples[::step]
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(few) for b in few[i + 1 :])
