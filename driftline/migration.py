"""What is asked of a comparison of two vLLM versions, and what it answers: `trainer.migration` runs it.

Kept here because the console writes the order and reads the answer, and imports no trainer.
"""

from __future__ import annotations

from typing import Final

import msgspec

LAYERS: Final = (
    ("logprobs after temperature", "processed-logprobs"),
    ("and no cached prefix after an update", "prefix-cache-off"),
    ("and the head in float32", "fp32-lm-head"),
)
"""What a layer is called, and the fix that it is; each on top of those before it."""


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`environments`: of the two engines, "" for the trainer's own. `model` "" makes a tiny one. `prompts`: token ids;

    none for `count` random ones.
    """

    environments: tuple[str, str]
    folder: str
    model: str = ""
    dtype: str = "auto"
    prompts: list[list[int]] = []
    count: int = 16
    samples: int = 4
    tokens: int = 16
    temperature: float = 0.7
    seed: int = 0


class Difference(msgspec.Struct, frozen=True):
    """|difference of logprobs| in nats over so many tokens."""

    mean: float
    most: float
    tokens: int


class Row(msgspec.Struct, frozen=True):
    """One layer: the fixes of both engines, the differences by direction, and of each engine to torch."""

    name: str
    fix: str
    values: tuple[dict[str, str], dict[str, str]]
    from_by_to: Difference | None
    to_by_from: Difference | None
    from_torch: Difference | None
    to_torch: Difference | None

    @property
    def parted(self) -> float | None:
        """The larger mean of the two directions; None where one has no token."""
        if self.from_by_to is None or self.to_by_from is None:
            return None
        return max(self.from_by_to.mean, self.to_by_from.mean)


class Side(msgspec.Struct, frozen=True):
    """One engine as it came up; `fixes`: value and detail of each."""

    environment: str
    python: str
    vllm: str
    backend: str
    fixes: dict[str, tuple[str, str]]


class Answer(msgspec.Struct, frozen=True):
    """What was found. `skipped` counts tokens that were sampled and not scored; `move` is the step of the weights

    between two passes, in each tensor's own standard deviations.
    """

    sides: tuple[Side, Side]
    rows: list[Row]
    dtype: str
    model: str
    prompts: int
    samples: int
    temperature: float
    move: float
    skipped: int
    seconds: float
