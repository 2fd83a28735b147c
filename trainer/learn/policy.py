"""The policy: logprobs and exact entropy of response tokens under a Hugging Face causal model, memory bounded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from trainer.errors import TrainerError
from trainer.learn.batch import Batch

LOGIT_BUDGET = 2**25
"""Logits held at once (times 4 bytes): longer responses or larger vocabularies go through the head in pieces."""

BODY_BUDGET = 16_384
"""Padded tokens that go through the body at once."""

HEAD_TOLERANCE = 1e-3
"""Largest difference (nats) allowed between the model's own logprobs and those of this class's head."""


class Policy:
    """A causal model read as a distribution at temperature T.

    `dtype` is the body's arithmetic: other types than float32 run on weights rounded to them from the float32
    master weights, which take the gradient; so the policy is what an engine of that dtype holds. With `fp32_head`
    the last projection, its weight rounded in the same way, multiplies in float32.
    """

    def __init__(self, model: PreTrainedModel, *, temperature: float, fp32_head: bool, dtype: torch.dtype) -> None:
        self.model = model
        self.temperature = temperature
        self.fp32_head = fp32_head
        self.dtype = dtype
        self._body = model.base_model
        self._head = model.get_output_embeddings()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def head_dtype(self) -> torch.dtype:
        """In which the last projection multiplies. vLLM's bfloat16 head of a float32 body is a bfloat16 one too."""
        if self.fp32_head:
            return torch.float32
        return torch.bfloat16 if self.dtype == torch.float32 else self.dtype

    def score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logprob and entropy (nats) of every response position, both float32 [B, R], with gradients if enabled.

        Positions outside the mask hold numbers without a meaning. Padding on the right cannot be attended to by
        what comes before it, so a sequence's numbers do not depend on what it is batched with.
        """
        hidden = self._hidden(input_ids=batch.input_ids, attention_mask=batch.attention, use_cache=False)
        picked = hidden.gather(1, batch.index[:, :, None].expand(-1, -1, hidden.shape[-1]))
        logprobs, entropy = self._head_in_pieces(picked.flatten(0, 1), batch.response.flatten())
        return logprobs.view(batch.response.shape), entropy.view(batch.response.shape)

    @torch.no_grad()
    def logprobs(self, batch: Batch) -> Tensor:
        """Logprobs alone, float32 [B, R] on the CPU, without gradients."""
        parts = [self.score(batch.rows(rows).to(self.device))[0].cpu() for rows in batch.micro_batches(BODY_BUDGET)]
        return torch.cat(parts)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights on the CPU, in the body's dtype: what engines are sent. Tied weights appear once."""
        return {
            name: parameter.detach().to("cpu", self.dtype, copy=True)
            for name, parameter in self.model.named_parameters()
        }

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite the weights with those of `weights()`."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(weights[name])

    @torch.no_grad()
    def check_head(self, ids: Tensor) -> None:
        """Raise TrainerError if the model does more to its logits than its last projection, which engines may not do.

        `ids` [1, n] is any text. Soft caps and logit scales are examples: a run on such a model would show a
        mismatch that is this class's own.
        """
        ids = ids.to(self.device)
        hidden = self._body(input_ids=ids, use_cache=False)[0]
        plain = functional.log_softmax(functional.linear(hidden, self._head.weight, self._head.bias), dim=-1)
        own = functional.log_softmax(self.model(input_ids=ids, use_cache=False).logits, dim=-1)
        error = (plain - own).abs().max().item()
        if error > HEAD_TOLERANCE:
            name = type(self.model).__name__
            raise TrainerError(
                f"model.path: {name} changes its logits after the last projection (by up to {error:.3g} nats), "
                "which this trainer does not reproduce"
            )

    def _hidden(self, **inputs: Tensor | bool) -> Tensor:
        if self.dtype == torch.float32:
            hidden: Tensor = self._body(**inputs)[0]
        else:
            # Not autocast, which leaves embeddings, norms and the residual stream in float32 where an engine rounds.
            rounded = {name: parameter.to(self.dtype) for name, parameter in self._body.named_parameters()}
            hidden = functional_call(self._body, rounded, kwargs=inputs)[0]
        return hidden

    def _head_in_pieces(self, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        piece = max(1, LOGIT_BUDGET // self._head.weight.shape[0])
        if hidden.shape[0] <= piece:
            return self._head_numbers(hidden, tokens)
        parts = [
            # Recomputed in the backward pass, so that only one piece's logits exist at a time.
            checkpoint(self._head_numbers, h, t, use_reentrant=False)
            if torch.is_grad_enabled()
            else self._head_numbers(h, t)
            for h, t in zip(hidden.split(piece), tokens.split(piece), strict=True)
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def _head_numbers(self, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._logits(hidden) / self.temperature
        normaliser = logits.logsumexp(dim=-1)
        logprobs = logits.gather(-1, tokens[:, None])[:, 0] - normaliser
        entropy = normaliser - (logits.softmax(dim=-1) * logits).sum(dim=-1)
        return logprobs, entropy

    def _logits(self, hidden: Tensor) -> Tensor:
        weight, bias = self._head.weight.to(self.dtype), self._head.bias
        dtype = self.head_dtype
        return functional.linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)).float()
