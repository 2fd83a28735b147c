"""Token pairs as flat arrays, made of the forms that frameworks hold them in. Pure numpy.

Frameworks differ in how a batch lies in memory (padded on the left or right, packed, one list a sequence), in what
stands where no token was sampled (0.0, NaN, null), and in whether a row has a logprob for its first token. Here all of
these become one form, and what cannot be a logprob is left out and counted, never taken for a probability of 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

UNKNOWN: Final = -1
"""Version of a token whose weights the framework does not record."""

NOT_FINITE: Final = "tokens whose logprob is no finite number"
PLACEHOLDER: Final = "tokens at the end of a sequence whose engine logprob is a placeholder of 0.0"
NO_LOGPROB: Final = "sequences whose engine logprobs are all 0.0: not recorded, or sampled greedily"

_CERTAIN: Final = 1e-4
"""Nats. Where the trainer's logprob is lower, the token was not certain, and the engine's 0.0 is none."""

Logprobs = npt.ArrayLike | Sequence[float | None]
"""Numbers as numpy takes them, or a list as JSON has it: null where there is none."""
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled sequence. Arrays have one length [T], prompt included or not.

    `mask` is true where a token was sampled and trained on; None: everywhere. `rollout` and `trainer` are the logprobs
    *of* the token at the same place, in nats. `version` is that of the weights that sampled a token, one number or one
    a token.
    """

    ids: npt.ArrayLike
    rollout: Logprobs
    trainer: Logprobs
    mask: npt.ArrayLike | None = None
    version: npt.ArrayLike = UNKNOWN
    reward: float = float("nan")
    engine: str = ""
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of n tokens; token i is of sequence `seq[i]`, at `position[i]` of its response (from 0).

    `ids`, `seq`, `position`, `version` int32 [n]; `rollout`, `trainer` float32 [n], natural logarithms. `rewards`
    (NaN where there is none), `engines` and `prompts` are by sequence, all of one length. `left_out` counts by reason
    what was no pair.
    """

    ids: Ints
    seq: Ints
    position: Ints
    version: Ints
    rollout: Floats
    trainer: Floats
    rewards: tuple[float, ...] = ()
    engines: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.ids.size)

    @property
    def sequences(self) -> int:
        """Number of sequences, also of those without a pair."""
        return len(self.rewards)


def of_sequences(sequences: Iterable[Sampled]) -> Pairs:
    """Pairs of sequences of any lengths. Raises ValueError where the arrays of one differ in length."""
    parts = Collector()
    for one in sequences:
        parts.add(one)
    return parts.pairs()


def of_padded(
    ids: npt.ArrayLike,
    rollout: npt.ArrayLike,
    trainer: npt.ArrayLike,
    mask: npt.ArrayLike,
    *,
    version: npt.ArrayLike = UNKNOWN,
    rewards: Sequence[float] = (),
    engines: Sequence[str] = (),
    prompts: Sequence[str] = (),
) -> Pairs:
    """Pairs of a padded batch: arrays [B, T], padding on either side false in `mask`.

    `version` is one number, [B] or [B, T]; `rewards`, `engines` and `prompts` are empty or of length B. Raises
    ValueError for other shapes.
    """
    ids2, rollout2, trainer2 = np.asarray(ids), np.asarray(rollout), np.asarray(trainer)
    mask2 = np.asarray(mask)
    for name, array in (("ids", ids2), ("rollout", rollout2), ("trainer", trainer2), ("mask", mask2)):
        if array.ndim != 2 or array.shape != ids2.shape:
            raise ValueError(f"{name} has shape {list(array.shape)}, wanted [B, T] = {list(ids2.shape)} as ids")
    versions = np.asarray(version)
    if versions.ndim == 1:
        versions = versions[:, None]
    versions = np.broadcast_to(versions, ids2.shape)
    rows = ids2.shape[0]
    for name, given in (("rewards", rewards), ("engines", engines), ("prompts", prompts)):
        if len(given) not in (0, rows):
            raise ValueError(f"{name}: {len(given)} of them for {rows} sequences")
    return of_sequences(
        Sampled(
            ids2[row],
            rollout2[row],
            trainer2[row],
            mask2[row],
            versions[row],
            float(rewards[row]) if len(rewards) else float("nan"),
            engines[row] if len(engines) else "",
            prompts[row] if len(prompts) else "",
        )
        for row in range(rows)
    )


def of_packed(
    ids: npt.ArrayLike,
    position_ids: npt.ArrayLike,
    rollout: npt.ArrayLike,
    trainer: npt.ArrayLike,
    mask: npt.ArrayLike,
    *,
    version: npt.ArrayLike = UNKNOWN,
) -> Pairs:
    """Pairs of a packed row: arrays [T]; a sequence begins wherever `position_ids` does not go on by 1.

    Raises ValueError where lengths differ.
    """
    arrays = {
        "ids": np.asarray(ids).ravel(),
        "position_ids": np.asarray(position_ids).ravel(),
        "rollout": np.asarray(rollout).ravel(),
        "trainer": np.asarray(trainer).ravel(),
        "mask": np.asarray(mask).ravel(),
    }
    size = arrays["ids"].size
    for name, array in arrays.items():
        if array.size != size:
            raise ValueError(f"{name} has {array.size} tokens, ids has {size}")
    versions = np.broadcast_to(np.asarray(version), (size,))
    begins = np.flatnonzero(np.diff(arrays["position_ids"], prepend=-2) != 1)
    return of_sequences(
        Sampled(
            arrays["ids"][at:end],
            arrays["rollout"][at:end],
            arrays["trainer"][at:end],
            arrays["mask"][at:end],
            versions[at:end],
        )
        for at, end in zip(begins, [*begins[1:], size], strict=True)
    )


def of_the_next(logprobs: npt.ArrayLike) -> npt.NDArray[Any]:
    """Logprobs [..., T] of the tokens themselves, from those [..., T - 1] of the *next* token at each place.

    A forward pass predicts at place t the token at t + 1; the first token has no logprob (NaN).
    """
    array = np.asarray(logprobs, dtype=np.float32)
    return np.concatenate([np.full((*array.shape[:-1], 1), np.nan, np.float32), array], axis=-1)


class Collector:
    """Makes pairs of sequences that come one by one."""

    def __init__(self) -> None:
        self._arrays: list[tuple[Ints, Ints, Ints, Floats, Floats]] = []
        self._sizes: list[int] = []
        self._of: list[tuple[float, str, str]] = []
        self._left: Counter[str] = Counter()

    def add(self, one: Sampled) -> None:
        """Add a sequence. Raises ValueError where its arrays differ in length or its ids are no int32."""
        ids, rollout, trainer = np.asarray(one.ids), _floats(one.rollout), _floats(one.trainer)
        kept = np.ones(ids.shape, bool) if one.mask is None else np.asarray(one.mask).astype(bool)
        for name, array in (("rollout", rollout), ("trainer", trainer), ("mask", kept)):
            if array.shape != ids.shape or ids.ndim != 1:
                raise ValueError(f"{name} has {array.size} tokens, ids has {ids.size}: one of each is needed")
        version = np.broadcast_to(np.asarray(one.version), ids.shape)
        for name, numbers in (("ids", ids), ("version", version)):
            if numbers.size and not (numbers.min() >= _INT32.min and numbers.max() <= _INT32.max):
                raise ValueError(f"{name} has a number that 32 bits do not hold")
        first = int(np.argmax(kept)) if kept.any() else 0
        kept = self._real(kept, rollout, trainer)
        places = np.flatnonzero(kept)
        self._of.append((one.reward, one.engine, one.prompt))
        self._sizes.append(places.size)
        self._arrays.append(
            (
                ids[places].astype(np.int32),
                (places - first).astype(np.int32),
                version[places].astype(np.int32),
                rollout[places],
                trainer[places],
            )
        )

    def _real(self, kept: npt.NDArray[np.bool_], rollout: Floats, trainer: Floats) -> npt.NDArray[np.bool_]:
        """Where a token has a logprob on both sides."""
        finite = np.isfinite(rollout) & np.isfinite(trainer)
        self._count(NOT_FINITE, int((kept & ~finite).sum()))
        kept = kept & finite
        places = np.flatnonzero(kept)
        zero = rollout[places] == 0.0
        if places.size and zero.all():
            if (trainer[places] < -_CERTAIN).any():
                self._count(NO_LOGPROB, 1)
                return np.zeros_like(kept)
            return kept
        # The run of zeros that reaches the end: where a response is trimmed, frameworks fill up with 0.0.
        end = places.size - int(np.argmin(zero[::-1])) if places.size else 0
        tail = places[end:]
        placeholder = tail[trainer[tail] < -_CERTAIN]
        self._count(PLACEHOLDER, placeholder.size)
        kept[placeholder] = False
        return kept

    def _count(self, reason: str, count: int) -> None:
        if count:
            self._left[reason] += count

    def pairs(self) -> Pairs:
        """The pairs of all sequences so far."""
        ids, position, version, rollout, trainer = (
            (np.concatenate(column) for column in zip(*self._arrays, strict=True))
            if self._arrays
            else (_NONE, _NONE, _NONE, _NONE.astype(np.float32), _NONE.astype(np.float32))
        )
        seq = np.repeat(np.arange(len(self._sizes), dtype=np.int32), self._sizes)
        rewards, engines, prompts = zip(*self._of, strict=True) if self._of else ((), (), ())
        return Pairs(
            ids, seq, position, version, rollout, trainer, tuple(rewards), tuple(engines), tuple(prompts), self._left
        )


_INT32: Final = np.iinfo(np.int32)
_NONE: Final = np.empty(0, np.int32)


def _floats(values: Logprobs) -> Floats:
    """float32 [T]; a JSON null is NaN."""
    return np.asarray(values, dtype=np.float32)
