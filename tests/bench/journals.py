"""Large journals in little time: what a hub would have written, without the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from driftline.catalog.metrics import METRICS
from driftline.frames import Frame, Metrics, Tokens, encode
from driftline.journal.records import Record, pack_head, pack_header, record_encoder
from driftline.rundir import RunDir, create

SEGMENT_BYTES = 64 * 1024 * 1024
BEGIN = 1_790_000_000.0
NAMES = [metric.name for metric in METRICS][:30]


def metrics_run(root: Path, steps: int) -> RunDir:
    """A run of `steps` reports of 30 numbers that wander."""
    return write(create(root, "metrics"), metrics(steps))


def metrics(steps: int) -> Iterator[Metrics]:
    """The reports of such a run."""
    rng = np.random.default_rng(7)
    last = np.zeros(len(NAMES))
    for begin in range(0, steps, 10_000):
        walk = last + np.cumsum(rng.normal(0, 0.01, (min(10_000, steps - begin), len(NAMES))), axis=0)
        last = walk[-1]
        for at, row in enumerate(walk.tolist(), begin):
            yield Metrics(at, at // 2, BEGIN + at, dict(zip(NAMES, row, strict=True)))


def tokens_run(root: Path, tokens: int, sequences: int = 16, length: int = 1024) -> RunDir:
    """A run of at least `tokens` tokens, `sequences` of `length` a frame, as a trainer with two engines sends them."""
    rng = np.random.default_rng(7)
    n = sequences * length
    own = np.repeat(np.arange(sequences, dtype="<i4"), length).tobytes()
    position = np.tile(np.arange(length, dtype="<i4"), sequences).tobytes()
    engines = tuple(f"engine-{at % 2}" for at in range(sequences))

    def frames() -> Iterator[Frame]:
        for step in range(-(-tokens // n)):
            rollout = -rng.exponential(1.0, n).astype("<f4")
            trainer = rollout + rng.normal(0, 0.01, n).astype("<f4")
            ids = rng.integers(0, 150_000, n).astype("<i4")
            version = np.full(n, step, dtype="<i4")
            yield Tokens(
                step, step, BEGIN + step, n, ids.tobytes(), own, position, version.tobytes(), rollout.tobytes(),
                trainer.astype("<f4").tobytes(), engines,
            )  # fmt: skip

    return write(create(root, "tokens"), frames())


def write(run: RunDir, frames: Iterator[Frame]) -> RunDir:
    """Segments of a journal, of the size that hubs make them."""
    number, left = 0, 0
    file = None
    for seq, frame in enumerate(frames, 1):
        if left <= 0:
            if file is not None:
                file.close()
            number, left = number + 1, SEGMENT_BYTES
            file = (run.journal / f"{number:06d}.rlj").open("wb")
            file.write(pack_header(1, seq, BEGIN))
        record = record_encoder.encode(Record(seq, BEGIN + seq, "trainer", msgspec.Raw(encode(frame)), 1, seq))
        assert file is not None, "the first frame opens one"
        left -= file.write(pack_head(record, seq) + record)
    if file is not None:
        file.close()
    return run
