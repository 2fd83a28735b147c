"""A simulated run: engines that sample, a trainer that scores and learns, and the Tokens frames of its steps.

Both sides are computed: the engine token by token over cached keys and values, the trainer over whole sequences.
What is healthy differs by float rounding alone, as in a real run; a fault changes what one side computes or reports.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from driftline.frames import Tokens
from driftline.pairs.shown import pick
from tests.diagnosis.faults import Faults, shift
from tests.diagnosis.tasks import END, Task
from tests.diagnosis.tiny import EXACT, Numerics, Weights, forward


@dataclass(frozen=True)
class World:
    """What a run is apart from its faults. `lag`: most versions that a token is behind in a healthy run; `spans`: share
    of the sequences that are in flight at an update; `shown`: the frame has the worst and some random sequences."""

    task: Task
    start: Weights
    temperature: float = 0.7
    engines: int = 2
    groups: int = 8
    samples: int = 4
    lr: float = 1e-3
    lag: int = 1
    spans: float = 0.1
    shown: bool = False
    engine: Numerics = EXACT
    trainer: Numerics = EXACT


@dataclass
class Step:
    """A step's frame, and the metrics of it that a trainer reports."""

    frame: Tokens
    values: dict[str, float] = field(default_factory=dict)


@dataclass
class _Rolled:
    tokens: np.ndarray
    rollout: np.ndarray
    lengths: np.ndarray
    versions: np.ndarray


