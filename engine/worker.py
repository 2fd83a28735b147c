"""What Driftline adds to a vLLM worker: reading and switching the two fixes that live inside it.

vLLM mixes this class into its worker (`worker_extension_cls`); the methods are reached by name through
`collective_rpc`, which the engine core runs between two steps, so a switch never splits a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding

import engine.transfer  # noqa: F401  (registers the shared-memory transport in this process)
from engine.weights import read

if TYPE_CHECKING:
    from vllm.v1.worker.worker_base import WorkerBase as _Worker
else:
    _Worker = object


class DriftlineWorker(_Worker):
    """Worker extension; every method returns plain values."""

    def driftline_facts(self) -> dict[str, Any]:
        """Read back from the live objects, not from what was asked for."""
        model_dtype = self.model_runner.model_config.dtype
        heads = [p.head_dtype or model_dtype for p in _logits_processors(self.model_runner.get_model())]
        return {
            "logprobs_mode": str(self.model_runner.sampler.logprobs_mode),
            "model_dtype": _name(model_dtype),
            "head_dtypes": [_name(dtype) for dtype in heads],
        }

    def driftline_set_logprobs_mode(self, mode: str) -> None:
        """Return logprobs before ("raw_logprobs") or after ("processed_logprobs") temperature."""
        runner = self.model_runner
        runner.model_config.logprobs_mode = mode
        sampler = runner.sampler
        if hasattr(sampler, "topk_topp_sampler"):
            # This sampler chooses its kernels by mode when it is built.
            runner.sampler = type(sampler)(logprobs_mode=mode, use_fp64_gumbel=sampler.use_fp64_gumbel)
        else:
            sampler.logprobs_mode = mode

    def driftline_set_head_dtype(self, name: str) -> None:
        """Compute the last projection in this dtype. Raises ValueError for a quantized lm_head."""
        model = self.model_runner.get_model()
        dtype = getattr(torch, name)
        if dtype != self.model_runner.model_config.dtype:
            # vLLM would raise in the middle of a step, which ends the engine.
            plain = (UnquantizedEmbeddingMethod, UnquantizedLinearMethod)
            for path, layer in model.named_modules():
                if isinstance(layer, VocabParallelEmbedding) and not isinstance(layer.quant_method, plain):
                    raise ValueError(f"{path} is quantized; its projection stays in the model's dtype")
        for processor in _logits_processors(model):
            processor.head_dtype = dtype

    def driftline_check_weights(self, manifest: dict[str, Any]) -> int:
        """Open a published segment and look at every tensor of it; returns how many. Raises ValueError."""
        return sum(1 for _ in read(manifest))


def _logits_processors(model: torch.nn.Module) -> list[LogitsProcessor]:
    found = [module for module in model.modules() if isinstance(module, LogitsProcessor)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no logits processor")
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
