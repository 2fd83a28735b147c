"""A filter of tokens as the user types it: conditions separated by blanks, all of which must hold.

    engine=engine-0 version>=12 position<3 step=812 |d|>0.1 text=foo prompt="2 + 2"

Parsing does not depend on a run; `console.store.tokens.survey` applies a filter to a store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal

Op = Literal["=", "!=", "<", "<=", ">", ">="]
Kind = Literal["whole", "number", "word", "part"]
"""A whole number, any number, a word that is the same or not, a text that is in there or not."""

FIELDS: Final[dict[str, Kind]] = {
    "engine": "word", "step": "whole", "version": "whole", "lag": "whole", "position": "whole", "id": "whole",
    "d": "number", "|d|": "number", "rollout": "number", "trainer": "number", "reward": "number",
    "text": "part", "prompt": "part",
}  # fmt: skip
"""`version` sampled the token, `lag` is how many versions the trainer was ahead of it; d = trainer - rollout."""

ALIASES: Final = {"pos": "position", "v": "version", "piece": "text", "abs": "|d|", "diff": "d"}
_OPS: Final[dict[Kind, tuple[Op, ...]]] = {
    "whole": ("=", "!=", "<", "<=", ">", ">="),
    "number": ("=", "!=", "<", "<=", ">", ">="),
    "word": ("=", "!="),
    "part": ("=", "!="),
}
_WANTS: Final[dict[Kind, str]] = {"whole": "a whole number", "number": "a number", "word": "a word", "part": "a text"}
_TERM: Final = re.compile(r"\s*([^\s\"<>=!]*)\s*(<=|>=|!=|==|<|>|=)?\s*(?:\"([^\"]*)\"|([^\s\"]*))")


class FilterError(ValueError):
    """The text is not a filter; the message is one sentence that says what is allowed."""


@dataclass(frozen=True)
class Condition:
    """One comparison; `value` is of the type of the field's kind."""

    field: str
    op: Op
    value: int | float | str

    def __str__(self) -> str:
        value = str(self.value)
        return f'{self.field}{self.op}"{value}"' if not value or " " in value else f"{self.field}{self.op}{value}"


Filter = tuple[Condition, ...]


def parse(text: str) -> Filter:
    """The conditions of a text, none for a blank one. Raises FilterError."""
    conditions = []
    at, text = 0, text.strip()
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None or match.end() == at:
            raise FilterError(f"'{text[at:]}' is not a condition; write a field, a comparison and a value: step>=812")
        at = match.end()
        if at < len(text) and not text[at].isspace():
            if text[at] == '"' or text[at - 1] == '"':
                raise FilterError(f"'{text[at:]}': a quote must end, and a blank follow it")
            raise FilterError(f"'{text[at:]}': a blank must stand between conditions")
        conditions.append(_condition(*match.groups()))
    return tuple(conditions)


def complaint(text: str) -> str:
    """Why a text is not a filter, "" if it is one."""
    try:
        parse(text)
    except FilterError as error:
        return str(error)
    return ""


def _condition(name: str, op: str | None, quoted: str | None, plain: str | None) -> Condition:
    field = ALIASES.get(name, name)
    kind = FIELDS.get(field)
    if kind is None:
        near = get_close_matches(name, FIELDS, 1)
        meant = f", did you mean {near[0]}?" if near else ""
        raise FilterError(f"unknown field '{name}'{meant}; one of: {', '.join(FIELDS)}")
    comparison: Op = "=" if op == "==" else op  # type: ignore[assignment]  # the pattern lets nothing else through
    if comparison is None or comparison not in _OPS[kind]:
        raise FilterError(f"{field}: a comparison must follow, one of {' '.join(_OPS[kind])}")
    value = plain if quoted is None else quoted
    if not value:
        raise FilterError(f"{field}{comparison}: {_WANTS[kind]} must follow")
    return Condition(field, comparison, _value(field, kind, value))


def _value(field: str, kind: Kind, value: str) -> int | float | str:
    if kind in ("word", "part"):
        return value
    try:
        number = int(value) if kind == "whole" else float(value)
    except ValueError:
        raise FilterError(f"{field}: compared with {_WANTS[kind]}, not with '{value}'") from None
    if abs(number) > 2**62 or number != number:
        raise FilterError(f"{field}: '{value}' is out of range")
    return number
