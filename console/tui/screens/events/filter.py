"""The vocabulary of filters of events, and the test of an event; the grammar is `console.store.filter_grammar`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from console.store.filter_grammar import COMPARE, Condition, Vocabulary
from console.store.log import Entry

HINT: Final = "level>=warn kind=sync producer=engine-0 step>=40 words -without"
_LEVELS: Final = ("info", "warn", "error")
_ANYWHERE: Final = "words"
EVENTS: Final = Vocabulary(
    {"level": _LEVELS, "kind": "word", "producer": "word", "step": "whole"},
    "unknown field '{name}'; one of: {fields}",
    words=_ANYWHERE,
)

Test = Callable[[Entry], bool]


@dataclass(frozen=True)
class EventFilter:
    """All tests must hold; without one everything passes."""

    text: str
    tests: tuple[Test, ...] = ()

    def __call__(self, entry: Entry) -> bool:
        return all(test(entry) for test in self.tests)


def parse(text: str) -> EventFilter:
    """Read a filter. Raises FilterError."""
    return EventFilter(text, tuple(partial(_holds, condition) for condition in EVENTS.parse(text)))


def _holds(condition: Condition, entry: Entry) -> bool:
    field, op, value = condition.field, condition.op, condition.value
    if field == "step":
        return bool(COMPARE[op](entry.step, value))
    if field == "level":
        return bool(COMPARE[op](_LEVELS.index(entry.level), _LEVELS.index(str(value))))
    needle = str(value).casefold()
    if field == _ANYWHERE:
        found = needle in f"{entry.kind} {entry.text} {entry.producer}".casefold()
    else:
        have = (entry.kind if field == "kind" else entry.producer).casefold()
        # `kind=sync` is every kind of sync: sync.done, sync.failed.
        found = have == needle or (field == "kind" and have.startswith(f"{needle}."))
    return found if op == "=" else not found
