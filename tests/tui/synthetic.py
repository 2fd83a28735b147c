"""A source in the test's own process: frames are given, commands are recorded, nothing moves unless a test moves it.

Its curves are synthetic and stand for no engine; every RunState says so unless a test is about a run that is not.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable

import msgspec
import numpy as np

from console.connect.source import LeaseHeldError, Link, SourceError
from driftline.frames import (
    Ack,
    AckState,
    Command,
    Data,
    EngineFix,
    EngineState,
    Event,
    FixState,
    Frame,
    How,
    Lease,
    Metrics,
    RunState,
    RunStatus,
    Stamped,
    Tokens,
    Verb,
    encode,
)

START = 1_763_900_000.0
"""2025-11-23 12:13:20 UTC: the tests' clock stands here."""


class FakeSource:
    """Implements `console.connect.source.Source`."""

    def __init__(self, *, operator: bool = True, run: str = "demo-7f3a") -> None:
        self.run, self.operator = run, operator
        self.state = Link(True, 0.3)
        self.sent: list[tuple[Verb, dict[str, str], int]] = []
        self.refuse = ""
        self.session = "ana@here:7"
        self.holder = ""
        """Session of another operator, who is at the controls, as the hub knows it; fed as a frame by `hold`."""
        self.taken: list[str] = []
        self.closed = False
        self._queue: list[Stamped] = []
        self._seq = 0
        self.no_tokens = ""
        """Why tokens are refused, if they are."""
        self.tokens_on = False
        self.tokens_behind = 0
        self._token_queue: list[Stamped] = []
        self.tokens_given = 0
        """Number of the last of them that was taken."""
        self._lock = threading.Condition()
        self.drained = threading.Event()

    def feed(self, frames: Iterable[Frame], *, producer: str = "trainer", time: float | None = None) -> None:
        with self._lock:
            for frame in frames:
                self._seq += 1
                at = START + self._seq * 0.01 if time is None else time
                stamped = Stamped(self._seq, at, producer, msgspec.Raw(encode(frame)))
                self._queue.append(stamped)
                if isinstance(frame, Tokens):
                    self._token_queue.append(stamped)
            self._lock.notify_all()

    @property
    def head(self) -> int:
        return self._seq

    def wait(self, timeout: float) -> bool:
        with self._lock:
            return self._lock.wait_for(lambda: bool(self._queue), timeout)

    def drain(self, limit: int) -> list[Stamped]:
        with self._lock:
            taken, self._queue = self._queue[:limit], self._queue[limit:]
        return taken

    def tokens(self, on: bool) -> str:
        self.tokens_on = on and not self.no_tokens
        return self.no_tokens if on else ""

    def drain_tokens(self, limit: int) -> list[Stamped]:
        with self._lock:
            if not self.tokens_on:
                return []
            taken, self._token_queue = self._token_queue[:limit], self._token_queue[limit:]
            self.tokens_given = taken[-1].seq if taken else self.tokens_given
        return taken

    def link(self) -> Link:
        return self.state

    def command(self, verb: Verb, args: dict[str, str], generation: int) -> str:
        if self.refuse:
            raise SourceError(self.refuse)
        if self.holder:
            who = f"operator bo ({self.holder})"
            raise LeaseHeldError(f"the hub of run {self.run}: {who} has been at the controls; take over")
        self.sent.append((verb, args, generation))
        identity = f"c{len(self.sent)}"
        self.feed([Command(identity, verb, args, generation, 0.0, "operator ana")])
        return identity

    def ack(self, identity: str, state: AckState, detail: str = "", data: Data | None = None) -> None:
        self.feed([Ack(identity, state, START, detail, data or {})])

    def hold(self, session: str, *, published: bool = True) -> None:
        """Another session takes the lease; not `published`: its frame has not come yet."""
        self.holder = session
        if published:
            self.feed([Lease("operator bo", session, START, START + 120)])

    def take_lease(self) -> str:
        former, self.holder = self.holder, ""
        self.taken.append(former)
        self.feed([Lease("operator ana", self.session, START, START + 120)])
        return former

    def release_lease(self) -> None:
        self.feed([Lease()])

    def close(self) -> None:
        self.closed = True


