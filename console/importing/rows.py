"""What every log reader gives: records as they were logged, the rows made of them, and a count of what was left out."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from driftline.text import sanitize


class LogImportError(ValueError):
    """A log that cannot be read; the message is a sentence."""


class UnknownKindError(LogImportError):
    """A file that is no log of a known kind, whatever comes to stand in it."""


class SeveralRunsError(LogImportError):
    """A log of more than one run, of which none was named."""


@dataclass
class Record:
    """One entry of a log under the log's own names, steps not yet found.

    `counter` is the step that the file itself gives (an event's, W&B's `_step`, a console line's), None where it gives
    none; `texts` are the strings that may be a step ("12/40"); `time` is Unix seconds, 0 where the log has none.
    """

    values: dict[str, float]
    counter: float | None = None
    time: float = 0.0
    texts: dict[str, str] = field(default_factory=dict)


@dataclass
class Row:
    """Numbers of one step at a Unix time (0 where the log has none), under the log's own names."""

    step: int
    time: float
    values: dict[str, float]


class LeftOut:
    """Counts what a reader left out, by reason, with the first names concerned."""

    _MOST, _LONGEST = 4, 40

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._names: dict[str, dict[str, None]] = {}

    def add(self, reason: str, name: str = "", count: int = 1) -> None:
        self.counts[reason] += count
        names = self._names.setdefault(reason, {})
        if name and len(names) <= self._MOST:
            names[sanitize(name)[: self._LONGEST]] = None

    def merge(self, other: LeftOut) -> None:
        for reason, count in other.counts.items():
            self.add(reason, count=count)
            for name in other._names[reason]:
                self.add(reason, name, 0)

    def lines(self) -> list[str]:
        """One line a reason: the reason, the count, and some names."""
        found = []
        for reason, count in self.counts.items():
            names = list(self._names[reason])
            more = ", ..." if len(names) > self._MOST else ""
            found.append(f"{reason}: {count}" + (f" ({', '.join(names[: self._MOST])}{more})" if names else ""))
        return found


@dataclass
class Log:
    """A log of another framework. `rows` are those of `records` by step, once `console.importing.steps` placed them.

    `counter` is the name of the records' own step; `counted` is "" where it is one, else the sentence that says what it
    counts instead;
    `declared` are pairs of a pattern of names and the metric that is their step. `damaged` bytes could not be read.
    `axes` is the step that each name was placed by; `notes` are sentences about how the log was read.
    """

    kind: str
    rows: list[Row] = field(default_factory=list)
    title: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    damaged: int = 0
    records: list[Record] = field(default_factory=list)
    counter: str = ""
    counted: str = ""
    declared: list[tuple[str, str]] = field(default_factory=list)
    axes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left: LeftOut = field(default_factory=LeftOut)
    run: str = ""

    def names(self) -> set[str]:
        return {name for row in self.rows for name in row.values}


NO_NUMBER: Final = "values that are no single number"
NO_TEXT: Final = "entries with a name that is no valid text"
TOO_DEEP: Final = "entries that are nested too deeply"
TWICE: Final = "numbers under a name that their entry has twice"
NO_TIME: Final = "time stamps outside the years 1990 to 2200 or of no known form"

_WORDS: Final = {
    "nan": math.nan, "inf": math.inf, "infinity": math.inf, "+inf": math.inf,
    "-nan": math.nan, "-inf": -math.inf, "-infinity": -math.inf,
}  # fmt: skip
_STEP_TEXT: Final = re.compile(r"\s*\d{1,18}\s*(/\s*\d{1,18}\s*)?")


def number(value: object) -> float | None:
    """A JSON value as a number; NaN and infinities also as words. None for what is none (booleans are 0 and 1)."""
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return None
    return _WORDS.get(value.strip().lower()) if isinstance(value, str) else None


def text_number(text: str) -> float | None:
    """A number that is written as text, as in a CSV cell."""
    try:
        return float(text)
    except ValueError:
        return number(text)


def record(values: Mapping[str, Any], left: LeftOut, separator: str = "/") -> Record | None:
    """The numbers of nested objects, their names joined by `separator`, and the texts that may be a step.

    Lists, media and other texts are counted in `left`; None where a name is no valid text, counted as well.
    """
    found = Record({})
    try:
        _flatten(values, "", separator, found, left)
    except RecursionError:
        left.add(TOO_DEEP)
        return None
    names = [*found.values, *found.texts]
    if any(not _valid(name) for name in names):
        left.add(NO_TEXT)
        return None
    return found


def _flatten(values: Mapping[str, Any], prefix: str, separator: str, into: Record, left: LeftOut) -> None:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if "_type" in value:  # W&B's mark of an image, a histogram, a table
                left.add(NO_NUMBER, name)
            else:
                _flatten(value, f"{name}{separator}", separator, into, left)
        elif (one := number(value)) is not None:
            if name in into.values:
                left.add(TWICE, name)
            into.values[name] = one
        elif isinstance(value, str) and _STEP_TEXT.fullmatch(value):
            into.texts[name] = value
        elif value is not None and value != "":
            left.add(NO_NUMBER, name)


def _valid(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse(text: str | bytes) -> Any:
    """JSON with the NaN and Infinity that Python and Go loggers write. Raises ValueError, RecursionError."""
    return json.loads(text)
