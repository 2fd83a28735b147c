"""Verification of a load: a digest of the weights that a vLLM worker holds, in the trainer's own terms.

The trainer names `q_proj`, `k_proj` and `v_proj`; vLLM holds one `qkv_proj`, and its CPU build then packs that for
the kernel and drops the original. So the digest is taken where the weights can still be read: of a packed layer
from what it was packed from (vLLM's layerwise reload fills a layer anew, processes it and puts it into service in
one go, so what is seen there is what serves), of every other parameter after the load, where the model has it.
Fused and padded parameters are cut back into the trainer's tensors. A layer that no load reached, a tensor that a
loader dropped, a byte that changed on the way: each leaves another digest, or none.

Not everything can be held against the trainer's exactly. With tensor or pipeline parallelism a worker has slices,
quantised weights are other numbers, and a loader may reshape or rename; such tensors are counted with the checksum
they arrived with, and the result says "received" where "held" would claim too much.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, NamedTuple

import torch

from engine.weights.publish import Entry, combine, crc, entry

HELD: Final = "held"
RECEIVED: Final = "received"


@dataclass(frozen=True)
class Slot:
    """Place of a tensor of the checkpoint in the model: rows [start, stop) of `module`'s parameter, or all of it."""

    module: torch.nn.Module
    parameter: str
    rows: tuple[int, int] | None

    def tensor(self) -> torch.Tensor:
        """The tensor as it is now."""
        whole: torch.Tensor = getattr(self.module, self.parameter).detach()
        return whole if self.rows is None else whole[self.rows[0] : self.rows[1]]


def layout(model: torch.nn.Module) -> dict[str, Slot]:
    """Checkpoint name of every parameter, from the model's own account of what it fuses.

    Ask while the parameters have the shapes they are loaded in. A parameter under two names (tied weights) has both.
    """
    fused: Mapping[str, list[str]] = getattr(model, "packed_modules_mapping", None) or {}
    slots: dict[str, Slot] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        prefix, _, last = path.rpartition(".")
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            sizes = getattr(module, "output_partition_sizes", None)
            parts = fused.get(last)
            if parts and sizes and len(parts) == len(sizes):
                ends = list(accumulate(sizes))
                for part, start, stop in zip(parts, [0, *ends], ends, strict=False):
                    slots[_join(prefix, part, name)] = Slot(module, name, (start, stop))
            elif (rows := getattr(module, "org_vocab_size", None)) is not None:
                slots[_join(path, name)] = Slot(module, name, (0, rows))  # the rest is padding
            else:
                slots[_join(path, name)] = Slot(module, name, None)
    return slots


