"""Which sequences of a batch are shown token by token, and their frame. Numbers of a step are of all its tokens."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from driftline.frames import Tokens
from driftline.pairs.pairs import Pairs

WORST: Final = 8
RANDOM: Final = 8
"""Sequences that are shown of a step: the worst by mean |trainer - rollout|, and some drawn at random."""
MOST_TOKENS: Final = 65_536
"""Most tokens of a frame: 1.5 MB. What does not fit of the last sequence is left out at its end."""


def pick(score: npt.NDArray[np.float64], rows: npt.NDArray[np.intp], rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Of `rows`, the WORST by `score` [len(rows)] and RANDOM of the others, the worst first."""
    worst = rows[np.argsort(-score, kind="stable")][:WORST]
    others = np.setdiff1d(rows, worst)
    return np.concatenate([worst, rng.permutation(others)[:RANDOM]])


def frame(pairs: Pairs, *, step: int, version: int, time: float, rng: np.random.Generator) -> Tokens | None:
    """Token logprobs of some sequences as a frame; None where no sequence has a pair."""
    counts = np.bincount(pairs.seq, minlength=pairs.sequences)
    rows = np.flatnonzero(counts)
    if not rows.size:
        return None
    size = np.abs(pairs.trainer.astype(np.float64) - pairs.rollout)
    sums = np.bincount(pairs.seq, weights=size, minlength=pairs.sequences)
    chosen = pick(sums[rows] / counts[rows], rows, rng)
    begins = np.concatenate([[0], np.cumsum(counts)])
    places = np.concatenate([np.arange(begins[row], begins[row + 1]) for row in chosen])[:MOST_TOKENS]
    seq = np.repeat(np.arange(chosen.size, dtype=np.int32), counts[chosen])[:MOST_TOKENS]
    rewards = tuple(pairs.rewards[row] for row in chosen)
    return Tokens(
        step=step,
        version=version,
        time=time,
        n=int(places.size),
        ids=pairs.ids[places].astype("<i4").tobytes(),
        seq=seq.astype("<i4").tobytes(),
        position=pairs.position[places].astype("<i4").tobytes(),
        token_version=pairs.version[places].astype("<i4").tobytes(),
        rollout=pairs.rollout[places].astype("<f4").tobytes(),
        trainer=pairs.trainer[places].astype("<f4").tobytes(),
        engines=tuple(pairs.engines[row] for row in chosen) if any(pairs.engines) else (),
        prompts=tuple(pairs.prompts[row] for row in chosen) if any(pairs.prompts) else (),
        rewards=rewards if any(reward == reward for reward in rewards) else (),
    )
