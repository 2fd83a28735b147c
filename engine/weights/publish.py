"""Weights from the trainer's memory to the engines' on one machine, and the digest by which both know what they hold.

One shared-memory segment, a file of mode 0600 in /dev/shm, written once for all engines. They get a manifest of
plain values (segment name, tensor names, dtypes, shapes, offsets); no pickle and no path travels.
`engine.weights.transport` has the ways to engines on other machines.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final, NamedTuple

import google_crc32c
import torch

from engine.types import EngineError
from engine.weights import shared_memory
from engine.weights.shared_memory import Segments

ALIGNMENT: Final = 64
"""Offsets are multiples of this, in bytes: a cache line, and enough for any dtype."""

_DTYPE_NAMES = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "int64", "int32", "int8", "uint8", "bool")
DTYPES: Final = {name: getattr(torch, name) for name in _DTYPE_NAMES}
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
_PIECE: Final = 8 << 20

Manifest = dict[str, Any]
"""{"segment": str, "size": int, "names": [str], "dtypes": [str], "shapes": [[int]], "offsets": [int]}"""


@contextmanager
def publish(weights: Mapping[str, torch.Tensor], lender: Segments | None = None) -> Iterator[Manifest]:
    """Copy `weights` into a segment and yield its manifest; the segment is gone, or goes back, when the block ends.

    A reader's view of a lent one may change once the block has ended. Raises EngineError when shared
    memory is absent or too small, or for a dtype that is not in DTYPES.
    """
    manifest = _plan(weights)
    with ExitStack() as stack:
        if lender is None:
            lender = stack.enter_context(closing(Segments()))
        segment = stack.enter_context(lender.lend(manifest["size"]))
        _copy(weights, manifest, segment.memory)
        yield manifest | {"segment": segment.name}


def read(manifest: Manifest) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor) of a published segment, without copying. Raises ValueError for a bad manifest."""
    return Reader().read(manifest)


class Reader:
    """Reads segments, and keeps the latest one mapped: to map a gigabyte anew costs half of copying it.

    The mapping is private, because torch wants writable memory and nothing written here may reach other engines.
    Where a loader has written, later content stays unseen: after a load that was not as expected, `forget`.
    """

    def __init__(self) -> None:
        self._file: tuple[int, int] | None = None
        self._whole = torch.empty(0, dtype=torch.uint8)

    def read(self, manifest: Manifest) -> Iterator[tuple[str, torch.Tensor]]:
        """See `read`. The tensors change with the segment: copy what is to last."""
        whole = self._mapped(manifest["segment"], manifest["size"])
        columns = zip(manifest["names"], manifest["dtypes"], manifest["shapes"], manifest["offsets"], strict=True)
        for name, dtype, shape, offset in columns:
            yield name, _view(whole, DTYPES[dtype], shape, offset)

    def unmap(self) -> None:
        """Map anew next time."""
        self._file, self._whole = None, torch.empty(0, dtype=torch.uint8)

    def _mapped(self, segment: str, size: int) -> torch.Tensor:
        if not shared_memory.NAME.fullmatch(segment):
            raise ValueError(f"{segment!r} is not a weight segment")
        fd = os.open(shared_memory.FOLDER / segment, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            status = os.fstat(fd)
            if status.st_uid != os.getuid() or status.st_mode & 0o077 or status.st_size < size:
                raise ValueError(f"{segment} is not this user's private segment of {size} bytes")
            if self._file != (status.st_dev, status.st_ino):
                mapped = mmap.mmap(fd, status.st_size, access=mmap.ACCESS_COPY)
                self._file = status.st_dev, status.st_ino
                self._whole = torch.frombuffer(mapped, dtype=torch.uint8)
        finally:
            os.close(fd)
        return self._whole


class Entry(NamedTuple):
    """One tensor of a digest: dtype without `torch.`, shape, crc32c of its bytes in row-major order."""

    dtype: str
    shape: tuple[int, ...]
    crc: int


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """64 hex digits that two sets of weights share only when names, dtypes, shapes and bytes are the same.

    crc32c for each tensor, SHA-256 over those: it guards against accidents, at the speed of memory, not forgery.
    """
    return combine({name: entry(tensor) for name, tensor in weights.items()})


def combine(entries: Mapping[str, Entry]) -> str:
    """The digest of weights whose tensors have these entries, in whatever order they come."""
    total = hashlib.sha256()
    for name, (dtype, shape, value) in sorted(entries.items()):
        total.update(f"{name} {dtype} {'x'.join(map(str, shape))} {value:08x}\n".encode())
    return total.hexdigest()


def verify_segment(manifest: Manifest, expected: str) -> dict[str, Entry]:
    """The entries of a published segment. Raises ValueError when it does not hold what `digest` said, OSError when

    it cannot be opened.
    """
    entries = {name: entry(tensor) for name, tensor in read(manifest)}
    if (found := combine(entries)) != expected:
        raise ValueError(f"the segment's digest is {found[:12]}, the trainer's {expected[:12]}")
    return entries


def entry(tensor: torch.Tensor) -> Entry:
    """The entry of one tensor, on whatever device it is."""
    return Entry(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), crc(tensor))


def crc(tensor: torch.Tensor) -> int:
    """crc32c of a tensor's bytes in row-major order."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    value = 0
    # In pieces: the checksum keeps the interpreter to itself, and an actor's event loop runs beside it.
    for start in range(0, len(raw), _PIECE):
        value = google_crc32c.extend(value, raw[start : start + _PIECE])
    return int(value)


def _plan(weights: Mapping[str, torch.Tensor]) -> Manifest:
    names, dtypes, shapes, offsets = [], [], [], []
    end = 0
    for name, tensor in weights.items():
        if tensor.dtype not in _NAMES:
            raise EngineError(f"weight {name}: dtype {tensor.dtype} cannot be sent; allowed: {', '.join(DTYPES)}")
        start = -(-end // ALIGNMENT) * ALIGNMENT
        names.append(name)
        dtypes.append(_NAMES[tensor.dtype])
        shapes.append(list(tensor.shape))
        offsets.append(start)
        end = start + tensor.numel() * tensor.element_size()
    return {"size": end, "names": names, "dtypes": dtypes, "shapes": shapes, "offsets": offsets}


def _copy(weights: Mapping[str, torch.Tensor], manifest: Manifest, mapped: mmap.mmap) -> None:
    whole = torch.frombuffer(mapped, dtype=torch.uint8)
    try:
        for name, offset in zip(manifest["names"], manifest["offsets"], strict=True):
            source = weights[name].detach()
            _view(whole, source.dtype, list(source.shape), offset).copy_(source)
    finally:
        del whole  # the mapping cannot be closed while a tensor looks into it


def _view(whole: torch.Tensor, dtype: torch.dtype, shape: list[int], offset: int) -> torch.Tensor:
    count = 1
    for extent in shape:
        count *= extent
    return whole[offset : offset + count * dtype.itemsize].view(dtype).reshape(shape)