def run_state(step: int = 0, status: RunStatus = "running", **changes: object) -> RunState:
    state = RunState("demo-7f3a", status, step, 90, max(step - 1, 0) // 2, START, "gspo", "tiny-qwen2", 0.7)
    return msgspec.structs.replace(state, **changes)


def engines(count: int = 2, **changes: object) -> list[EngineState]:
    states = []
    for i in range(count):
        state = EngineState(
            f"engine-{i}",
            "running",
            41 - i,
            START,
            16,
            i,
            0.12 + 0.05 * i,
            0.34,
            940.0 + 20 * i,
            0,
            "node-a",
            100 + i,
            "cpu",
            "0.32.0",
        )
        states.append(msgspec.structs.replace(state, **changes))
    return states


def fix_state(
    fix: str,
    requested: str,
    effective: Iterable[str],
    how: How = "live",
    version: int = -1,
    detail: str = "",
    step: int = -1,
) -> FixState:
    reported = tuple(EngineFix(f"engine-{i}", value, how, version, step) for i, value in enumerate(effective))
    by = "config" if version < 0 else "operator ana"
    return FixState(fix, requested, 0 if version < 0 else 1, by, START, how, reported, detail)


def default_fixes() -> list[FixState]:
    return [
        fix_state("processed-logprobs", "off", ("off", "off")),
        fix_state("prefix-cache-off", "off", ("off", "off")),
        fix_state("async-scheduling-off", "off", ("", ""), "not_available", detail="not available on cpu"),
        fix_state("inflight-keep", "off", ("off", "off"), "next_sync"),
        fix_state("fp32-lm-head", "off", ("off", "off")),
    ]


def metrics(step: int, *, fixed_from: int = 10**9) -> Metrics:
    """One step of a run that drifts with vLLM's defaults and comes home from step `fixed_from` on."""
    wobble = math.sin(step * 1.7) * 0.5 + math.sin(step * 0.61 + 2) * 0.5
    drift = min(step, fixed_from) / 40
    healed = max(step - fixed_from, 0) / 25
    fixed = step >= fixed_from
    values = {
        "reward/mean": max(0.42 - 0.25 * drift + 0.55 * min(healed, 1.2), 0.02) + 0.02 * wobble,
        "policy/clip_fraction": 0.03 + 0.004 * wobble if fixed else 0.12 + 0.1 * drift + 0.02 * wobble,
        "policy/kl_new_old": 0.004 + 0.001 * wobble if fixed else 0.05 + 0.08 * drift + 0.02 * wobble,
        "policy/entropy": 1.1 + 0.5 * drift - 0.6 * min(healed, 1.5) + 0.03 * wobble,
        "mismatch/abs_diff_mean": 0.0121 + 0.002 * wobble if fixed else 0.41 + 0.06 * wobble,
        "async/version_lag_mean": 1.2 + 0.4 * wobble,
        "engine/tokens_per_s": 1900 + 140 * wobble,
        "sync/total_s": 0.11,
    }
    labels = {"policy/clip_fraction": "gspo", "policy/entropy": "exact"}
    return Metrics(step, step // 2, START + step, values, labels)


def history(steps: int, *, fixed_from: int = 10**9) -> list[Frame]:
    """A run of `steps` steps, with its events and, from `fixed_from`, every available fix on."""
    frames: list[Frame] = [
        Event(START, "info", "run.start", "run started: gspo, tiny-qwen2, T 0.7"),
        *default_fixes(),
    ]
    for step in range(1, steps + 1):
        if step == fixed_from:
            for fix in ("processed-logprobs", "prefix-cache-off", "fp32-lm-head"):
                frames.append(fix_state(fix, "on", ("on", "on"), version=step // 2, step=step))
                frames.append(Event(START, "info", "fix.applied", f"{fix} on, 2/2 engines", step))
        frames.append(metrics(step, fixed_from=fixed_from))
        if step % 10 == 0:
            text = f"sync v{step // 2} pause 0.03 load 0.06 resume 0.01 s"
            frames.append(Event(START, "info", "sync.done", text, step))
    if fixed_from > steps:
        frames.append(Event(START, "warn", "health", "mismatch 0.41 is beyond its limit 0.05", steps))
    return [*frames, run_state(steps), *engines()]


SAYING = (
    "The", " reverse", " of", " the", " digits", " is", " ", "7", "2", "9", "4", "1", ".", "\n", "So", " we", " check",
    ":", " ", "1", "4", "9", "2", "7", " read", " back", "wards", " gives", " the", " same", " number", " so", " done",
)  # fmt: skip


def token_frame(step: int, *, sequences: int = 8, length: int = 24, pieces: bool = True, apart: float = 0.01) -> Tokens:
    """Sequences of two engines whose logprobs are `apart` and in a few tokens far more; some sampled across a sync."""
    rng = np.random.default_rng(step)
    n = sequences * length
    seq, position = np.repeat(np.arange(sequences), length), np.tile(np.arange(length), sequences)
    rollout = -rng.exponential(0.4, n)
    diff = rng.normal(0, apart, n) * (1 + 4 * (position < 3))
    far = rng.random(n) < 0.01
    diff[far] *= rng.uniform(10, 120, int(far.sum()))
    version = np.where((seq % 4 == 1) & (position < length // 2), step - 2, np.where(seq % 4 == 2, step - 1, step))
    places = zip(seq.tolist(), position.tolist(), strict=True)
    words = [SAYING[(i * 7 + step) % 5 + j] if j < 5 else SAYING[j % len(SAYING)] for i, j in places]
    return Tokens(
        step, step, START + step, n,
        np.asarray(1000 + position * 37 % 911, "<i4").tobytes(), np.asarray(seq, "<i4").tobytes(),
        np.asarray(position, "<i4").tobytes(), np.asarray(version, "<i4").tobytes(),
        np.asarray(rollout, "<f4").tobytes(), np.asarray(np.minimum(rollout + diff, 0), "<f4").tobytes(),
        tuple(f"engine-{i % 2}" for i in range(sequences)),
        tuple(f"reverse {72941 + 613 * i + step} =" for i in range(sequences)),
        tuple(float(i % 3 == 0) for i in range(sequences)),
        tuple(words) if pieces else (),
    )  # fmt: skip
