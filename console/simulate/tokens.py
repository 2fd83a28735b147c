"""Made-up answers with two logprobs for each token: SYNTHETIC, what a trainer would report of a step of `simulate`.

The sizes follow the step's own mismatch: most tokens differ by about it, the first ones and the rare ones by more, one
in some hundred by far. A sequence that is sampled across a sync carries both versions, as in-flight updates make it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

SEQUENCES: Final = 16
"""Answers a step, as many as driftline's own trainer reports."""
DIGITS: Final = 6
_SAYING: Final = ("So", " the", " digits", " of", " {0}", " from", " the", " end", " are", ":", "\n", "{1}", ".")
_FAR: Final = 0.006
_FARTHER: Final = 8.0
"""Share of tokens whose difference is large, and the factor of their size."""


class Answers:
    """Pure: the same seed gives the same answers."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed + 1)
        self._ids: dict[str, int] = {}

    def step(self, version: int, sampled: Mapping[str, int], mismatch: float) -> dict[str, Any]:
        """Arguments of `Probe.tokens` but for step and version: `sampled` has the version of each engine.

        `mismatch` is the step's mean |trainer - rollout| in nats, which the answers have too, on average.
        """
        random, names = self._random, sorted(sampled)
        engines = [names[i % len(names)] for i in range(SEQUENCES)]
        numbers = ["".join(map(str, random.integers(0, 10, DIGITS))) for _ in range(SEQUENCES)]
        texts = [self._text(number) for number in numbers]
        lengths = np.array([len(text) for text in texts])
        seq = np.repeat(np.arange(SEQUENCES), lengths)
        position = np.concatenate([np.arange(length) for length in lengths])
        pieces = [piece for text in texts for piece in text]
        n = len(pieces)
        size = random.exponential(1.0, n) * (1 + (position < 2)) * np.where(random.random(n) < _FAR, _FARTHER, 1.0)
        diff = mismatch * size / size.mean() * np.where(random.random(n) < 0.7, -1.0, 1.0)
        rollout = -random.exponential(0.5, n)
        newest = np.array([sampled[engine] for engine in engines])
        # Every fourth answer was under way when its engine's weights changed.
        before = (seq % 4 == 3) & (position < lengths[seq] // 2)
        return {
            "ids": [self._ids.setdefault(piece, 100 + len(self._ids)) for piece in pieces],
            "seq": seq,
            "position": position,
            "token_version": np.clip(newest[seq] - before, 0, version),
            "rollout": rollout,
            "trainer": np.minimum(rollout + diff, 0.0),
            "engines": engines,
            "prompts": [f"reverse {number} =" for number in numbers],
            "rewards": random.integers(0, 2, SEQUENCES).astype(float),
            "pieces": pieces,
        }

    def _text(self, number: str) -> list[str]:
        pieces: list[str] = []
        for word in _SAYING:
            text = word.format(number, number[::-1])
            pieces += list(text) if any(map(str.isdigit, text)) else [text]
        return pieces
