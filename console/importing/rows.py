"""The common result of every log reader: numbers by step, and the damage found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


class LogImportError(ValueError):
    """A log that cannot be read; the message is a sentence."""


@dataclass
class Row:
    """Numbers of one step at a Unix time (0 where the log has none), under the log's own names."""

    step: int
    time: float
    values: dict[str, float]


@dataclass
class Log:
    """A log of another framework: rows in the order in which they were written; `damaged` bytes could not be read."""

    kind: str
    rows: list[Row] = field(default_factory=list)
    title: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    damaged: int = 0


_WORDS: Final = {"NaN": math.nan, "nan": math.nan, "Infinity": math.inf, "inf": math.inf,
                 "-Infinity": -math.inf, "-inf": -math.inf}  # fmt: skip


def number(value: object) -> float | None:
    """A JSON value as a number; NaN and infinities also as words. None for what is none (booleans are 0 and 1)."""
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return None
    return _WORDS.get(value) if isinstance(value, str) else None


def flat(values: Mapping[str, Any], prefix: str = "", separator: str = ".") -> dict[str, float]:
    """The numbers of nested objects, their names joined; lists, text and media are left out."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            if "_type" not in value:  # W&B's mark of an image, a histogram, a table
                found |= flat(value, f"{prefix}{name}{separator}", separator)
        elif (one := number(value)) is not None:
            found[f"{prefix}{name}"] = one
    return found


def parse(text: str | bytes) -> Any:
    """JSON with the NaN and Infinity that Python and Go loggers write. Raises ValueError."""
    return json.loads(text)
