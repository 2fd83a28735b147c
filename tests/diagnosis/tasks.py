"""What the small models are taught and rewarded for: prompts [B, P], an answer's reward, and a policy that has
learned it.

`digits`: reverse some digits, then end; low entropy where it is certain. `chain`: text of a random Markov chain, whose
entropy is about two nats; rewarded are tokens of the lower quarter of the vocabulary, and an end is none of them: else
the policy learns to end at once, and after some updates there is one certain token a sequence and nothing to diagnose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from tests.diagnosis.tiny import Shape, Weights, forward, fresh

END = 1
FIRST = 4
"""Ids below are reserved: padding, end, separator, begin."""
SHORT: Final = 8
"""Tokens that an answer of the chain must have for its full reward."""


@dataclass(frozen=True)
class Task:
    kind: Literal["digits", "chain"]
    shape: Shape
    seed: int
    prefix: int = 16
    digits: int = 6
    answer: int = 16
    """Most tokens of an answer."""

    @property
    def prompt(self) -> int:
        return self.prefix + self.digits + 1

    def prompts(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Prompts [count, P]: a prefix that all share, then digits (or some tokens of the chain), then a separator."""
        fixed = np.random.default_rng(self.seed).integers(FIRST, self.shape.vocab, self.prefix)
        if self.kind == "digits":
            own = random.integers(FIRST, FIRST + 10, (count, self.digits))
        else:
            own = self._chain(count, self.digits, random)
        return np.concatenate([np.tile(fixed, (count, 1)), own, np.full((count, 1), 2)], axis=1)

    def answers(self, prompts: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Right answers [count, answer], padded with 0 behind their end."""
        found = np.zeros((len(prompts), self.answer), dtype=np.int64)
        if self.kind == "digits":
            found[:, : self.digits] = prompts[:, -2 : -2 - self.digits : -1]
            found[:, self.digits] = END
        else:
            found[:] = self._chain(len(prompts), self.answer, random, prompts[:, -2])
            ends = random.integers(6, self.answer + 4, len(prompts))
            for row, end in enumerate(ends):
                if end < self.answer:
                    found[row, end] = END
                    found[row, end + 1 :] = 0
        return found

    def reward(self, prompt: np.ndarray, answer: np.ndarray) -> float:
        """0 to 1."""
        if self.kind == "digits":
            right = np.append(prompt[-2 : -2 - self.digits : -1], END)
            given = np.zeros(right.size, dtype=np.int64)
            given[: min(right.size, answer.size)] = answer[: right.size]
            return float((given == right).mean())
        wanted = (answer >= FIRST) & (answer < FIRST + (self.shape.vocab - FIRST) // 4)
        return float(wanted.sum() / max(answer.size, SHORT))

    def _chain(
        self, count: int, length: int, random: np.random.Generator, last: np.ndarray | None = None
    ) -> np.ndarray:
        fixed = np.random.default_rng(self.seed + 1)
        usable = self.shape.vocab - FIRST
        follow = fixed.integers(0, usable, (usable, 12))
        odds = fixed.dirichlet(np.full(12, 0.5), usable).cumsum(axis=1)
        at = random.integers(0, usable, count) if last is None else last - FIRST
        made = np.empty((count, length), dtype=np.int64)
        for i in range(length):
            pick = (random.random((count, 1)) > odds[at]).sum(axis=1).clip(0, 11)
            at = follow[at, pick]
            made[:, i] = at
        return made + FIRST


def learned(task: Task, steps: int) -> Weights:
    """Weights after `steps` batches of supervised learning."""
    random = np.random.default_rng(task.seed + 2)
    weights = {name: one.requires_grad_() for name, one in fresh(task.shape, task.seed).items()}
    optimizer = torch.optim.AdamW(list(weights.values()), lr=3e-3, weight_decay=0.0)
    for _ in range(steps):
        prompts = task.prompts(64, random)
        ids = torch.from_numpy(np.concatenate([prompts, task.answers(prompts, random)], axis=1))
        logits, _ = forward(weights, ids[:, :-1], task.shape)
        wanted = ids[:, 1:].clone()
        wanted[:, : task.prompt - 1] = 0
        loss = F.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: one.detach().clone() for name, one in weights.items()}
