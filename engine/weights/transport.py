"""Transports of weights from the trainer to the engines: one protocol, three ways, by configuration and hardware.

- `shm`: this machine's shared memory, ours (`engine.weights.publish`, `engine.weights.transfer_shm`). Works with and
without GPUs.
- `ipc`: vLLM's CUDA-IPC engine, for engines that share the trainer's GPU.
- `nccl`: vLLM's NCCL engine, one communicator between the trainer and each engine, so that a lost engine or a load
  that has to be repeated concerns no other.

The CUDA ways are written after vLLM's sources and have not been run; `open_transport` refuses them by name on a
machine without CUDA.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from driftline.config import EngineConfig
from engine.types import EngineError, EngineInfo
from engine.weights.shared_memory import Segments

if TYPE_CHECKING:
    import torch

Kind = Literal["shm", "ipc", "nccl"]
Update = dict[str, Any]
"""The data by which a worker loads the weights: `update_info` of vLLM's weight-transfer engine. Plain values."""

BACKENDS: Final[dict[Kind, str]] = {"shm": "driftline_shm", "ipc": "driftline_ipc", "nccl": "nccl"}
"""Names in vLLM's `WeightTransferEngineFactory`, for `weight_transfer_config`."""
TRANSFER_ENGINES: Final[dict[str, tuple[str, str]]] = {
    BACKENDS["shm"]: ("engine.weights.transfer_shm", "SharedMemoryTransferEngine"),
    BACKENDS["ipc"]: ("engine.weights.transfer_ipc", "PlainIPCTransferEngine"),
}
"""Module and class of each of ours, for that factory; NCCL is vLLM's own."""
SENT_S: Final = 30.0
"""Longest wait for a sender's thread once every engine has answered."""


class Transport(Protocol):
    """The trainer's side. `join` and `leave` may be called at any time but not during `publish` of that engine."""

    kind: Kind

    def unreachable(self, info: EngineInfo) -> str:
        """The reason why weights cannot get to this engine, as a sentence; empty when they can."""
        ...

    def join(self, info: EngineInfo, init: Callable[[dict[str, Any]], None]) -> None:
        """Make an engine known once it is up: a new one, or a replacement under its old name.

        `init` runs `EngineActor.init_transfer` and blocks until it is done; it may be called from another thread.
        """
        ...

    def leave(self, engine: str) -> None:
        """Forget an engine that is dead or about to be restarted. Unknown names are ignored."""
        ...

    def publish(
        self, weights: Mapping[str, torch.Tensor], engines: Collection[str]
    ) -> AbstractContextManager[Mapping[str, Update]]:
        """Offer the weights to these engines while the block runs; yields what each engine's `sync` gets.

        Raises EngineError when they cannot be offered. A repeated load takes a new block.
        """
        ...

    def close(self) -> None:
        """Release what is held. Idempotent."""
        ...


def choose(config: EngineConfig, *, cuda: bool) -> Kind:
    """The transport of a configuration, `cuda` says whether the trainer's process sees a CUDA device.

    "auto" is shared memory without GPUs on both sides, CUDA IPC for engines that ask for a part of a GPU (the
    trainer has the other part) and NCCL for those with GPUs of their own. Raises EngineError for a way that this
    machine or configuration does not have.
    """
    wanted = config.transport
    if wanted == "shm":
        return "shm"
    if wanted == "auto":
        if not (cuda and config.gpus):
            return "shm"
        return "ipc" if config.gpus < 1 else "nccl"
    if not cuda:
        raise EngineError(f"engine.transport = {wanted} is not available here: this process sees no CUDA device")
    if not config.gpus:
        raise EngineError(f"engine.transport = {wanted} is not available here: engine.gpus = 0")
    return wanted


def open_transport(config: EngineConfig) -> Transport:
    """The chosen transport, ready for engines to join. Raises EngineError as `choose` does."""
    import torch

    kind = choose(config, cuda=torch.cuda.is_available())
    return SharedMemory() if kind == "shm" else CudaIpc() if kind == "ipc" else Nccl()


class SharedMemory:
    """One segment for all engines, written once: see `engine.weights.publish`. It stays for the next sync."""

    kind: Kind = "shm"

    def __init__(self) -> None:
        self._segments = Segments()

    def unreachable(self, info: EngineInfo) -> str:
        """Only this machine's engines see its memory."""
        if info.node == socket.gethostname():
            return ""
        return f"{info.engine} is on another machine ({info.node}): shared memory stays on this one; use nccl"

    def join(self, info: EngineInfo, init: Callable[[dict[str, Any]], None]) -> None:
        """Nothing to agree on beforehand: every update names its own segment."""

    def leave(self, engine: str) -> None:
        """Nothing is held for an engine."""

    @contextmanager
    def publish(self, weights: Mapping[str, torch.Tensor], engines: Collection[str]) -> Iterator[Mapping[str, Update]]:
        """See Transport."""
        from engine.weights.publish import publish

        with publish(weights, self._segments) as manifest:
            yield dict.fromkeys(engines, manifest)

    def close(self) -> None:
        """Remove the segment that was kept."""
        self._segments.close()


