"""The trainer's side of `fp32-lm-head`: in which dtype its last projection multiplies, and since when.

With `trainer.head = "fix"` it follows the engines at a weight sync that the loop itself makes between two steps, in the
loop's own thread: the objective never changes its head in the middle of a step. Tokens are always scored with the
head that their engine had when it sampled them, so that the mismatch "under the same weights" knows no blip at the
switch. With "float32" or "model" it stays what it is, for training and for scoring.
"""

from __future__ import annotations

import torch
from torch import Tensor

from driftline.catalog.fixes import OFF, ON
from driftline.config import Config
from driftline.frames import EngineFix
from trainer.learn.policy import Policy
from trainer.measure.fix_states import HEAD, States

TRAINER = "trainer"
"""Name of the trainer among the engines of a fix."""


def float32_at_start(config: Config) -> bool:
    """Whether the trainer begins with a float32 head."""
    head = config.trainer.head
    return head == "float32" or (head == "fix" and config.fixes.get(HEAD) == ON)


class Head:
    """Holds the policy's head; only the loop's thread changes it, others read."""

    def __init__(self, policy: Policy, mode: str) -> None:
        self._policy = policy
        self._mode = mode

    @property
    def follows(self) -> bool:
        """Whether the trainer changes together with the engines."""
        return self._mode == "fix"

    @property
    def float32(self) -> bool:
        """Whether the last projection multiplies in float32 now."""
        return self._policy.fp32_head

    @property
    def note(self) -> str:
        """The note for an operator when the engines' head changes alone; empty where both change."""
        if self.follows:
            return ""
        return f"the trainer's head stays {self._dtype} (trainer.head = {self._mode}): the engines change alone"

    def follow(self, value: str) -> None:
        """Take on the engines' value, on the loop's thread and between two steps."""
        self._policy.fp32_head = value == ON

    def state(self) -> list[EngineFix]:
        """The trainer as one more engine of the fix; none where it does not take part."""
        if not self.follows:
            return []
        return [EngineFix(TRAINER, ON if self.float32 else OFF, "next_sync", detail=f"head {self._dtype}")]

    @property
    def _dtype(self) -> str:
        return str(self._policy.head_dtype).removeprefix("torch.")

    def scoring(self, numbers: Tensor, states: States) -> Tensor:
        """Bool [B, R]: whether each token is scored with a float32 head. `numbers` [B, R] are its state's."""
        heads = torch.full(numbers.shape, self.float32)
        if self.follows:
            for number in numbers.unique().tolist():
                heads[numbers == number] = states.float32_head(number, self.float32)
        return heads
