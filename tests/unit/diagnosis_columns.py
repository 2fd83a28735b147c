"""Token columns whose two sides are computed from logits of a random bigram model: what a cause does to logits is
done to them. Numpy only; whole transformers are in tests/diagnosis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from console.diagnosis.columns import Columns, of_frame
from driftline.frames import Tokens

Logits = npt.NDArray[np.float64]
END = 0


def log_softmax(logits: Logits) -> Logits:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    made: Logits = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return made


@dataclass(frozen=True)
class Bigrams:
    """`sampled` and `said` make the engine's logprobs [V] of logits, ids so far and position: those drawn from and
    those reported; `scored` the trainer's. Logits [V] of a token depend on the one before it and on the prompt."""

    sampled: Callable[[Logits, list[int], int], Logits]
    scored: Callable[[Logits, list[int], int], Logits]
    said: Callable[[Logits, list[int], int], Logits] | None = None
    vocab: int = 24
    scale: float = 1.6

    def frame(
        self,
        step: int,
        *,
        version: int | None = None,
        prompts: int = 6,
        samples: int = 4,
        length: int = 10,
        engines: int = 2,
        seed: int = 0,
        ends: bool = True,
    ) -> Tokens:
        """A Tokens frame of prompts x samples sequences."""
        table = np.random.default_rng(99).normal(0, self.scale, (self.vocab + 64, self.vocab))
        random = np.random.default_rng(seed * 1000 + step)
        rows: list[tuple[int, int, int, float, float]] = []
        for one in range(prompts * samples):
            before, seen = self.vocab + (step * 7 + one // samples) % 64, list[int]()
            for at in range(length):
                logits = table[before]
                chances = np.exp(self.sampled(logits, seen, at))
                drawn = int(random.choice(self.vocab, p=chances / chances.sum()))
                said = (self.said or self.sampled)(logits, seen, at)[drawn]
                rows.append((drawn, one, at, said, self.scored(logits, seen, at)[drawn]))
                seen.append(drawn)
                before = drawn
                if ends and drawn == END:
                    break
        ids, seq, position, rollout, trainer = (np.array(part) for part in zip(*rows, strict=True))
        at = step if version is None else version
        whole = [part.astype("<i4").tobytes() for part in (ids, seq, position, np.full(ids.size, at))]
        return Tokens(
            step, at, 1e9 + step, ids.size, whole[0], whole[1], whole[2], whole[3],
            rollout.astype("<f4").tobytes(), trainer.astype("<f4").tobytes(),
            tuple(f"engine-{i % engines}" for i in range(prompts * samples)),
            tuple(f"prompt {(step * 7 + i // samples) % 64}" for i in range(prompts * samples)),
        )  # fmt: skip

    def frames(self, steps: int, **more: int) -> list[Tokens]:
        return [self.frame(step, **more) for step in range(steps)]  # type: ignore[arg-type]


def plain(logits: Logits, seen: list[int], at: int) -> Logits:
    """The policy at temperature .7."""
    return log_softmax(logits / 0.7)


def raw(logits: Logits, seen: list[int], at: int) -> Logits:
    """Before the temperature."""
    return log_softmax(logits)


def top_p(share: float) -> Callable[[Logits, list[int], int], Logits]:
    """Renormalised over the smallest set with this mass."""

    def made(logits: Logits, seen: list[int], at: int) -> Logits:
        logprobs = plain(logits, seen, at)
        order = np.argsort(-logprobs)
        above = np.cumsum(np.exp(logprobs[order])) - np.exp(logprobs[order])
        kept = logprobs.copy()
        kept[order[above >= share]] = -np.inf
        return log_softmax(kept)

    return made


def min_tokens(count: int) -> Callable[[Logits, list[int], int], Logits]:
    """No end below a position."""

    def made(logits: Logits, seen: list[int], at: int) -> Logits:
        masked = logits.copy()
        if at < count:
            masked[END] = -np.inf
        return log_softmax(masked / 0.7)

    return made


def penalty(size: float) -> Callable[[Logits, list[int], int], Logits]:
    """vLLM's repetition penalty over the response."""

    def made(logits: Logits, seen: list[int], at: int) -> Logits:
        changed = logits.copy()
        for one in set(seen):
            changed[one] = changed[one] / size if changed[one] > 0 else changed[one] * size
        return log_softmax(changed / 0.7)

    return made


def noisy(size: float, seed: int = 0) -> Callable[[Logits, list[int], int], Logits]:
    """Logits with noise that is new at every call."""
    random = np.random.default_rng(seed)
    return lambda logits, seen, at: log_softmax((logits + random.normal(0, size, logits.size)) / 0.7)


def columns(frames: list[Tokens]) -> Columns:
    """Of several frames; sequences numbered through."""
    from console.diagnosis.columns import join

    names = {name: i for i, name in enumerate(sorted({one for frame in frames for one in frame.engines}))}
    parts, first = [], 0
    for frame in frames:
        parts.append(of_frame(frame, names, first))
        first += parts[-1].begins.size
    return join(parts, tuple(names))
