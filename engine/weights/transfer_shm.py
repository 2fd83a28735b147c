"""The shared-memory transport, as one of vLLM's own weight-transfer engines.

vLLM's factory imports it by name where an engine asks for it (`engine.plugin.pool_engine`). Loading goes through
vLLM's layerwise reload: plain `load_weights` is wrong on a CPU, where vLLM packs linear weights and drops the
originals.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from engine.weights.reader import READER


@dataclass
class SharedMemoryInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand: every update names its own segment."""


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """A manifest of `engine.weights.publish`."""

    segment: str
    size: int
    names: list[str]
    dtypes: list[str]
    shapes: list[list[int]]
    offsets: list[int]


class SharedMemoryTransferEngine(WeightTransferEngine[SharedMemoryInitInfo, SharedMemoryUpdateInfo]):
    """Loads checkpoint-format weights from a shared-memory segment; one chunk is one whole model."""

    init_info_cls = SharedMemoryInitInfo
    update_info_cls = SharedMemoryUpdateInfo

    def init_transfer_engine(self, init_info: SharedMemoryInitInfo) -> None:
        """Nothing to set up."""

    def start_weight_update(self) -> None:
        """Put the model's layers into vLLM's reloading state, in which tied parameters are tied no more."""
        self._expected = {name for name, _ in self.model.named_parameters()}
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        """Load every tensor of the segment. Raises RuntimeError if that left a parameter without weights."""
        model: Any = self.model  # vLLM's models have `load_weights`, which torch's Module does not declare
        loaded = model.load_weights(READER.read(asdict(update_info)))
        if self.model_config.quantization is None and loaded is not None and (missing := self._expected - loaded):
            raise RuntimeError(f"no weights came for {len(missing)} parameters, among them {min(missing)}")

    def finish_weight_update(self) -> None:
        """Pack the new weights as the kernels want them."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing to release: segments belong to the trainer."""
