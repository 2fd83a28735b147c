"""The filter of the events screen, `level>=warn kind=sync producer=engine-0 step>=40 words -without "two words"`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from console.store.log import Entry
from driftline.frames import Level

HINT: Final = "level>=warn kind=sync producer=engine-0 step>=40 words -without"
FIELDS: Final = ("level", "kind", "producer", "step")
_LEVELS: Final[dict[Level, int]] = {"info": 0, "warn": 1, "error": 2}
_PART: Final = re.compile(r'-?"[^"]*"?|\S+')
_FIELD: Final = re.compile(r"(-?)([a-z_]+)(>=|<=|!=|=|>|<)(.*)", re.IGNORECASE)

Test = Callable[[Entry], bool]


class FilterError(ValueError):
    """A text that is no filter; the message is one sentence that says what is allowed."""


@dataclass(frozen=True)
class EventFilter:
    """All tests must hold; without one everything passes."""

    text: str
    tests: tuple[Test, ...] = ()

    def __call__(self, entry: Entry) -> bool:
        return all(test(entry) for test in self.tests)


def parse(text: str) -> EventFilter:
    """Read a filter. Raises FilterError."""
    return EventFilter(text, tuple(_test(part) for part in _PART.findall(text)))


def check(text: str) -> str:
    """What is wrong with a filter, "" for nothing."""
    try:
        parse(text)
    except FilterError as error:
        return str(error)
    return ""


def _test(part: str) -> Test:
    found = _FIELD.fullmatch(part)
    if found is None:
        without = part.startswith("-") and len(part) > 1
        return _words(part[1:] if without else part, wanted=not without)
    minus, name, sign, value = found.groups()
    name = name.lower()
    if name not in FIELDS:
        raise FilterError(f"no field '{name}'; there are {', '.join(FIELDS)}")
    if not value:
        raise FilterError(f"{name}{sign} needs a value")
    made = (
        _level(sign, value) if name == "level" else _step(sign, value) if name == "step" else _name(name, sign, value)
    )
    return made if not minus else lambda entry: not made(entry)


def _words(words: str, *, wanted: bool) -> Test:
    needle = words.strip('"').casefold()
    return lambda entry: (needle in f"{entry.kind} {entry.text} {entry.producer}".casefold()) is wanted


def _compare(sign: str, left: float, right: float) -> bool:
    match sign:
        case ">=":
            return left >= right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case "<":
            return left < right
        case "!=":
            return left != right
        case _:
            return left == right


def _level(sign: str, value: str) -> Test:
    level = next((known for known in _LEVELS if known == value.lower()), None)
    if level is None:
        raise FilterError(f"no level '{value}'; there are {', '.join(_LEVELS)}")
    limit = _LEVELS[level]
    return lambda entry: _compare(sign, _LEVELS[entry.level], limit)


def _step(sign: str, value: str) -> Test:
    if not value.isascii() or not value.isdigit():
        raise FilterError(f"step {sign} needs a whole number, not '{value}'")
    limit = int(value)
    return lambda entry: _compare(sign, entry.step, limit)


def _name(field: str, sign: str, value: str) -> Test:
    if sign not in ("=", "!="):
        raise FilterError(f"{field} takes = or !=, not {sign}")
    wanted = value.strip('"').casefold()

    def named(entry: Entry) -> bool:
        have = (entry.kind if field == "kind" else entry.producer).casefold()
        # `kind=sync` is every kind of sync: sync.done, sync.failed.
        return have == wanted or (field == "kind" and have.startswith(f"{wanted}."))

    return named if sign == "=" else lambda entry: not named(entry)
