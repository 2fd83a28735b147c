"""Token pairs as flat columns, and what follows from them for every instrument. Pure numpy.

n tokens; token i belongs to sequence `seq[i]`, numbered over the run. d = rollout - trainer in nats: above 0 the engine
gave its token more than the trainer does. Tokens whose logprobs are not finite are left out and counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MOST: Final = 50.0
"""Nats. A larger |d| counts as this: a logprob of -1e30 stands for "not possible", and one must not hide the others."""
CERTAIN: Final = 1e-5
"""Nats. A logprob nearer to 0 is one of a token that was as good as certain: an engine's exact 0.0 says nothing
there. A float32 logprob is 0.0 from 6e-8 on; a hundred times that is more than another temperature makes of it."""


class Frame(Protocol):
    """What is read of a Tokens frame; `driftline.frames.Tokens` and the store's lean one both are."""

    @property
    def step(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def ids(self) -> bytes: ...
    @property
    def seq(self) -> bytes: ...
    @property
    def position(self) -> bytes: ...
    @property
    def token_version(self) -> bytes: ...
    @property
    def rollout(self) -> bytes: ...
    @property
    def trainer(self) -> bytes: ...
    @property
    def engines(self) -> tuple[str, ...]: ...
    @property
    def prompts(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Columns:
    """All arrays have length n. `version` is that of the weights that sampled a token, -1 where it is not known; `lag`
    how far it was behind the trainer, 0 where that is not known. `engine` is a place in `engines`, -1 for unknown;
    `prompt` a number of the prompt's text, -1 for unknown. `last` marks the last token of its sequence. `left_out`
    counts tokens without two finite logprobs.
    """

    step: Ints
    version: Ints
    lag: Ints
    seq: Longs
    prompt: Longs
    engine: Ints
    position: Ints
    ids: Ints
    last: Mask
    rollout: Floats
    trainer: Floats
    engines: tuple[str, ...] = ()
    left_out: int = 0

    def __len__(self) -> int:
        return int(self.ids.size)

    @cached_property
    def d(self) -> Floats:
        """Engine's logprob minus trainer's, nats, within +-MOST."""
        return np.clip(self.rollout - self.trainer, -MOST, MOST)

    @cached_property
    def size(self) -> Floats:
        """|d|."""
        return np.abs(self.d)

    @cached_property
    def zero(self) -> Mask:
        """Where the engine's logprob is exactly 0.0 although the trainer's token was not certain."""
        found: Mask = (self.rollout == 0.0) & (self.trainer < -CERTAIN)
        return found

    @cached_property
    def begins(self) -> Longs:
        """Places at which a sequence begins: tokens of one sequence stand together, in the order of their positions."""
        return np.flatnonzero(np.diff(self.seq, prepend=self.seq[:1] - 1)) if len(self) else np.zeros(0, dtype=np.int64)

    @cached_property
    def context(self) -> Longs:
        """A number for what a token was drawn after: prompt and all tokens before it. -1 where that is not known.

        Tokens with the same number have the same distribution, under the same weights. A hash of 62 bits: two contexts
        of 10^6 have the same one with a probability of 10^-7.
        """
        return _contexts(self)

    @cached_property
    def seam(self) -> Ints:
        """Tokens since the sequence's weights changed, 1 for the first under the new ones; 0 before, or without one."""
        return _seams(self)

    @cached_property
    def repeated(self) -> Mask:
        """Whether the id occurred before in the same sequence (its prompt is not known)."""
        made = np.ones(len(self), dtype=bool)
        if len(self):
            _, first = np.unique(self.seq * (1 << 32) + self.ids.astype(np.int64), return_index=True)
            made[first] = False
        return made

    def take(self, chosen: Mask) -> Columns:
        """Some of the tokens. Contexts, seams and repeats stay those of the whole sequences."""
        made = Columns(
            **{
                one.name: getattr(self, one.name)[chosen]
                if one.name not in ("engines", "left_out")
                else getattr(self, one.name)
                for one in fields(self)
            }
        )
        for name in ("context", "seam", "repeated"):
            made.__dict__[name] = getattr(self, name)[chosen]
        return made


def empty() -> Columns:
    """No tokens."""
    whole, wide = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
    real = np.zeros(0, dtype=np.float64)
    return Columns(whole, whole, whole, wide, wide, whole, whole, whole, np.zeros(0, dtype=bool), real, real)


def of_frame(frame: Frame, engines: Mapping[str, int], first_seq: int = 0) -> Columns:
    """The columns of one frame; its sequences are numbered from `first_seq`, its engines by `engines` (others: -1)."""
    ids, seq = _ints(frame.ids), _ints(frame.seq)
    position, version = _ints(frame.position), _ints(frame.token_version)
    rollout = np.frombuffer(frame.rollout, dtype="<f4").astype(np.float64)
    trainer = np.frombuffer(frame.trainer, dtype="<f4").astype(np.float64)
    order = np.lexsort((position, seq))
    if not np.array_equal(order, np.arange(order.size)):
        ids, seq, position, version, rollout, trainer = (
            one[order] for one in (ids, seq, position, version, rollout, trainer)
        )
    last = np.ones(ids.size, dtype=bool)
    last[:-1] = seq[1:] != seq[:-1]
    prompts = np.array([zlib.crc32(text.encode()) for text in frame.prompts], dtype=np.int64)
    names = np.array([engines.get(name, -1) for name in frame.engines], dtype=np.int32)
    lag = np.where((version >= 0) & (frame.version >= 0), np.maximum(frame.version - version, 0), 0)
    made = Columns(
        step=np.full(ids.size, frame.step, dtype=np.int32),
        version=version,
        lag=lag.astype(np.int32),
        seq=np.cumsum(np.concatenate([[False], seq[1:] != seq[:-1]])[: ids.size], dtype=np.int64) + first_seq,
        prompt=_by_sequence(prompts, seq),
        engine=_by_sequence(names, seq),
        position=np.maximum(position, 0),
        ids=ids,
        last=last,
        rollout=rollout,
        trainer=trainer,
        engines=tuple(engines),
    )
    finite = np.isfinite(rollout) & np.isfinite(trainer)
    if finite.all():
        return made
    return replace(made.take(finite), left_out=int((~finite).sum()))


def join(parts: Sequence[Columns], engines: Sequence[str]) -> Columns:
    """Several as one, in their order; all must number engines and sequences alike."""
    if not parts:
        return empty()
    arrays = {
        one.name: np.concatenate([getattr(part, one.name) for part in parts])
        for one in fields(Columns)
        if one.name not in ("engines", "left_out")
    }
    return Columns(**arrays, engines=tuple(engines), left_out=sum(part.left_out for part in parts))


def _ints(blob: bytes) -> Ints:
    return np.frombuffer(blob, dtype="<i4").astype(np.int32, copy=False)


_Number = TypeVar("_Number", bound=np.signedinteger[Any])


def _by_sequence(values: npt.NDArray[_Number], seq: Ints) -> npt.NDArray[_Number]:
    """A value per sequence as one per token; -1 where there is none."""
    made = np.full(seq.size, -1, dtype=values.dtype)
    known = (seq >= 0) & (seq < values.size)
    made[known] = values[seq[known]]
    return made


_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


def _contexts(columns: Columns) -> Longs:
    """Hashes of what stood before each token. A sum over the sequence of id times a factor of its position: the sum of
    those before a token does not depend on it. Sequences whose first tokens are missing have no known context."""
    n = len(columns)
    if not n:
        return np.zeros(0, dtype=np.int64)
    with np.errstate(over="ignore"):
        place = _scrambled(columns.position.astype(np.uint64) + np.uint64(1))
        terms = _scrambled(columns.ids.astype(np.int64).astype(np.uint64) + place)
        sums = np.cumsum(terms) - terms
        lengths = np.diff(np.append(columns.begins, n))
        before = sums - np.repeat(sums[columns.begins], lengths)
        made = before + _scrambled(columns.prompt.astype(np.uint64) + place)
    whole = np.repeat(columns.position[columns.begins] == 0, lengths) & (columns.prompt >= 0)
    expected = np.arange(n) - np.repeat(columns.begins, lengths)
    whole &= columns.position == expected
    return np.where(whole, (made >> np.uint64(2)).astype(np.int64), -1)


def _scrambled(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A bijection that mixes all bits (the finaliser of SplitMix64: Steele, Lea, Flood 2014)."""
    values = values * _MIX
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _seams(columns: Columns) -> Ints:
    n = len(columns)
    made = np.zeros(n, dtype=np.int32)
    if not n:
        return made
    lengths = np.diff(np.append(columns.begins, n))
    first = np.repeat(columns.version[columns.begins], lengths)
    after = columns.version != first
    if after.any():
        counted = np.cumsum(after)
        base = np.repeat((counted - after)[columns.begins], lengths)
        made[after] = (counted - base)[after]
    return made
