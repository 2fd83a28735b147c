"""The sequences of one step as padded tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.measure.fix_states import UNKNOWN


@dataclass(frozen=True)
class Sample:
    """One finished response. `logprobs` and `versions` are per response token, as the engine reported them, and
    `states` the number of the fix state (`trainer.measure.fix_states`) that each was sampled under."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    logprobs: tuple[float, ...]
    versions: tuple[int, ...]
    reward: float
    engine: str
    text: str
    states: tuple[int, ...] = ()


@dataclass(frozen=True)
class Batch:
    """B sequences, right padded. Shapes: `input_ids`, `attention` [B, L]; the rest [B, R], R response positions.

    `index` is the position in `input_ids` whose hidden state predicts a response token. `mask` is true on
    tokens that count, `states` is as in Sample. Integers are int64, `rollout` float32.
    """

    input_ids: Tensor
    attention: Tensor
    index: Tensor
    response: Tensor
    mask: Tensor
    rollout: Tensor
    versions: Tensor
    states: Tensor

    @property
    def size(self) -> int:
        """Number of sequences."""
        return self.input_ids.shape[0]

    @property
    def tokens(self) -> int:
        """Number of response tokens that count."""
        return int(self.mask.sum())

    def rows(self, rows: Tensor | slice) -> Batch:
        """Some of the sequences."""
        return Batch(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})

    def micro_batches(self, max_tokens: int) -> Iterator[slice]:
        """Slices of rows of at most `max_tokens` padded tokens each (but at least one row)."""
        rows = max(1, max_tokens // self.input_ids.shape[1])
        for start in range(0, self.size, rows):
            yield slice(start, min(start + rows, self.size))


def collate(samples: list[Sample], pad_id: int) -> Batch:
    """Pad samples to one batch. A token whose engine logprob is not finite is kept in the text but does not count."""
    longest = max(len(s.prompt) + len(s.response) for s in samples)
    responses = max(1, max(len(s.response) for s in samples))
    shape = (len(samples), responses)
    input_ids = torch.full((len(samples), longest), pad_id, dtype=torch.int64)
    attention = torch.zeros((len(samples), longest), dtype=torch.int64)
    index = torch.zeros(shape, dtype=torch.int64)
    response = torch.zeros(shape, dtype=torch.int64)
    mask = torch.zeros(shape, dtype=torch.bool)
    rollout = torch.zeros(shape, dtype=torch.float32)
    versions = torch.zeros(shape, dtype=torch.int64)
    states = torch.full(shape, UNKNOWN, dtype=torch.int64)
    for row, sample in enumerate(samples):
        length, count = len(sample.prompt) + len(sample.response), len(sample.response)
        input_ids[row, :length] = torch.tensor(sample.prompt + sample.response)
        attention[row, :length] = 1
        if not count:
            continue
        index[row, :count] = torch.arange(len(sample.prompt) - 1, length - 1)
        response[row, :count] = torch.tensor(sample.response)
        rollout[row, :count] = torch.tensor(sample.logprobs)
        versions[row, :count] = torch.tensor(sample.versions)
        mask[row, :count] = True
        if sample.states:
            states[row, :count] = torch.tensor(sample.states)
    finite = torch.isfinite(rollout)
    return Batch(
        input_ids=input_ids,
        attention=attention,
        index=index,
        response=response,
        mask=mask & finite,
        rollout=rollout.masked_fill(~finite, 0.0),
        versions=versions,
        states=states,
    )
