"""Writers of small logs for the tests of the import: W&B's file, TensorBoard's, and lines of JSON."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from console.importing import tensorboard, wandb

WANDB_HEADER = bytes.fromhex("3a572642e1be00")


def wandb_file(bodies: Iterable[bytes]) -> bytes:
    """Records in blocks of 32 KiB, as the format says."""
    data = bytearray(WANDB_HEADER)
    for body in bodies:
        at, first = 0, True
        while True:
            left = wandb.BLOCK - len(data) % wandb.BLOCK
            if left < 7:
                data += bytes(left)
                continue
            part = body[at : at + left - 7]
            at += len(part)
            last = at == len(body)
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, last]
            data += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
            if last:
                break
    return bytes(data)


def varint(value: int) -> bytes:
    """A number of 7 bits a byte."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes | int) -> bytes:
    """A varint field, or one with a length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def history(step: int | None, values: Mapping[str, object]) -> bytes:
    """A record of one call of `wandb.log`."""
    items = b"".join(
        field(1, field(2, name.encode("utf-8", "surrogatepass")) + field(16, json.dumps(value).encode()))
        for name, value in values.items()
    )
    return field(2, items + (b"" if step is None else field(2, field(1, step))))


def metric(name: str, step_metric: str) -> bytes:
    """A record of `wandb.define_metric`; a pattern where the name has a `*`."""
    return field(12, field(2 if "*" in name else 1, name.encode()) + field(4, step_metric.encode()))


def wandb_run(run: str) -> bytes:
    """The record that names a run."""
    return field(17, field(1, run.encode()) + field(3, b"project") + field(8, run.encode()))


def event(step: int, tag: str, value: float, time: float = 0.0) -> bytes:
    """A scalar of an event file."""
    scalar = field(1, tag.encode()) + varint(2 << 3 | 5) + struct.pack("<f", value)
    body = varint(1 << 3 | 1) + struct.pack("<d", time) + field(2, step & 2**64 - 1) + field(5, field(1, scalar))
    head = struct.pack("<Q", len(body))
    return head + struct.pack("<I", tensorboard.masked(head)) + body + struct.pack("<I", tensorboard.masked(body))


def write_events(folder: Path, rows: Iterable[tuple[int, str, float]], begin: float = 1.79e9, name: str = "1") -> Path:
    """An event file in a folder, a second between the events."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.out.tfevents.{name}.host"
    path.write_bytes(b"".join(event(step, tag, value, begin + at) for at, (step, tag, value) in enumerate(rows)))
    return path


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """A JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
