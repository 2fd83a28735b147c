"""As much of the protobuf wire format as reading a log takes: fields by number, without their schema."""

from __future__ import annotations

import struct
from collections.abc import Iterator

Field = tuple[int, int | bytes]
"""Number and value: an int for a varint, bytes for everything else (of 4 and 8 for fixed ones)."""


def fields(data: bytes) -> Iterator[Field]:
    """The fields of a message in order. Raises ValueError where it is none."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        match key & 7:
            case 0:
                value, at = varint(data, at)
                yield key >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = varint(data, at)
            case 5:
                size = 4
            case kind:
                raise ValueError(f"a field of kind {kind}")
        if at + size > len(data):
            raise ValueError("a field that ends after its message")
        yield key >> 3, data[at : at + size]
        at += size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends. Raises ValueError."""
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise ValueError("a number that ends after its message")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number of more than 64 bits")


def signed(value: int) -> int:
    """A varint as the signed 64-bit number that int32 and int64 fields mean."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def zigzag(value: int) -> int:
    """A varint as the signed number that sint64 fields mean."""
    return value >> 1 ^ -(value & 1)


def double(data: int | bytes) -> float:
    """A fixed field of 8 bytes."""
    return float(struct.unpack("<d", _bytes(data))[0])


def single(data: int | bytes) -> float:
    """A fixed field of 4 bytes."""
    return float(struct.unpack("<f", _bytes(data))[0])


def text(data: int | bytes) -> str:
    """A string field."""
    return _bytes(data).decode("utf-8")


def message(data: int | bytes) -> bytes:
    """A field that holds a message."""
    return _bytes(data)


def _bytes(data: int | bytes) -> bytes:
    if isinstance(data, int):
        raise ValueError("a number where bytes belong")
    return data
