"""Driftline's extension of a vLLM worker: the two fixes inside it, and loading weights with a check of them.

vLLM mixes this class into its worker (`worker_extension_cls`); the methods are reached by name through
`collective_rpc`, which the engine core runs between two steps, so a switch never splits a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

from engine.weights.transfer_shm import READER  # also registers our transports in this process
from engine.weights.verify import LoadCheck

if TYPE_CHECKING:
    # Any worker takes the extension; this one declares the model runner's type, which their common base does not.
    from vllm.config.model import LogprobsMode
    from vllm.v1.worker.gpu_worker import Worker as _Worker
else:
    _Worker = object


class DriftlineWorker(_Worker):
    """Worker extension; every method returns plain values."""

    def driftline_facts(self) -> dict[str, Any]:
        """Read back from the live objects, not from what was asked for."""
        # vLLM has resolved names such as "auto" by the time it loads the model.
        model_dtype = cast("torch.dtype", self.model_runner.model_config.dtype)
        heads = [p.head_dtype or model_dtype for p in _logits_processors(self.model_runner.get_model())]
        return {
            "logprobs_mode": str(self.model_runner.sampler.logprobs_mode),
            "model_dtype": _name(model_dtype),
            "head_dtypes": [_name(dtype) for dtype in heads],
        }

    def driftline_apply(self, logprobs_mode: LogprobsMode | None = None, head_dtype: str = "") -> dict[str, Any]:
        """Switch what is named, and read everything back: one call, between the same two steps."""
        if logprobs_mode:
            self._driftline_logprobs_mode(logprobs_mode)
        if head_dtype:
            self._driftline_head_dtype(head_dtype)
        return self.driftline_facts()

    def driftline_load(self, update: dict[str, Any], expected: str, head_dtype: str = "") -> dict[str, Any]:
        """Load an update through vLLM's transfer engine, check what the model then holds, switch the head.

        Returns the digest, how it was verified, the entries when it is not the expected one (name -> dtype, shape,
        crc), what went wrong ("" for nothing), the bytes that came, the seconds of the look, and the facts. The head
        is switched only with weights as they should be. Raises what the load raises; the layers then hold a mixture
        but can run.
        """
        config = self.vllm_config
        exact = config.parallel_config.world_size == 1 and self.model_runner.model_config.quantization is None
        model = self.model_runner.get_model()
        load = LoadCheck(model, exact)
        try:
            self.start_weight_update()
            with load.checking():
                self.update_weights(update)
                self.finish_weight_update()
        except BaseException:
            # A model left in the reloading state cannot run at all, nor be loaded again. Finishing twice does no harm.
            finalize_layerwise_reload(model, self.model_runner.model_config)
            self._weight_update_active = False
            READER.unmap()
            raise
        held = load.result()
        digest = held.digest
        good = digest == expected and not held.problem
        if not good:
            READER.unmap()
        return {
            "digest": digest,
            "verified": held.verified,
            "loose": held.loose,
            "entries": {} if good else {name: list(entry) for name, entry in held.entries.items()},
            "problem": held.problem,
            "bytes": load.bytes,
            "seconds": load.seconds,
            "facts": self.driftline_apply(head_dtype=head_dtype if good else ""),
        }

    def _driftline_logprobs_mode(self, mode: LogprobsMode) -> None:
        """Return logprobs before ("raw_logprobs") or after ("processed_logprobs") temperature."""
        runner = self.model_runner
        runner.model_config.logprobs_mode = mode
        sampler = runner.sampler
        if hasattr(sampler, "topk_topp_sampler"):
            # This sampler chooses its kernels by mode when it is built.
            runner.sampler = type(sampler)(logprobs_mode=mode, use_fp64_gumbel=sampler.use_fp64_gumbel)
        else:
            sampler.logprobs_mode = mode

    def _driftline_head_dtype(self, name: str) -> None:
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


def _logits_processors(model: torch.nn.Module) -> list[LogitsProcessor]:
    found = [module for module in model.modules() if isinstance(module, LogitsProcessor)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no logits processor")
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
