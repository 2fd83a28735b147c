"""How each range of vLLM versions takes new weights into a running model: one small class for each.

- `InThreeCalls`: vLLM's weight transfer engines take an update in three calls (0.25 and newer).
- `Layerwise`: it has the layerwise reload, but its own `update_weights` cannot run on a CPU worker: that enters
  `torch.device(None)` and synchronises an accelerator (read in 0.18.1, where the first of these raises).
- `Plain`: V0 (0.8.5) packs nothing after loading, so its loaders write into the parameters that serve.

The last two read the shared-memory segment themselves; no transport of vLLM's is asked for.
"""

from __future__ import annotations

from typing import Any

from engine.plugin import hosting
from engine.weights.load import LoadWay
from engine.weights.reader import READER
from engine.weights.verify import LoadCheck, processor


def way_of(worker: Any) -> LoadWay:
    """The way of the vLLM that this worker is of."""
    if hosting.transfers_weights():
        return InThreeCalls()
    return Layerwise() if type(worker.model_runner).__module__.startswith("vllm.v1.") else Plain()


class InThreeCalls:
    """Start, update and finish through vLLM's weight transfer engine, whichever transport it is."""

    def load(self, worker: Any, model: Any, update: dict[str, Any], check: LoadCheck) -> None:
        """See `LoadWay`."""
        del model
        worker.start_weight_update()
        with check.checking():
            worker.update_weights(update)
            worker.finish_weight_update()

    def abandon(self, worker: Any, model: Any) -> None:
        """A model left in the reloading state cannot run at all, nor be loaded again. Finishing twice does no harm."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(model, worker.model_runner.model_config)
        worker._weight_update_active = False


class Layerwise:
    """The three lines of vLLM's own `update_weights`, on the device that the model is on."""

    def load(self, worker: Any, model: Any, update: dict[str, Any], check: LoadCheck) -> None:
        """See `LoadWay`."""
        import torch
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

        with torch.device(next(model.parameters()).device):
            initialize_layerwise_reload(model)
            with check.checking():
                model.load_weights(READER.read(update))
                finalize_layerwise_reload(model, worker.model_runner.model_config)

    def abandon(self, worker: Any, model: Any) -> None:
        """Here finishing twice breaks the attention layers ('Attention' object has no attribute '_k_scale')."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload
        from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

        if any(get_layerwise_info(module).load_numel_total is not None for module in model.modules()):
            finalize_layerwise_reload(model, worker.model_runner.model_config)


class Plain:
    """The model's own `load_weights`."""

    def load(self, worker: Any, model: Any, update: dict[str, Any], check: LoadCheck) -> None:
        """See `LoadWay`. The processing after it changes nothing; by it `check` sees that a layer is whole."""
        del worker
        with check.checking():
            model.load_weights(READER.read(update))
            for module in model.modules():
                if (method := processor(module)) is not None:
                    method.process_weights_after_loading(module)

    def abandon(self, worker: Any, model: Any) -> None:
        """Nothing was taken apart."""
