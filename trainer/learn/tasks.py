"""Verifiable tasks: a prompt, and a reward that can be computed from the answer alone.

"reverse-digits": every prompt is the same instruction of `prefix` tokens (so that engines with a prefix cache
share its blocks), then the digits and "="; the answer is the digits reversed. A task works on text and any
Hugging Face tokenizer, and is a function of (seed, index): two runs with one seed see the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from driftline.config import TaskConfig

INSTRUCTION = "Reverse the digits of the number. Write the answer only. "


@dataclass(frozen=True)
class Prompt:
    """One prompt: token ids, the part of its text that varies, and the answer that gets the full reward."""

    index: int
    ids: tuple[int, ...]
    text: str
    answer: str


class ReverseDigits:
    """Reverse the digits of a number; the reward is the share of digits that are right, in their places."""

    def __init__(self, config: TaskConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        self._digits = config.digits
        self._tokenizer = tokenizer
        self._seed = seed
        self._prefix = _repeat_to(encode(tokenizer, INSTRUCTION), config.prefix)

    def prompt(self, index: int) -> Prompt:
        """The prompt number `index` (>= 0)."""
        rng = np.random.default_rng([self._seed, index])
        number = "".join(str(digit) for digit in rng.integers(0, 10, self._digits))
        text = f"{number}="
        return Prompt(index=index, ids=(*self._prefix, *encode(self._tokenizer, text)), text=text, answer=number[::-1])

    def answer_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The right answer as token ids, closed by the end-of-sequence token: what the warm start imitates."""
        return (*encode(self._tokenizer, prompt.answer), self._tokenizer.eos_token_id)

    def length(self, response: Sequence[int]) -> int:
        """Tokens of a response that count: up to and with the first end-of-sequence token."""
        eos = self._tokenizer.eos_token_id
        return response.index(eos) + 1 if eos in response else len(response)

    def reward(self, prompt: Prompt, response: Sequence[int]) -> float:
        """Share of the digits that are right in their places, in 0..1; what follows the answer costs nothing."""
        counted = list(response[: self.length(response)])
        text = str(self._tokenizer.decode(counted, skip_special_tokens=True)).strip()
        right = sum(given == wanted for given, wanted in zip(text, prompt.answer, strict=False))
        return right / len(prompt.answer)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Token ids of a text without added special tokens."""
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def _repeat_to(ids: tuple[int, ...], length: int) -> tuple[int, ...]:
    return tuple(ids[i % len(ids)] for i in range(length))
