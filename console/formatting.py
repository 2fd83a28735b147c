"""Numbers and times for plain terminals and status bars, and strict JSON. No numpy, no screen."""

from __future__ import annotations

import math
import time
from typing import Any


def short(value: float | None) -> str:
    """A number in at most six characters: .43, 1.9, 812, 1.9k, 3e-5, nan; "-" for None."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    size = abs(value)
    if size == 0:
        return "0"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.3g}{unit}"
    if size >= 1:
        return f"{value:.2g}" if size < 10 else f"{value:.0f}"
    if size >= 1e-3:
        return f"{value:.2g}".replace("0.", ".", 1)
    return f"{value:.0e}".replace("e-0", "e-")


def clock(seconds: float, now: float | None = None) -> str:
    """Unix seconds as local hh:mm:ss; with the day in front where `now` is on another one."""
    there = time.localtime(seconds)
    day = now is not None and time.localtime(now)[:3] != there[:3]
    return time.strftime("%d %b %H:%M:%S" if day else "%H:%M:%S", there)


def to_json(value: Any) -> str:
    """Strict JSON. JSON has no NaN, and a null would hide a divergence: they are written as the strings
    "NaN", "Infinity" and "-Infinity"."""
    import json  # a console's first frame does without

    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
