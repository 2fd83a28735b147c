"""What a probe mends in a frame before it gives it up: times that are none, and text that UTF-8 cannot hold."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from driftline.frames import MAX_SECONDS, MAX_TIME, Frame

_TIMES: Final = frozenset(("time", "start"))


def mended(frame: Frame) -> Frame:
    """The frame with a time that is none replaced by the time of now, and a negative or endless duration by 0."""
    now, fields = time.time(), {}
    for name in frame.__struct_fields__:
        value = getattr(frame, name)
        if name in _TIMES and not 0 <= value <= MAX_TIME:
            fields[name] = now
        elif name == "seconds" and not 0 <= value <= MAX_SECONDS:
            fields[name] = 0.0
    return msgspec.structs.replace(frame, **fields)


def without_surrogates(frame: Frame) -> Frame:
    """The frame with text that UTF-8 cannot hold replaced: a tokenizer's pieces may be halves of characters."""
    return msgspec.structs.replace(frame, **{k: _utf8(getattr(frame, k)) for k in frame.__struct_fields__})


def _utf8(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case tuple():
            return tuple(_utf8(item) for item in value)
        case dict():
            return {_utf8(key): _utf8(item) for key, item in value.items()}
        case msgspec.Struct():
            return msgspec.structs.replace(value, **{k: _utf8(getattr(value, k)) for k in value.__struct_fields__})
        case _:
            return value
