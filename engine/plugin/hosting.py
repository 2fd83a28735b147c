"""What an engine of our own pool asks of its vLLM, where versions differ. `versions` has what every engine is asked."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Sequence
from typing import Any

from engine.plugin import versions


def is_v0() -> bool:
    """Whether V0's engine is the one to run: this vLLM has it (0.8.5), and $VLLM_USE_V1 does not ask for the other."""
    return importlib.util.find_spec("vllm.worker") is not None and os.environ.get("VLLM_USE_V1", "0") == "0"


def kv_cache_variable(gb: float) -> dict[str, str]:
    """The size of a CPU's KV cache for a vLLM that takes it from its environment alone, in whole GiB (before 0.20)."""
    number = versions.number(versions.installed())
    return {"VLLM_CPU_KVCACHE_SPACE": str(max(1, math.ceil(gb)))} if number < (0, 20) else {}


def labels_weights() -> bool:
    """Whether outputs say which label of the weights each token was sampled under (0.28 takes labels, and does not)."""
    from vllm.outputs import CompletionOutput

    return "weight_versions" in CompletionOutput.__dataclass_fields__


def transfers_weights() -> bool:
    """Whether its workers take weights through a transfer engine of ours; else they read shared memory themselves."""
    try:
        from vllm.distributed.weight_transfer.base import WeightTransferEngine
    except ImportError:
        return False
    return hasattr(WeightTransferEngine, "start_weight_update")


def scores_by_token() -> bool:
    """Whether this vLLM takes `logprob_token_ids`; an older one (0.18.1) is asked for the whole vocabulary's."""
    from vllm.sampling_params import SamplingParams

    return "logprob_token_ids" in SamplingParams.__struct_fields__


def token_prompt(ids: Sequence[int]) -> Any:
    """A prompt of token ids, in the form that costs least: newer versions take one that is through their renderer."""
    from vllm.inputs import TokensPrompt

    try:
        from vllm.inputs.engine import tokens_input
    except ImportError:
        return TokensPrompt(prompt_token_ids=[int(token) for token in ids])
    return tokens_input([int(token) for token in ids])