def simulate(world: World, faults: Faults, seed: int, steps: int) -> Iterator[Step]:
    """Step by step; the same arguments give the same run."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    versions = [world.start]
    policy = {name: one.clone().requires_grad_() for name, one in world.start.items()}
    optimizer = torch.optim.AdamW(list(policy.values()), lr=world.lr, weight_decay=0.0)
    for step in range(1, steps + 1):
        version = step - 1
        prompts = np.repeat(world.task.prompts(world.groups, random), world.samples, axis=0)
        rows = len(prompts)
        engine = random.permutation(np.arange(rows) % world.engines)
        most = min(version, world.lag + (5 if faults.find("lag", -1, version) else 0))
        sampled = version - random.integers(0, most + 1, rows)
        spanning = (random.random(rows) < world.spans) & (sampled < version)
        if faults.find("in-flight-kv", -1, version):
            spanning |= (random.random(rows) < 0.4) & (sampled < version)
        with torch.no_grad():
            rolled = _roll(world, faults, versions, prompts, engine, sampled, spanning, random)
            trainer, stale = _score(world, faults, versions, version, prompts, rolled, engine, random)
        rewards = np.array(
            [world.task.reward(p, a[:n]) for p, a, n in zip(prompts, rolled.tokens, rolled.lengths, strict=True)]
        )
        yield Step(
            _frame(world, step, version, prompts, engine, rolled, trainer, rewards, faults, random),
            {
                "staleness/abs_diff_mean": stale,
                "async/version_lag_mean": _mean(version - rolled.versions, rolled.lengths),
            },
        )
        _learn(world, policy, optimizer, prompts, rolled, rewards)
        versions.append({name: one.detach().clone() for name, one in policy.items()})


def _mean(values: np.ndarray, lengths: np.ndarray) -> float:
    return float(values[np.arange(values.shape[1]) < lengths[:, None]].mean())


def _roll(
    world: World,
    faults: Faults,
    versions: list[Weights],
    prompts: np.ndarray,
    engine: np.ndarray,
    sampled: np.ndarray,
    spanning: np.ndarray,
    random: np.random.Generator,
) -> _Rolled:
    rows, most = len(prompts), world.task.answer
    made = _Rolled(
        np.zeros((rows, most), dtype=np.int64),
        np.zeros((rows, most)),
        np.full(rows, most),
        np.repeat(sampled[:, None], most, axis=1),
    )
    cut = int(random.integers(2, max(most // 2, 3)))
    for e in np.unique(engine):
        for version in np.unique(sampled[engine == e]):
            for spans in (False, True):
                chosen = np.flatnonzero((engine == e) & (sampled == version) & (spanning == spans))
                if chosen.size:
                    _batch(
                        world,
                        faults,
                        versions,
                        prompts,
                        chosen,
                        int(e),
                        int(version),
                        cut if spans else -1,
                        made,
                        random,
                    )
    return made


def _batch(
    world: World,
    faults: Faults,
    versions: list[Weights],
    prompts: np.ndarray,
    chosen: np.ndarray,
    engine: int,
    version: int,
    cut: int,
    made: _Rolled,
    random: np.random.Generator,
) -> None:
    shape, task = world.task.shape, world.task
    given = torch.from_numpy(prompts[chosen])
    weights = faults.held(versions, engine, version)
    numerics = _engine_numerics(world, faults, engine, version)
    stale = faults.find("stale-prefix-cache", engine, version)
    hits = random.random(len(chosen)) < (stale.size if stale else 0)
    logits, cache = forward(weights, given, shape, numerics=numerics)
    if stale and hits.any():
        old = versions[max(stale.at - 1, 0)]
        _, prefix = forward(old, given[:, : task.prefix], shape, numerics=numerics)
        again, mixed = forward(weights, given[:, task.prefix :], shape, prefix, numerics)
        hit = torch.from_numpy(hits)
        logits = torch.cat([logits[:, : task.prefix], again], 1) * hit[:, None, None] + logits * ~hit[:, None, None]
        rows_hit = hit[:, None, None, None]
        cache = [
            (torch.where(rows_hit, new[0], own[0]), torch.where(rows_hit, new[1], own[1]))
            for new, own in zip(mixed, cache, strict=True)
        ]
    seen = torch.zeros(len(chosen), shape.vocab).scatter_add_(1, given, torch.ones_like(given, dtype=torch.float))
    alive = np.ones(len(chosen), dtype=bool)
    last = logits[:, -1]
    tokens = torch.zeros(len(chosen), task.answer, dtype=torch.int64)
    raw = faults.find("raw-logprobs", engine, version) is not None
    for at in range(task.answer):
        if at == cut:
            version += 1
            weights = faults.held(versions, engine, version)
            if faults.find("in-flight-kv", engine, version) is None:
                whole = torch.cat([given, tokens[:, :at]], 1)
                again, cache = forward(weights, whole, shape, numerics=numerics)
                last = again[:, -1]
        if 0 <= cut <= at:
            made.versions[chosen, at] = version
        logprobs = faults.process(last, seen, at, world.temperature, engine, version)
        drawn = torch.multinomial(logprobs.exp(), 1)
        said = (last.log_softmax(-1) if raw else logprobs).gather(1, drawn)[:, 0]
        tokens[:, at] = drawn[:, 0]
        seen.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float))
        rows = chosen[alive]
        made.tokens[rows, at] = drawn[:, 0].numpy()[alive]
        made.rollout[rows, at] = said.numpy()[alive]
        ended = alive & (drawn[:, 0].numpy() == END)
        made.lengths[chosen[ended]] = at + 1
        alive &= ~ended
        if not alive.any():
            return
        logits, cache = forward(weights, drawn, shape, cache, numerics)
        last = logits[:, -1]


def _engine_numerics(world: World, faults: Faults, engine: int, version: int) -> Numerics:
    numerics = world.engine
    if (one := faults.find("head-bf16", engine, version)) is not None and one.size == 0:
        numerics = Numerics(numerics.body, torch.bfloat16, scale=numerics.scale)
    if (one := faults.find("attention-scale", engine, version)) is not None:
        numerics = Numerics(numerics.body, numerics.head, scale=one.size)
    return numerics


def _score(
    world: World,
    faults: Faults,
    versions: list[Weights],
    version: int,
    prompts: np.ndarray,
    rolled: _Rolled,
    engine: np.ndarray,
    random: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Trainer's logprobs [B, R] under each token's weights, and the mean staleness."""
    under = {
        int(one): _logprobs(world, faults, versions[int(one)], prompts, rolled, version)
        for one in np.unique(rolled.versions)
    }
    now = under.get(version)
    if now is None:
        now = _logprobs(world, faults, versions[version], prompts, rolled, version)
    own = np.zeros_like(now)
    for sampled, values in under.items():
        own = np.where(rolled.versions == sampled, values, own)
    stale = _mean(np.abs(now - own), rolled.lengths)
    lag = faults.find("lag", -1, version)
    if lag is not None and lag.size == 1:
        own = now  # a trainer that has its newest weights only
    if (one := faults.find("shifted-ids", -1, version)) is not None:
        start = random.integers(0, 4, len(prompts)) if abs(one.size) == 2 else np.zeros(len(prompts), dtype=np.int64)
        own = shift(own, rolled.lengths, start, 1 if one.size > 0 else -1)
    if faults.find("rows-mixed", -1, version) is not None:
        some = random.random(len(prompts)) < 0.3
        own[some] = np.roll(own[some], 1, axis=0)
    return own, stale


