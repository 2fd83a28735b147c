"""Cleaning of text that came over the wire: a model's output must not be able to drive a terminal.

Applied once, where a consumer decodes a frame (`driftline.frames.Stamped.frame`), so that no screen, file or
script behind it has to think of it again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 (with ESC), DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, embeddings, overrides and isolates of direction
    "\u2028\u2029\ud800-\udfff]"  # line and paragraph separators, lone surrogates
)
_VISIBLE: Final = {"\n": "↵", "\t": "⇥"}

_NUMBER: Final = re.compile(r"([0-9]{1,18})")

_KNOWN_LIMIT: Final = 4096
_known_clean: set[str] = set()  # metric names and labels come again with every frame

_S = TypeVar("_S", bound=msgspec.Struct)


def sanitize(text: str) -> str:
    """Return `text` without control, bidirectional and surrogate characters; newline and tab become ↵ and ⇥."""
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(lambda match: _VISIBLE.get(match[0], ""), text)


def plural(count: int, word: str) -> str:
    """`1 engine`, `2 engines`."""
    return f"{count} {word}{'s' * (count != 1)}"


@functools.lru_cache(maxsize=8192)
def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key by which engine-9 comes before engine-10. Kept, because the same names are sorted many times."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _NUMBER.split(name))


def spans(names: Sequence[str]) -> list[str]:
    """Names in natural order, those that follow each other as one: `engine-0 to engine-4`, `engine-7`, `engine-8`."""
    groups: list[list[str]] = []
    for name in sorted(names, key=natural):
        if groups and _follows(groups[-1][-1], name):
            groups[-1].append(name)
        else:
            groups.append([name])
    return [word for group in groups for word in (group if len(group) < 3 else [f"{group[0]} to {group[-1]}"])]


def _follows(before: str, name: str) -> bool:
    word, other = before.rstrip("0123456789"), name.rstrip("0123456789")
    one, two = before[len(word) :], name[len(other) :]
    return word == other and bool(one) and bool(two) and int(two) == int(one) + 1


def sanitize_struct(struct: _S) -> _S:
    """Return `struct` with every string in it sanitised, at any depth; the same object if nothing had to go."""
    changes = {}
    for name in struct.__struct_fields__:
        old = getattr(struct, name)
        new = _clean(old)
        if new is not old:
            changes[name] = new
    return msgspec.structs.replace(struct, **changes) if changes else struct


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value if value in _known_clean else sanitize(value)
    if isinstance(value, dict):
        return _clean_dict(value)
    if isinstance(value, tuple):
        return _clean_tuple(value)
    if isinstance(value, msgspec.Struct):
        return sanitize_struct(value)
    return value


def _clean_tuple(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if value and isinstance(value[0], str) and _UNSAFE.search("".join(value)) is None:
        return value  # one search over thousands of token pieces
    cleaned = tuple(_clean(item) for item in value)
    return value if all(new is old for new, old in zip(cleaned, value, strict=True)) else cleaned


def _clean_dict(value: dict[str, Any]) -> dict[str, Any]:
    strings = any(type(item) is str for item in value.values())
    if not strings and _known_clean.issuperset(value):
        return value
    cleaned = {sanitize(key): _clean(item) for key, item in value.items()}
    if len(_known_clean) < _KNOWN_LIMIT:
        _known_clean.update(key for key in cleaned if len(key) <= 128)
    return cleaned
