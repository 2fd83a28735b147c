"""A W&B run as its client left it on the disk: `run-<id>.wandb`, the file that `wandb sync` reads.

The file is a log in LevelDB's format with a 7-byte header of W&B's own and plain CRC-32 (IEEE) for checksums:

    file    ":W&B" | 0xBEE1 u16 | version u8 | blocks of 32 KiB, the header being part of the first
    block   records | fewer than 7 zero bytes
    record  crc u32 over type and data | length u16 | type u8 (1 whole, 2 first, 3 middle, 4 last) | data

Put together, data are protobuf `Record`s; what is used of them (wandb/proto/wandb_internal.proto):

    Record   history = 2, config = 5, metric = 12, run = 17
    History  item = 1 {key = 1, nested_key = 2, value}, step = 2 {num = 1}
    Config   update = 1 {key = 1, nested_key = 2, value}
    value    none = 3, boolean = 4, integer = 5 (sint64), number = 6, text = 7, json = 8, value_json = 16
    Metric   name = 1, glob_name = 2, step_metric = 4 (what `define_metric` was called with)
    Run      run_id = 1, project = 3, config = 4, display_name = 8
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from console.importing import files
from console.importing.json_logs import entry_record
from console.importing.protobuf import double, fields, message, signed, text, zigzag
from console.importing.rows import Log, LogImportError, number, parse
from console.importing.steps import COUNTED, COUNTER
from driftline.text import sanitize

SUFFIX: Final = ".wandb"
BLOCK: Final = 32 * 1024
_HEADER: Final = struct.Struct("<4sHB")
_RECORD: Final = struct.Struct("<IHB")
_IDENT, _MAGIC = b":W&B", 0xBEE1
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read(path: Path) -> Log:
    """The history of a run, its own steps and the steps that it declared. Raises LogImportError, OSError."""
    data = files.read(path)
    if len(data) < _HEADER.size or _HEADER.unpack_from(data)[:2] != (_IDENT, _MAGIC):
        raise LogImportError(f"{path}: not a W&B run: it does not begin as one")
    version = data[_HEADER.size - 1]
    if version != 0:
        raise LogImportError(f"{path}: W&B file version {version}; this version reads 0")
    log = Log("W&B", counter=COUNTER, counted=COUNTED)
    for body in records(data, log):
        try:
            _take(body, log)
        except (ValueError, struct.error, RecursionError):
            log.damaged += len(body)
    return log


def records(data: bytes, log: Log) -> Iterator[bytes]:
    """The records of a file, put together; after damage it goes on with the next block, and counts what it skipped."""
    at, part = _HEADER.size, b""
    while at + _RECORD.size <= len(data):
        left = BLOCK - at % BLOCK
        if left < _RECORD.size:
            at += left
            continue
        crc, size, kind = _RECORD.unpack_from(data, at)
        body = data[at + _RECORD.size : at + _RECORD.size + size]
        sound = len(body) == size <= left - _RECORD.size and zlib.crc32(bytes((kind,)) + body) == crc
        if not sound or not _WHOLE <= kind <= _LAST:
            skipped = min(left, len(data) - at)
            log.damaged += skipped + len(part)
            at, part = at + skipped, b""
            continue
        at += _RECORD.size + size
        if kind == _WHOLE:
            yield body
        elif kind == _FIRST:
            part = body
        elif part:
            part += body
            if kind == _LAST:
                yield part
                part = b""


def _take(body: bytes, log: Log) -> None:
    for field, value in fields(body):
        match field:
            case 2:
                _history(message(value), log)
            case 5:
                log.config |= _config(message(value))
            case 12:
                _metric(message(value), log)
            case 17:
                _run(message(value), log)


def _history(data: bytes, log: Log) -> None:
    values: dict[str, Any] = {}
    step = None
    for field, value in fields(data):
        if field == 1:
            name, parsed = _item(message(value))
            values[name] = parsed
        elif field == 2:
            step = next((signed(int(num)) for at, num in fields(message(value)) if at == 1), 0)
    own = number(values.pop(COUNTER, None))
    values.pop("_runtime", None)
    values.pop("_wandb", None)
    if (found := entry_record(values, log.left, ".")) is not None:
        found.counter = step if step is not None else own
        log.records.append(found)


def _item(data: bytes) -> tuple[str, Any]:
    key, nested = "", []
    value: Any = None
    for field, content in fields(data):
        match field:
            case 1:
                key = text(content)
            case 2:
                nested.append(text(content))
            case 4:
                value = bool(content)
            case 5:
                value = zigzag(int(content))
            case 6:
                value = double(content)
            case 7:
                value = text(content)
            case 8 | 16:
                value = parse(message(content))
    return key or ".".join(nested), value


def _metric(data: bytes, log: Log) -> None:
    parts = {field: text(value) for field, value in fields(data) if field in (1, 2, 4)}
    if step := parts.get(4):
        log.declared.append((parts.get(1) or parts.get(2, ""), step))


def _config(data: bytes) -> dict[str, Any]:
    return dict(_item(message(value)) for field, value in fields(data) if field == 1)


def _run(data: bytes, log: Log) -> None:
    parts: dict[int, str] = {}
    for field, value in fields(data):
        if field == 4:
            log.config |= _config(message(value))
        elif field in (1, 3, 8):
            parts[field] = text(value)
    log.run = parts.get(1, "")
    log.title = sanitize("/".join(filter(None, (parts.get(3), parts.get(8) or parts.get(1)))))