@dataclass
class LoadCheck:
    """Checks one load. `exact` false: this worker's parameters are not the trainer's tensors at all.

    Make it before the layers are made ready for the load, while tied parameters can still be identified.
    """

    model: torch.nn.Module
    exact: bool
    bytes: int = 0
    seconds: float = 0.0
    """Time spent checking, a part of the load's. Packed layers are checked beside it, on a thread."""
    _tied: list[list[str]] = field(init=False)
    _slots: dict[str, Slot] = field(default_factory=dict)
    _places: dict[str, tuple[torch.Size, torch.dtype]] = field(default_factory=dict)
    _arrived: dict[str, _Arrival] = field(default_factory=dict)
    _packed: dict[str, Future[Entry]] = field(default_factory=dict)
    _processed: set[torch.nn.Module] = field(default_factory=set)
    _transposes: bool = False

    def __post_init__(self) -> None:
        names: dict[int, list[str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if parameter.numel():  # a packed layer has an empty one left
                names.setdefault(id(parameter), []).append(name)
        self._tied = [tied for tied in names.values() if len(tied) > 1]

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Check the incoming tensors and each layer as it is processed. Enter it with the layers ready to load."""
        self._slots = layout(self.model)
        self._places = {name: ((at := slot.tensor()).shape, at.dtype) for name, slot in self._slots.items()}
        names: dict[torch.nn.Module, list[str]] = {}
        for name, slot in self._slots.items():
            names.setdefault(slot.module, []).append(name)
        methods = {id(m): m for module in names if (m := processor(module)) is not None}
        # Every model of vLLM has `load_weights`, which torch's Module does not declare.
        model: Any = self.model
        load_weights = model.load_weights
        with ThreadPoolExecutor(1, "look") as beside:
            # Attributes of the instances, which hide the classes' methods until they are deleted.
            model.load_weights = lambda weights, *args, **kwargs: load_weights(self._arriving(weights), *args, **kwargs)
            for method in methods.values():
                process = method.process_weights_after_loading
                method.process_weights_after_loading = self._checking(process, names, beside)
            try:
                yield
                self._process_tied_layers()
            finally:
                del model.load_weights
                for method in methods.values():
                    del method.process_weights_after_loading
            began = time.perf_counter()
        self.seconds += time.perf_counter() - began

    def result(self) -> Result:
        """Entries of the tensors that the model holds, once the load is finished."""
        began = time.perf_counter()
        entries, loose, lost = {}, [], []
        for name, arrived in self._arrived.items():
            if arrived.crc is not None and arrived.cast is None:
                loose.append(name)
                entries[name] = Entry(arrived.dtype, arrived.shape, arrived.crc)
            elif (held := self._held(name)) is None:
                lost.append(name)
            elif arrived.crc is not None:
                entries[name] = Entry(
                    arrived.dtype, arrived.shape, arrived.crc if held.crc == arrived.cast else held.crc
                )
            else:
                entries[name] = Entry(arrived.dtype, arrived.shape, held.crc)
        self.seconds += time.perf_counter() - began
        return Result(entries, loose, lost, self._missing())

    def _arriving(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in weights:
            began = time.perf_counter()
            self.bytes += tensor.numel() * tensor.element_size()
            self._arrived[name] = self._arrival(name, tensor)
            self.seconds += time.perf_counter() - began
            yield name, tensor

    def _arrival(self, name: str, tensor: torch.Tensor) -> _Arrival:
        place = self._places.get(name) if self.exact else None
        dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
        if place is not None and place[0] == tensor.shape[::-1] != tensor.shape:
            self._transposes = True  # as GPT-2's loader does, where a square matrix does not show it
        if place is None or place[0] != tensor.shape or (self._transposes and len(shape) == 2 and shape[0] == shape[1]):
            return _Arrival(dtype, shape, crc(tensor), None)
        if place[1] != tensor.dtype:
            return _Arrival(dtype, shape, crc(tensor), crc(tensor.to(place[1])))
        return _Arrival(dtype, shape, None, None)

    def _checking(self, process: Any, names: Mapping[torch.nn.Module, list[str]], beside: ThreadPoolExecutor) -> Any:
        def processed(layer: torch.nn.Module) -> None:
            before = {name: self._slots[name].tensor() for name in names.get(layer, ())}
            process(layer)
            self._processed.add(layer)
            for name, tensor in before.items():
                if not tensor.is_meta and not _alike(tensor, self._slots[name].tensor()):
                    # Packed: what it was packed from is let go once its checksum is known.
                    self._packed[name] = beside.submit(entry, tensor)

        return processed

    def _process_tied_layers(self) -> None:
        """Process layers whose parameter was loaded under another layer's name.

        vLLM's reload puts a shared parameter back into each of its layers, but processes only the one that was
        loaded: on a CPU a tied head would go on with the packed copy of the old embedding.
        """
        for name in (name for tied in self._tied for name in tied):
            slot = self._slots.get(name)
            if slot is None or slot.module in self._processed or (method := processor(slot.module)) is None:
                continue
            method.process_weights_after_loading(slot.module)

    def _held(self, name: str) -> Entry | None:
        """Entry of the tensor that serves under this name; None when no loaded tensor does."""
        if (slot := self._slots.get(name)) is None:
            return None
        if (packed := self._packed.get(name)) is not None:
            return packed.result()
        if processor(slot.module) is not None and slot.module not in self._processed:
            return None
        return entry(slot.tensor())

    def _missing(self) -> list[str]:
        """Parameters that no weights came for, under any of their names."""
        if not self.exact or any(name not in self._slots for name in self._arrived):
            return []  # what arrived under a name that cannot be placed may be theirs
        first = {name: tied[0] for tied in self._tied for name in tied}
        arrived = {first.get(name, name) for name in self._arrived}
        return sorted({first.get(name, name) for name in self._slots} - arrived)


@dataclass(frozen=True)
class Result:
    """Entries of what is held, and names: `loose` was checked as received only, `lost` no layer took up, `missing`

    never arrived.
    """

    entries: dict[str, Entry]
    loose: list[str]
    lost: list[str]
    missing: list[str]

    @property
    def digest(self) -> str:
        """As `engine.weights.publish.digest` has it."""
        return combine(self.entries)

    @property
    def verified(self) -> str:
        """HELD, or RECEIVED when any tensor was."""
        return RECEIVED if self.loose else HELD

    @property
    def problem(self) -> str:
        """The error that holds whatever the digest; "" for none."""
        if self.missing:
            return f"no weights came for {len(self.missing)} parameters, among them {min(self.missing)}"
        if self.lost:
            return f"{len(self.lost)} tensors were not taken up by the model, among them {min(self.lost)}"
        return ""


class _Arrival(NamedTuple):
    """`crc` of the tensor as it arrived is None where the held one will do; `cast`: of it in the model's dtype."""

    dtype: str
    shape: tuple[int, ...]
    crc: int | None
    cast: int | None


def processor(module: torch.nn.Module) -> Any:
    """The object that processes a layer after loading (vLLM's quant method); None for a layer without."""
    method = getattr(module, "quant_method", None)
    return method if hasattr(method, "process_weights_after_loading") else None


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)