class CudaIpc:
    """vLLM's CUDA IPC with its handles as plain values (see `engine.weights.transfer_ipc`). Not run: needs CUDA."""

    kind: Kind = "ipc"

    def unreachable(self, info: EngineInfo) -> str:
        """CUDA's handles hold within one machine."""
        if info.node == socket.gethostname():
            return ""
        return f"{info.engine} is on another machine ({info.node}): CUDA IPC stays on this one; use nccl"

    def join(self, info: EngineInfo, init: Callable[[dict[str, Any]], None]) -> None:
        """Tell the worker that every tensor has a handle of its own."""
        del info
        init({"packed": False})

    def leave(self, engine: str) -> None:
        """Nothing is held for an engine."""

    @contextmanager
    def publish(self, weights: Mapping[str, torch.Tensor], engines: Collection[str]) -> Iterator[Mapping[str, Update]]:
        """See Transport. The handles hold while the tensors behind them live: until the block ends."""
        import torch

        from engine.weights.transfer_ipc import update_info

        on_gpu = {name: tensor.detach().to("cuda").contiguous() for name, tensor in weights.items()}
        torch.cuda.synchronize()
        yield dict.fromkeys(engines, update_info(on_gpu))
        del on_gpu
        torch.cuda.ipc_collect()

    def close(self) -> None:
        """CUDA frees what the trainer's tensors no longer hold."""


class Nccl:
    """vLLM's NCCL broadcast, a communicator of its own for each engine. Not run: needs CUDA."""

    kind: Kind = "nccl"

    def __init__(self) -> None:
        self._groups: dict[str, Any] = {}

    def unreachable(self, info: EngineInfo) -> str:
        """NCCL reaches every machine of the cluster; an engine has to have joined."""
        return "" if info.engine in self._groups else f"{info.engine} has not joined the NCCL transport"

    def join(self, info: EngineInfo, init: Callable[[dict[str, Any]], None]) -> None:
        """Both sides meet in NCCL's rendezvous, so the engine's half runs beside ours."""
        from vllm.distributed.weight_transfer.nccl_common import trainer_init
        from vllm.utils.network_utils import get_ip, get_open_port

        self.leave(info.engine)
        meeting = {"master_address": get_ip(), "master_port": get_open_port(), "world_size": 1 + info.workers}
        half = _CallThread(lambda: init(meeting | {"rank_offset": 1, "packed": False}))
        self._groups[info.engine] = trainer_init(meeting)
        half.join()

    def leave(self, engine: str) -> None:
        """Destroy the communicator; a broadcast that waits in it ends with an error."""
        if (group := self._groups.pop(engine, None)) is not None:
            group.destroy()

    @contextmanager
    def publish(self, weights: Mapping[str, torch.Tensor], engines: Collection[str]) -> Iterator[Mapping[str, Update]]:
        """See Transport. A thread for each engine broadcasts as soon as that engine's worker receives."""
        import torch

        if unknown := [name for name in engines if name not in self._groups]:
            raise EngineError(f"{unknown[0]} has not joined the NCCL transport")
        device = torch.cuda.current_device()
        tensors = [tensor.detach().to("cuda").contiguous() for tensor in weights.values()]
        torch.cuda.synchronize()
        update = {
            "names": list(weights),
            "dtype_names": [str(tensor.dtype).removeprefix("torch.") for tensor in tensors],
            "shapes": [list(tensor.shape) for tensor in tensors],
        }

        def send(group: Any) -> None:
            torch.cuda.set_device(device)
            stream = torch.cuda.Stream()
            for tensor in tensors:
                group.broadcast(tensor, src=0, stream=stream)
            stream.synchronize()

        senders = {name: _CallThread(partial(send, self._groups[name])) for name in engines}
        yield dict.fromkeys(engines, update)
        for name, sender in senders.items():
            if not sender.done(SENT_S):
                # The engine never received: its worker died, or refused the update before it came to NCCL. Its own
                # report says so; a communicator with half a broadcast in it is of no more use.
                self.leave(name)

    def close(self) -> None:
        """Leave every communicator."""
        for name in list(self._groups):
            self.leave(name)


class _CallThread:
    """A call on a thread of its own, whose error `join` raises."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), name="transport", daemon=True)
        self._thread.start()

    def done(self, timeout: float) -> bool:
        """Wait for the end; false when it has not come in time."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait for the end. Raises EngineError for whatever the call raised."""
        self._thread.join()
        if self._error is not None:
            raise EngineError(f"transport: {self._error}") from self._error

    def _run(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  passed to `join`, which raises it in the caller's thread
            self._error = error
