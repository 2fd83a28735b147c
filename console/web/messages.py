"""What a page sends over its WebSocket: keys, the size of its terminal, its focus. Pure; nothing of it is believed."""

from __future__ import annotations

from typing import Any, Final

import msgspec

MOST_BYTES: Final = 64 * 1024
"""Of a message; what is pasted is longer only by mistake, and a console takes no such text."""
LARGEST: Final = 500
"""Columns and rows that a browser may ask for."""


class Keys(msgspec.Struct, frozen=True):
    """What was typed."""

    text: str


class Size(msgspec.Struct, frozen=True):
    """Columns and rows of the terminal, within what is allowed."""

    width: int
    height: int


class Focus(msgspec.Struct, frozen=True):
    """Whether the page has the focus."""

    on: bool


class Ping(msgspec.Struct, frozen=True):
    """To be answered with the same `data`."""

    data: str | int | float | None


Message = Keys | Size | Focus | Ping


class _Resize(msgspec.Struct, frozen=True):
    width: int
    height: int


def size(width: int, height: int) -> Size:
    """A size within what is allowed: 1 to LARGEST."""
    return Size(min(max(width, 1), LARGEST), min(max(height, 1), LARGEST))


def read(text: str) -> Message:
    """The message in a JSON array of its name and its value. Raises ValueError."""
    name, value = _named(text)
    match name:
        case "stdin":
            return Keys(msgspec.convert(value, str))
        case "resize":
            wanted = msgspec.convert(value, _Resize)
            return size(wanted.width, wanted.height)
        case "ping":
            return Ping(msgspec.convert(value, str | int | float | None))
        case "focus" | "blur":
            return Focus(name == "focus")
        case _:
            raise ValueError(f"unknown message '{name[:20]}'")


def _named(text: str) -> tuple[str, Any]:
    try:
        parts = msgspec.json.decode(text, type=list[Any])
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not parts or not isinstance(parts[0], str):
        raise ValueError("not a message")
    return parts[0], parts[1] if len(parts) > 1 else None
