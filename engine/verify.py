"""What weights a vLLM worker holds after a load, as a digest in the trainer's own terms.

The trainer names `q_proj`, `k_proj` and `v_proj`; vLLM holds one `qkv_proj`, and its CPU build then packs that for
the kernel and drops the original. So the digest is taken where the weights can still be read: of a layer that is
processed after loading in the moment before (vLLM's layerwise reload fills a layer anew, processes it and puts it
into service in one go, so what is seen there is what serves), of every other parameter after the load, where the
model has it. Fused and padded parameters are cut back into the trainer's tensors. A layer that no load reached, a
tensor that a loader dropped, a byte that changed on the way: each leaves another digest, or none.

Not everything can be held against the trainer's exactly. With tensor or pipeline parallelism a worker has slices,
quantised weights are other numbers, and a loader may reshape or rename; such tensors are counted with the checksum
they arrived with, and the result says "received" where "held" would claim too much.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, NamedTuple

import torch

from engine.weights import Entry, combine, crc, entry

HELD: Final = "held"
RECEIVED: Final = "received"


@dataclass(frozen=True)
class Slot:
    """Where the model keeps a tensor of the checkpoint: rows [start, stop) of `module`'s parameter, or all of it."""

    module: torch.nn.Module
    parameter: str
    rows: tuple[int, int] | None

    def look(self) -> torch.Tensor:
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
class Load:
    """What is known of one load. `exact` false: this worker's parameters are not the trainer's tensors at all."""

    model: torch.nn.Module
    exact: bool
    bytes: int = 0
    seconds: float = 0.0
    """Time spent looking, a part of the load's."""
    _slots: dict[str, Slot] = field(default_factory=dict)
    _came: dict[str, _Arrival] = field(default_factory=dict)
    _seen: dict[str, tuple[Entry, tuple[int, ...]]] = field(default_factory=dict)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at what comes in and at each layer before it is processed. Enter it with the layers ready to load."""
        self._slots = layout(self.model) if self.exact else {}
        names: dict[torch.nn.Module, list[str]] = {}
        for name, slot in self._slots.items():
            names.setdefault(slot.module, []).append(name)
        methods = {id(m): m for module in names if (m := getattr(module, "quant_method", None)) is not None}
        load_weights = self.model.load_weights
        # Attributes of the instances, which hide the classes' methods until they are deleted.
        self.model.load_weights = lambda weights, *args, **kwargs: load_weights(self._coming(weights), *args, **kwargs)
        for method in methods.values():
            method.process_weights_after_loading = self._look_first(method.process_weights_after_loading, names)
        try:
            yield
        finally:
            del self.model.load_weights
            for method in methods.values():
                del method.process_weights_after_loading

    def result(self) -> Result:
        """What the model holds, once the load is finished."""
        began = time.perf_counter()
        entries, loose, lost = {}, [], []
        for name, came in self._came.items():
            held = self._held(name)
            if came.crc is not None and came.cast is None:
                loose.append(name)
                entries[name] = Entry(came.dtype, came.shape, came.crc)
            elif held is None:
                lost.append(name)
            elif came.cast is not None and came.crc is not None:
                same = held.crc == came.cast
                entries[name] = Entry(came.dtype, came.shape, came.crc if same else held.crc)
            else:
                entries[name] = Entry(came.dtype, came.shape, held.crc)
        self.seconds += time.perf_counter() - began
        return Result(entries, loose, lost, self._without())

    def _coming(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in weights:
            began = time.perf_counter()
            self.bytes += tensor.numel() * tensor.element_size()
            self._came[name] = self._arrival(name, tensor)
            self.seconds += time.perf_counter() - began
            yield name, tensor

    def _arrival(self, name: str, tensor: torch.Tensor) -> _Arrival:
        slot = self._slots.get(name)
        dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
        if slot is None or (place := slot.look()).shape != tensor.shape:
            return _Arrival(dtype, shape, crc(tensor), None)
        if place.dtype != tensor.dtype:
            return _Arrival(dtype, shape, crc(tensor), crc(tensor.to(place.dtype)))
        return _Arrival(dtype, shape, None, None)

    def _look_first(self, process: Any, names: Mapping[torch.nn.Module, list[str]]) -> Any:
        def looked(layer: torch.nn.Module) -> None:
            began = time.perf_counter()
            for name in names.get(layer, ()):
                tensor = self._slots[name].look()
                if not tensor.is_meta:
                    self._seen[name] = entry(tensor), tensor.stride()
            self.seconds += time.perf_counter() - began
            process(layer)

        return looked

    def _held(self, name: str) -> Entry | None:
        """What serves as this tensor; None when nothing that was loaded does."""
        if (slot := self._slots.get(name)) is None:
            return None
        live = slot.look()
        if name not in self._seen:
            return entry(live) if live.numel() or not any(self._came[name].shape) else None
        seen, stride = self._seen[name]
        dtype = str(live.dtype).removeprefix("torch.")
        unpacked = (tuple(live.shape), live.stride(), dtype) == (seen.shape, stride, seen.dtype)
        return entry(live) if unpacked else seen

    def _without(self) -> list[str]:
        """Parameters that nothing came for, under any of their names."""
        places: dict[tuple[int, tuple[int, int] | None], list[str]] = {}
        for name, slot in self._slots.items():
            places.setdefault((id(getattr(slot.module, slot.parameter)), slot.rows), []).append(name)
        return [min(names) for names in places.values() if self._came.keys().isdisjoint(names)]


@dataclass(frozen=True)
class Result:
    """Entries of what is held, and the names of tensors that were checked as received only, that no layer took up,

    and that nothing came for.
    """

    entries: dict[str, Entry]
    loose: list[str]
    lost: list[str]
    missing: list[str]

    @property
    def digest(self) -> str:
        """As `engine.weights.digest` has it."""
        return combine(self.entries)

    @property
    def verified(self) -> str:
        """HELD, or RECEIVED when any tensor was."""
        return RECEIVED if self.loose else HELD

    @property
    def problem(self) -> str:
        """What went wrong whatever the digest says; "" for nothing."""
        if self.missing:
            return f"no weights came for {len(self.missing)} parameters, among them {min(self.missing)}"
        if self.lost:
            return f"{len(self.lost)} tensors were not taken up by the model, among them {min(self.lost)}"
        return ""


class _Arrival(NamedTuple):
    """`crc` of the tensor as it came is None where the held one will do; `cast`: of it in the model's dtype."""

    dtype: str
    shape: tuple[int, ...]
    crc: int | None
    cast: int | None


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)
