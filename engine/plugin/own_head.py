"""The dtype of the last projection, for a vLLM that has none of its own (before 0.28; V0).

Only in engines of our own pool: what a framework's engine computes is not ours to put something in the place of. It
does what newer versions do by themselves (`LogitsProcessor._apply_head`): cast hidden states and weights, project,
gather, cut the padding of the vocabulary off.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from engine.plugin.versions import OUR_HEAD


def install(module: ModuleType) -> None:
    """Let the logits processor of vLLM's module look at its `head_dtype`, where it does not. Twice is as once."""
    cls = getattr(module, "LogitsProcessor", None)
    if cls is None or hasattr(cls, "_apply_head") or hasattr(cls, OUR_HEAD):
        return
    plain = cls._get_logits
    if list(inspect.signature(plain).parameters) != ["self", "hidden_states", "lm_head", "embedding_bias"]:
        return  # not as in 0.8.5 and 0.18.1: `versions.set_head_dtype` refuses then

    def _get_logits(self: Any, hidden_states: Any, lm_head: Any, embedding_bias: Any) -> Any:
        dtype = self.head_dtype
        if dtype is None or dtype == hidden_states.dtype:
            return plain(self, hidden_states, lm_head, embedding_bias)
        from torch.nn.functional import linear

        bias = embedding_bias.to(dtype) if embedding_bias is not None else None
        logits = self._gather_logits(linear(hidden_states.to(dtype), lm_head.weight.to(dtype), bias))
        return logits if logits is None else logits[..., : self.org_vocab_size]

    cls.head_dtype = None
    cls._get_logits = _get_logits
    setattr(cls, OUR_HEAD, True)
