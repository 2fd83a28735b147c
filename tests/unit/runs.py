"""Runs for the tests of tables and exports: journals by the writer that hubs use, with every kind of frame."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from driftline.frames import (
    Ack,
    Command,
    Effect,
    EngineFix,
    EngineState,
    Event,
    FixState,
    Frame,
    Measure,
    Metrics,
    RunState,
    Span,
    Tokens,
    encode,
)
from driftline.journal.journal import Journal, Record, record_encoder
from driftline.rundir import RunDir

NOW = 1_790_000_000.25


def journal(run: RunDir, frames: Iterable[Frame], producer: str = "trainer") -> None:
    """Write frames as a hub would, after those that are there."""
    log = Journal(run.journal)
    for frame in frames:
        seq = log.head + 1
        record = Record(seq, NOW + seq, producer, msgspec.Raw(encode(frame)), 1, seq)
        log.append(record_encoder.encode(record), seq, not isinstance(frame, Tokens))
    log.close()


def tokens(step: int, sequences: int = 3, length: int = 5, *, pieces: bool = True, seed: int = 0) -> Tokens:
    """Sequences of one length, interleaved as a batch is; the last has no engine and no reward."""
    rng = np.random.default_rng(seed + step)
    n = sequences * length
    own = np.tile(np.arange(sequences, dtype="<i4"), length)
    rollout = -rng.exponential(1.0, n).astype("<f4")
    return Tokens(
        step, step, NOW + step, n,
        rng.integers(0, 1000, n).astype("<i4").tobytes(), own.tobytes(),
        np.repeat(np.arange(length, dtype="<i4"), sequences).tobytes(),
        np.full(n, step, dtype="<i4").tobytes(), rollout.tobytes(),
        (rollout + rng.normal(0, 0.01, n)).astype("<f4").tobytes(),
        tuple(f"engine-{i % 2}" for i in range(sequences - 1)),
        tuple(f"prompt {i}" for i in range(sequences)), tuple(0.5 * i for i in range(sequences - 1)),
        tuple(f"t{i}" for i in range(n)) if pieces else (),
    )  # fmt: skip


def whole(steps: int = 30) -> list[Frame]:
    """Frames of every kind, some with numbers that make trouble."""
    frames: list[Frame] = [RunState("r", "running", 0, steps, 0, NOW, config_digest="abc123")]
    on = EngineFix("engine-0", "on", "live", 3, 2, "since then")
    for step in range(1, steps + 1):
        values = {"reward": step / 7, "kl_new_old": step / 3, "policy/entropy": math.nan, "mine": -math.inf}
        if step % 3 == 0:
            values["sync/total_s"] = 0.25
        frames += [
            Metrics(step, step // 2, NOW + step, values, {"policy/entropy": "exact"}),
            tokens(step, pieces=step % 2 == 0),
            *(
                Span(f"s{step}", engine, phase, NOW + step, 0.125, step, step + 1, step, 1_000, 3, True, "", 7, result)
                for engine in ("engine-0", "engine-1")
                for phase, result in (("pause", ""), ("load", ""), ("verify", "digest"), ("reset", "kept"))
            ),
            EngineState("engine-0", "running", step, NOW + step, running=7),
        ]
    ident = "0123"
    return [
        *frames,
        Metrics(steps + 1, 7, NOW, {}),
        Event(NOW, "warn", "sync.slow", "slow é", 4, {"seconds": math.inf, "ok": False}),
        FixState("prefix-cache-off", "on", 1, "operator local", NOW, "live", (on, EngineFix("engine-1", "", "live"))),
        FixState("fp32-lm-head", "on", 1, "operator local", NOW, "next_sync", ()),
        Effect(
            "e1", (("fp32-lm-head", "off", "on"),), 9, 4, NOW,
            measures=(Measure("mismatch/abs_diff_mean", 0.2, 0.01, -0.2, math.nan, 500, 600),), done=True,
        ),
        Command(ident, "sync", {"why": "now"}, issuer="operator local"),
        Ack(ident, "accepted", NOW + 1),
        Ack(ident, "applied", NOW + 3, "done", {"seconds": 1.5}),
        Command("4567", "pause", {}, deadline=NOW + 30),
    ]  # fmt: skip


def size_of(path: Path) -> int:
    """Bytes of a folder's files."""
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