def _logprobs(
    world: World, faults: Faults, weights: Weights, prompts: np.ndarray, rolled: _Rolled, version: int
) -> np.ndarray:
    numerics, temperature = world.trainer, world.temperature
    if (one := faults.find("dropout", -1, version)) is not None:
        numerics = Numerics(numerics.body, numerics.head, one.size)
    if (one := faults.find("head-bf16", -1, version)) is not None and one.size == 1:
        numerics = Numerics(numerics.body, torch.bfloat16)
    if (one := faults.find("trainer-temperature", -1, version)) is not None:
        temperature += one.size
    ids = torch.from_numpy(np.concatenate([prompts, rolled.tokens], axis=1))
    if faults.find("bos-template", -1, version) is not None:
        ids = ids.clone()
        ids[:, 0] = 3
    offset: torch.Tensor | int = 0
    if (one := faults.find("padded-positions", -1, version)) is not None:
        offset = torch.from_numpy(np.random.default_rng(1).integers(0, int(one.size), len(ids)))[:, None]
    parts = [
        forward(
            weights,
            part,
            world.task.shape,
            numerics=numerics,
            offset=offset if isinstance(offset, int) else offset[place],
        )[0]
        for place, part in _micro(ids)
    ]
    logits = torch.cat(parts)[:, prompts.shape[1] - 1 : -1]
    if (one := faults.find("padded-vocabulary", -1, version)) is not None:
        logits = torch.cat([logits, torch.zeros(*logits.shape[:2], int(one.size))], -1)
    answers = ids[:, prompts.shape[1] :]
    made: np.ndarray = (logits / temperature).log_softmax(-1).gather(2, answers[..., None])[..., 0].double().numpy()
    return made


def _micro(ids: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Micro-batches of a size of their own, as a trainer has them."""
    for begin in range(0, len(ids), 12):
        yield slice(begin, begin + 12), ids[begin : begin + 12]


def _learn(
    world: World,
    policy: Weights,
    optimizer: torch.optim.Optimizer,
    prompts: np.ndarray,
    rolled: _Rolled,
    rewards: np.ndarray,
) -> None:
    """Two passes of policy gradient with the group's mean as baseline."""
    grouped = rewards.reshape(world.groups, world.samples)
    gain = (grouped - grouped.mean(axis=1, keepdims=True)) / (grouped.std() + 1e-3)
    weight = torch.from_numpy(gain.reshape(-1, 1) * (np.arange(rolled.tokens.shape[1]) < rolled.lengths[:, None]))
    ids = torch.from_numpy(np.concatenate([prompts, rolled.tokens], axis=1))
    for _ in range(2):
        logits, _cache = forward(policy, ids[:, :-1], world.task.shape)
        logprobs = (logits[:, prompts.shape[1] - 1 :] / world.temperature).log_softmax(-1)
        own = logprobs.gather(2, ids[:, prompts.shape[1] :, None])[..., 0]
        loss = -(own * weight.float()).sum() / float(rolled.lengths.sum())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _frame(
    world: World,
    step: int,
    version: int,
    prompts: np.ndarray,
    engine: np.ndarray,
    rolled: _Rolled,
    trainer: np.ndarray,
    rewards: np.ndarray,
    faults: Faults,
    random: np.random.Generator,
) -> Tokens:
    rollout = rolled.rollout.copy()
    for row, length in enumerate(rolled.lengths):
        if faults.find("placeholder-zero", int(engine[row]), version) is not None:
            rollout[row, length - 1] = 0.0
    inside = np.arange(rollout.shape[1]) < rolled.lengths[:, None]
    rows = np.arange(len(prompts))
    if world.shown:
        rows = pick(np.where(inside, np.abs(trainer - rollout), 0).sum(1) / rolled.lengths, rows, random)
    keep = inside[rows]
    seq, position = np.nonzero(keep)

    def blob(values: np.ndarray, kind: str) -> bytes:
        return np.ascontiguousarray(values[rows][keep], dtype=kind).tobytes()

    return Tokens(
        step=step,
        version=version,
        time=1e9 + step,
        n=int(seq.size),
        ids=blob(rolled.tokens, "<i4"),
        seq=seq.astype("<i4").tobytes(),
        position=position.astype("<i4").tobytes(),
        token_version=blob(rolled.versions, "<i4"),
        rollout=blob(rollout, "<f4"),
        trainer=blob(trainer, "<f4"),
        engines=tuple(f"engine-{engine[row]}" for row in rows),
        prompts=tuple(" ".join(map(str, prompts[row])) for row in rows),
        rewards=tuple(float(rewards[row]) for row in rows),
    )
