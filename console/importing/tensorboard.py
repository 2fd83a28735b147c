"""TensorBoard event files: scalars by tag, from the files that SummaryWriter leaves.

    file    records: length u64 | masked crc32c of the length u32 | data | masked crc32c of the data u32
    data    protobuf Event: wall_time = 1 (double), step = 2 (int64), summary = 5
    Summary value = 1 {tag = 1, simple_value = 2 (float), tensor = 8}
    Tensor  dtype = 1 (1 float, 2 double, 3 int32, 9 int64), tensor_content = 4,
            float_val = 5, double_val = 6, int_val = 7, int64_val = 10

(tensorflow/core/util/event.proto, framework/summary.proto, framework/tensor.proto and lib/io/record_writer.cc.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import google_crc32c

from console.importing import files
from console.importing.moments import unix_seconds
from console.importing.protobuf import double, fields, message, signed, single, text, varint
from console.importing.rows import NO_NUMBER, NO_TIME, Log, Record

MARK: Final = "tfevents"
STEP: Final = "step"
"""Name of the step that every event has."""
_LENGTH: Final = struct.Struct("<QI")
_CRC: Final = struct.Struct("<I")
_MOST: Final = 1 << 30
# dtype -> (field of single values, struct code of tensor_content)
_DTYPES: Final = {1: (5, "f"), 2: (6, "d"), 3: (7, "i"), 9: (10, "q")}


def read(found: Sequence[Path], title: str) -> Log:
    """The scalars of the event files of one folder, in the order in which they were begun. Raises OSError."""
    log = Log("TensorBoard", title=title, counter=STEP)
    for one in sorted(found):
        for data in records(files.read(one), log):
            try:
                _take(data, log)
            except (ValueError, struct.error):
                log.damaged += len(data)
    return log


def records(data: bytes, log: Log) -> Iterator[bytes]:
    """The intact records of a file. After a wrong length the start of the next is unknown: the rest is counted."""
    at = 0
    while at + _LENGTH.size <= len(data):
        size, crc = _LENGTH.unpack_from(data, at)
        start = at + _LENGTH.size
        end = start + size
        if masked(data[at : at + 8]) != crc or size > _MOST or end + _CRC.size > len(data):
            break
        body = data[start:end]
        if masked(body) == _CRC.unpack_from(data, end)[0]:
            yield body
        else:
            log.damaged += size
        at = end + _CRC.size
    log.damaged += len(data) - at


def masked(data: bytes) -> int:
    """TensorFlow's checksum: a crc32c, rotated and offset so that data with crcs in it is not a special case."""
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _take(data: bytes, log: Log) -> None:
    time, step = 0.0, 0
    values: dict[str, float] = {}
    for field, value in fields(data):
        match field:
            case 1:
                time = double(value)
            case 2:
                step = signed(int(value))
            case 5:
                for tag, number in _scalars(message(value)):
                    if number is None:
                        log.left.add(NO_NUMBER, tag)
                    else:
                        values[tag] = number
    if not values:
        return
    seconds = unix_seconds(time)
    if seconds is None and time != 0:
        log.left.add(NO_TIME)
    last = log.records[-1] if log.records else None
    # A writer makes an event of each scalar: those of one step that follow each other are one entry.
    if last is None or last.counter != step or last.values.keys() & values.keys():
        log.records.append(last := Record({}, step))
    last.values |= values
    last.time = max(last.time, seconds or 0.0)


def _scalars(summary: bytes) -> Iterator[tuple[str, float | None]]:
    for field, value in fields(summary):
        if field != 1:
            continue
        tag, found = "", None
        for at, content in fields(message(value)):
            match at:
                case 1:
                    tag = text(content)
                case 2:
                    found = single(content)
                case 8:
                    found = _tensor(message(content))
        if tag:
            yield tag, found


def _tensor(data: bytes) -> float | None:
    """The one number of a tensor; None for one of another type or with more of them."""
    parts = dict(fields(data))
    wanted = _DTYPES.get(int(parts.get(1, 0)))
    if wanted is None:
        return None
    field, code = wanted
    raw = parts.get(field, parts.get(4))
    if isinstance(raw, int):
        return float(signed(raw))
    if raw is None:
        return None
    if field in (7, 10) and field in parts:  # packed varints
        value, end = varint(raw, 0)
        return float(signed(value)) if end == len(raw) else None
    return float(struct.unpack(f"<{code}", raw)[0]) if len(raw) == struct.calcsize(code) else None
