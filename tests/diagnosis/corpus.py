"""Many simulated runs with known faults, drawn at random: worlds, faults and their sizes. Written once, read often.

python -m tests.diagnosis.corpus OUT SEEDS [--first N] [--only NAME,...]    # one file a run: OUT/<name>-<seed>.runs
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch

from driftline.frames import encode
from tests.diagnosis.faults import Fault, Faults
from tests.diagnosis.runs import Step, World, simulate
from tests.diagnosis.tasks import Task, learned
from tests.diagnosis.tiny import EXACT, Numerics, Shape, Weights

KNOWN: Final = (
    "none", "raw-logprobs", "stale-prefix-cache", "head-bf16", "missed-sync", "layer-not-loaded", "layers-swapped",
    "head-not-sent", "trainer-temperature", "top-p", "top-k", "min-tokens", "repetition-penalty", "dropout",
    "shifted-ids", "placeholder-zero", "in-flight-kv", "lag",
)  # fmt: skip
FOREIGN: Final = (
    "padded-vocabulary", "bos-template", "padded-positions", "attention-scale", "quantised-weights", "rows-mixed",
)  # fmt: skip
"""Faults that the calibration does not see."""
PAIRS: Final = (
    "raw-logprobs+placeholder-zero", "raw-logprobs+missed-sync", "raw-logprobs+stale-prefix-cache",
    "top-p+placeholder-zero", "dropout+missed-sync", "trainer-temperature+placeholder-zero",
    "in-flight-kv+placeholder-zero", "raw-logprobs+in-flight-kv", "head-bf16+missed-sync", "dropout+placeholder-zero",
    "min-tokens+missed-sync", "repetition-penalty+missed-sync", "stale-prefix-cache+placeholder-zero",
    "shifted-ids+missed-sync", "head-not-sent+placeholder-zero",
)  # fmt: skip
STEPS: Final = 14


class Recorded(msgspec.Struct, frozen=True):
    """A run as it is kept: its faults, facts, and frames."""

    name: str
    faults: tuple[tuple[str, int, int, float], ...]
    temperature: float
    dtype: str
    frames: tuple[bytes, ...]
    values: tuple[dict[str, float], ...]


@functools.cache
def _base(kind: str, model: int) -> tuple[Task, Weights]:
    vocab = 64 if kind == "digits" else (128, 256)[model % 2]
    shape = Shape(vocab=vocab, layers=2 + model % 2, tied=model % 3 != 2, hidden=48)
    task = Task("digits" if kind == "digits" else "chain", shape, 100 + model, answer=10 if kind == "digits" else 16)
    return task, learned(task, 40 + 20 * (model % 3))


def world(seed: int) -> World:
    """A world drawn by `seed`: task, model, temperature, engines, types, learning rate."""
    random = np.random.default_rng(seed + 7_000)
    task, start = _base("digits" if random.random() < 0.5 else "chain", int(random.integers(0, 3)))
    wide, rounded = random.random() < 0.25, random.random() < 0.5
    body = Numerics(torch.bfloat16, torch.bfloat16 if rounded else torch.float32) if wide else EXACT
    if not wide and random.random() < 0.15:
        body = Numerics(torch.float32, torch.bfloat16)
    return World(
        task,
        start,
        temperature=float(random.choice([0.6, 0.7, 0.8, 0.9])),
        engines=int(random.choice([1, 2, 2, 3, 4])),
        groups=int(random.choice([4, 8])),
        samples=int(random.choice([4, 8])),
        lr=float(random.choice([3e-4, 1e-3, 2e-3])),
        lag=int(random.choice([0, 1, 1, 2])),
        spans=float(random.choice([0.0, 0.1, 0.3])),
        shown=bool(random.random() < 0.4),
        engine=body,
        trainer=body,
    )


def fault(name: str, seed: int, of: World) -> Fault:
    """The fault with a size, an onset and a place drawn by `seed`."""
    random = np.random.default_rng(seed + 11_000)
    at = int(random.integers(1, 5))
    one = int(random.integers(0, of.engines)) if of.engines > 1 else -1
    some = one if random.random() < 0.5 else -1
    start = 0 if random.random() < 0.7 else at
    match name:
        case "stale-prefix-cache":
            return Fault(name, at, size=float(random.choice([0.5, 1.0])))
        case "head-bf16":
            return Fault(name, start, size=float(random.integers(0, 2)))
        case "missed-sync":
            return Fault(name, at, one, float(random.integers(0, 2)))
        case "layer-not-loaded":
            return Fault(name, at, some, float(random.integers(0, of.task.shape.layers)))
        case "layers-swapped" | "head-not-sent":
            return Fault(name, at)  # a sender's error: it is on all engines
        case "trainer-temperature":
            return Fault(name, start, size=float(random.choice([-0.1, 0.1])))
        case "top-p":
            return Fault(name, start, size=float(random.choice([0.9, 0.95, 0.8])))
        case "top-k":
            return Fault(name, start, size=float(random.choice([4, 8])))
        case "min-tokens":
            return Fault(name, start, size=float(random.choice([4, 6] if of.task.kind == "digits" else [8, 10])))
        case "repetition-penalty":
            return Fault(name, start, size=float(random.choice([1.05, 1.1, 1.2])))
        case "dropout":
            return Fault(name, start, size=float(random.choice([0.05, 0.1])))
        case "shifted-ids":
            return Fault(name, start, size=float(random.choice([1, -1, 2])))
        case "in-flight-kv":
            return Fault(name, at)
        case "lag":
            return Fault(name, 0, size=1.0)
        case "padded-vocabulary":
            return Fault(name, start, size=float(of.task.shape.vocab // 2))
        case "padded-positions":
            return Fault(name, start, size=6)
        case "attention-scale":
            return Fault(name, start, size=0.8)
        case "quantised-weights":
            return Fault(name, start, size=5)
        case _:
            return Fault(name, start)


def record(names: Sequence[str], seed: int, steps: int = STEPS, *, wide: bool = True) -> Recorded:
    """A run with these faults; without `wide` in float32 on both sides: a CPU may have to emulate bfloat16."""
    of = world(seed)
    if not wide:
        of = replace(of, engine=EXACT, trainer=EXACT)
    if {"missed-sync", "in-flight-kv"} & set(names):
        of = replace(of, engines=max(of.engines, 2), lag=max(of.lag, 1))
    if "head-bf16" in names:
        of = replace(of, engine=EXACT, trainer=EXACT)  # beside a bfloat16 body it is the floor
    faults = Faults(fault(name, seed, of) for name in names if name != "none")
    made: list[Step] = list(simulate(of, faults, seed, steps))
    return Recorded(
        "+".join(names) or "none",
        tuple((one.name, one.at, one.engine, one.size) for one in faults),
        of.temperature,
        "float32" if of.engine.body is torch.float32 else "bfloat16",
        tuple(encode(one.frame) for one in made),
        tuple(one.values for one in made),
    )


def read(folder: Path) -> Iterator[Recorded]:
    """Every run that was written, in the order of their names."""
    for path in sorted(folder.glob("*.runs")):
        yield msgspec.msgpack.decode(path.read_bytes(), type=Recorded)


def main() -> None:
    """Write runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("seeds", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default=",".join(KNOWN))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in range(args.first, args.first + args.seeds):
        for name in args.only.split(","):
            path = args.out / f"{name}-{seed:04d}.runs"
            if not path.exists():
                path.write_bytes(msgspec.msgpack.encode(record(name.split("+"), seed)))


if __name__ == "__main__":
    main()
