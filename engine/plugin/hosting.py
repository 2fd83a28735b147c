"""What an engine of our own pool asks of its vLLM, where versions differ. `versions` has what every engine is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def is_v0() -> bool:
    """Whether the vLLM of this process runs V0's engine: it has one, and $VLLM_USE_V1 chooses it (0.8.5; CPU)."""
    import vllm.envs

    return not getattr(vllm.envs, "VLLM_USE_V1", True)


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
