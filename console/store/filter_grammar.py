"""The grammar of filters as people type them: conditions with a blank between them, all of which must hold.

    step>=812 engine=engine-0 text="two words"

A condition is a field, a comparison and a value. Where the vocabulary says so, words of their own are looked for in a
text, and a minus before a word or a condition turns it round. What the fields are is in a `Vocabulary`; what a
condition means for a token or an event is with those.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, Literal

Op = Literal["=", "!=", "<", "<=", ">", ">="]
Kind = Literal["whole", "number", "word", "part"]
"""A whole number, any number, a word that is the same or not, a text that is in there or not."""

COMPARE: Final[dict[Op, Callable[[Any, Any], Any]]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_OPPOSITE: Final[dict[Op, Op]] = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_ORDERED: Final[tuple[Op, ...]] = ("=", "!=", "<", "<=", ">", ">=")
_EQUAL: Final[tuple[Op, ...]] = ("=", "!=")
_NEEDED: Final[dict[Kind, str]] = {"whole": "a whole number", "number": "a number", "word": "a word", "part": "a text"}

_SIGN: Final = r"(<=|>=|!=|==|<|>|=)"
_SPACED: Final = re.compile(rf'\s*([^\s"<>=!]*)\s*{_SIGN}?\s*(?:"([^"]*)"|([^\s"]*))')
# Beside words that are looked for, a comparison stands at its field: `a > b` are three words.
_CLOSE: Final = re.compile(rf'(-?)([a-z_]+){_SIGN}(?:"([^"]*)"|(\S*))(?!\S)', re.IGNORECASE)
_WORD: Final = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')


class FilterError(ValueError):
    """A text that is not a filter; the message is one sentence that says what is allowed."""


@dataclass(frozen=True)
class Condition:
    """One comparison; `value` is of the type of the field's kind, one of its choices where it has some."""

    field: str
    op: Op
    value: int | float | str

    def __str__(self) -> str:
        value = str(self.value)
        return f'{self.field}{self.op}"{value}"' if not value or " " in value else f"{self.field}{self.op}{value}"


Filter = tuple[Condition, ...]


@dataclass(frozen=True)
class Vocabulary:
    """The fields of one kind of filter, and what they are compared with."""

    fields: Mapping[str, Kind | tuple[str, ...]]
    """A kind, or the choices of a field in their order."""
    unknown: str
    """The complaint about a field that does not exist, with `{name}`, `{near}` and `{fields}`."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    words: str = ""
    """The field in which words without a comparison are looked for; "" where there may be none."""

    def parse(self, text: str) -> Filter:
        """The conditions of a text, none for a blank one. Raises FilterError."""
        return tuple(self._beside_words(text) if self.words else self._conditions(text))

    def complaint(self, text: str) -> str:
        """Why a text is not a filter, "" where it is one."""
        try:
            self.parse(text)
        except FilterError as error:
            return str(error)
        return ""

    def _conditions(self, text: str) -> Iterator[Condition]:
        at, text = 0, text.strip()
        while at < len(text):
            match = _SPACED.match(text, at)
            if match is None or match.end() == at:
                raise FilterError(
                    f"'{text[at:]}' is not a condition; write a field, a comparison and a value: step>=812"
                )
            at = match.end()
            if at < len(text) and not text[at].isspace():
                if text[at] == '"' or text[at - 1] == '"':
                    raise FilterError(f"'{text[at:]}': a quote must end, and a blank follow it")
                raise FilterError(f"'{text[at:]}': a blank must stand between conditions")
            yield self._condition(*match.groups())

    def _beside_words(self, text: str) -> Iterator[Condition]:
        at, text = 0, text.strip()
        while at < len(text):
            match = _CLOSE.match(text, at)
            if match is not None:
                minus, name, *rest = match.groups()
                found = self._condition(name.lower(), *rest)
                yield Condition(found.field, _OPPOSITE[found.op], found.value) if minus else found
            elif (match := _WORD.match(text, at)) is not None:
                minus, quoted, plain = match.groups()
                yield Condition(self.words, "!=" if minus else "=", plain.strip('"') if quoted is None else quoted)
            at = match.end() if match is not None else at + 1

    def _condition(self, name: str, sign: str | None, quoted: str | None, plain: str | None) -> Condition:
        field = self.aliases.get(name, name)
        kind = self.fields.get(field)
        if kind is None:
            near = get_close_matches(name, self.fields, 1)
            words = {"near": f", did you mean {near[0]}?" if near else "", "fields": ", ".join(self.fields)}
            raise FilterError(self.unknown.format(name=name, **words))
        allowed = _EQUAL if kind in ("word", "part") else _ORDERED
        op = next((op for op in allowed if op == ("=" if sign == "==" else sign)), None)
        if op is None:
            raise FilterError(f"{field}: a comparison must follow, one of {' '.join(allowed)}")
        value = plain if quoted is None else quoted
        if not value:
            raise FilterError(f"{field}{op}: {_needed(kind)} must follow")
        return Condition(field, op, _value(field, kind, value))


def _needed(kind: Kind | tuple[str, ...]) -> str:
    return f"one of {', '.join(kind)}" if isinstance(kind, tuple) else _NEEDED[kind]


def _value(field: str, kind: Kind | tuple[str, ...], value: str) -> int | float | str:
    if kind in ("word", "part"):
        return value
    if isinstance(kind, tuple):
        if value.lower() in kind:
            return value.lower()
        raise FilterError(f"{field}: compared with {_needed(kind)}, not with '{value}'")
    try:
        number = int(value) if kind == "whole" else float(value)
    except ValueError:
        raise FilterError(f"{field}: compared with {_needed(kind)}, not with '{value}'") from None
    if abs(number) > 2**62 or number != number:
        raise FilterError(f"{field}: '{value}' is out of range")
    return number
