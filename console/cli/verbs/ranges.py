"""Parses ranges of steps and times of the command line. Raises ValueError with a sentence."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Final

from console.export.schema import LATEST

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_TIMES: Final = "write 2026-03-01T12:30, Unix seconds, or 15m for a time ago"
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_steps(text: str | None) -> tuple[int | None, int | None]:
    """`A:B`, `A:`, `:B` or one step; both ends are included."""
    if text is None:
        return None, None
    first, colon, last = text.partition(":")
    try:
        low = int(first) if first else None
        high = (int(last) if last else None) if colon else low
    except ValueError:
        low = high = None
    if low is None and high is None:
        raise ValueError(f"'{text}' is not a range of steps; write 100:200, 100: or :200")
    if low is not None and high is not None and low > high:
        raise ValueError(f"the range of steps {text} ends before it begins")
    return low, high


def parse_time(text: str | None) -> float | None:
    """Unix seconds of `2026-03-01T12:30` (local time unless it has a zone), of Unix seconds, or of `15m` ago."""
    if text is None:
        return None
    seconds = _to_seconds(text)
    if not abs(seconds) < LATEST:
        raise ValueError(f"'{text}' is not a time; {_TIMES}")
    return seconds


def _to_seconds(text: str) -> float:
    if ago := _AGO.fullmatch(text):
        return time.time() - float(ago[1]) * _SECONDS[ago[2]]
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"'{text}' is not a time; {_TIMES}") from error
