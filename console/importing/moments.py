"""Time stamps of other programs as Unix seconds. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from console.importing.rows import number

KEYS: Final = ("_timestamp", "timestamp", "time", "wall_time", "wall time", "created_at", "ts", "datetime")
"""Names under which logs give the time of an entry, in lower case, the surest first."""
EARLIEST, LATEST = 631152000.0, 7258118400.0
"""Unix seconds of the years 1990 and 2200. A number outside, in whatever unit, is no time of a training run."""
_UNITS: Final = (1.0, 1e3, 1e6, 1e9)


def unix_seconds(value: object) -> float | None:
    """A time in seconds, milliseconds, microseconds or nanoseconds, or an ISO 8601 text; None for anything else.

    The unit follows from the size: the four ranges do not overlap.
    """
    if isinstance(value, str):
        try:
            seconds = datetime.fromisoformat(value.strip().replace(",", ".")).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
        return seconds if EARLIEST <= seconds < LATEST else None
    given = number(value)
    if given is None:
        return None
    return next((given / unit for unit in _UNITS if EARLIEST <= given / unit < LATEST), None)


def find(names: Iterable[str]) -> list[str]:
    """Those of the names under which the time of an entry may stand, the surest first."""
    by_form = {name.strip().lower(): name for name in names}
    return [by_form[key] for key in KEYS if key in by_form]
