"""vLLM's CUDA-IPC transport with its handles as plain values.

vLLM's own engine hands its workers tuples with Python classes in them, which only pickle carries from the engine's
process to its core. Here the handles travel as numbers, strings and bytes, and the tuple that torch wants is put
together again in the worker. Written after torch's `reduce_tensor` and vLLM's `IPCWeightTransferEngine`; not run, it
needs CUDA. The two halves of the conversion are tested without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.multiprocessing.reductions import reduce_tensor
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.ipc_engine import (
    IPCWeightTransferEngine,
    IPCWeightTransferInitInfo,
    IPCWeightTransferUpdateInfo,
)

_CLASS, _SIZE, _STRIDE, _STORAGE, _DTYPE = 0, 1, 2, 4, 5
_ARGUMENTS: Final = 15
"""Positions in, and number of, the arguments of torch's `rebuild_cuda_tensor`."""


def plain(args: tuple[Any, ...]) -> list[Any]:
    """`rebuild_cuda_tensor`'s arguments as numbers, strings, bytes and lists. Raises ValueError for another shape."""
    if len(args) != _ARGUMENTS:
        raise ValueError(f"torch describes a CUDA tensor with {len(args)} values; {_ARGUMENTS} were expected")
    values = list(args)
    values[_CLASS] = values[_STORAGE] = None
    values[_SIZE], values[_STRIDE] = list(args[_SIZE]), list(args[_STRIDE])
    values[_DTYPE] = str(args[_DTYPE]).removeprefix("torch.")
    return values


def restored(values: list[Any]) -> tuple[Any, ...]:
    """The inverse of `plain`: the arguments as torch takes them. Raises ValueError for anything else."""
    if len(values) != _ARGUMENTS or not isinstance(dtype := getattr(torch, str(values[_DTYPE]), None), torch.dtype):
        raise ValueError("not the description of a CUDA tensor")
    args = list(values)
    args[_CLASS], args[_STORAGE], args[_DTYPE] = torch.Tensor, torch.storage.TypedStorage, dtype
    args[_SIZE], args[_STRIDE] = torch.Size(values[_SIZE]), tuple(values[_STRIDE])
    return tuple(args)


def update_info(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Handles of contiguous CUDA tensors of this process, keyed by their GPU's UUID as vLLM has it."""
    gpu = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    return {
        "names": list(tensors),
        "dtype_names": [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()],
        "shapes": [list(tensor.shape) for tensor in tensors.values()],
        "gpu": gpu,
        "handles": [plain(reduce_tensor(tensor)[1]) for tensor in tensors.values()],
    }


@dataclass
class PlainUpdateInfo(WeightTransferUpdateInfo):
    """As `update_info` makes it."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    gpu: str
    handles: list[list[Any]]


class PlainIPCTransferEngine(WeightTransferEngine[IPCWeightTransferInitInfo, PlainUpdateInfo]):
    """vLLM's engine behind plain values. Not run: needs CUDA."""

    init_info_cls = IPCWeightTransferInitInfo
    update_info_cls = PlainUpdateInfo

    def init_transfer_engine(self, init_info: IPCWeightTransferInitInfo) -> None:
        """See vLLM's."""
        self._inner = IPCWeightTransferEngine(self.config, self.vllm_config, self.device, self.model)
        self._inner.init_transfer_engine(init_info)

    def start_weight_update(self) -> None:
        """See vLLM's."""
        self._inner.start_weight_update()

    def receive_weights(self, update_info: PlainUpdateInfo) -> None:
        """Rebuild the handles and let vLLM load from them."""
        self._inner.receive_weights(
            IPCWeightTransferUpdateInfo(
                names=update_info.names,
                dtype_names=update_info.dtype_names,
                shapes=update_info.shapes,
                ipc_handles=[{update_info.gpu: restored(values)} for values in update_info.handles],
            )
        )

    def finish_weight_update(self) -> None:
        """See vLLM's."""
        self._inner.finish_weight_update()

    def shutdown(self) -> None:
        """See vLLM's."""
        self._inner.shutdown()
