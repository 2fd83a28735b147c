"""Figures as people read them: durations, sizes, rates and times of day in units that fit them. Pure."""

from __future__ import annotations

import time
from typing import Final

NONE: Final = "–"
"""Stands where a figure was not told."""

_SIZES: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def duration(seconds: float | None) -> str:
    """Milliseconds below a second, then seconds, minutes, hours; at most nine cells."""
    if seconds is None or seconds != seconds:
        return NONE
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.9995:
        thousandths = seconds * 1e3
        digits = 0 if thousandths >= 10 or thousandths == 0 else 1 if thousandths >= 1 else 2
        return f"{thousandths:.{digits}f} ms"
    if seconds < 99.95:
        return f"{seconds:.{2 if seconds < 9.995 else 1}f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        whole = round(seconds)
        return f"{whole // 60} min {whole % 60:02d}"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60:02d}" if hours < 100 else f"{hours / 24:.0f} days"


def size(count: float) -> str:
    """Bytes in powers of ten."""
    for limit, unit in _SIZES:
        if count >= 0.9995 * limit:
            value = count / limit
            return f"{value:.{0 if value >= 99.5 else 1}f} {unit}"
    return f"{count:.0f} B"


def speed(gb_per_s: float | None) -> str:
    """10^9 bytes a second, or 10^6 where that is too coarse."""
    if gb_per_s is None:
        return NONE
    return f"{gb_per_s:.1f} GB/s" if gb_per_s >= 0.0995 else f"{gb_per_s * 1e3:.1f} MB/s"


def versions(pair: tuple[int, int]) -> str:
    """A weight version, or the oldest and the newest of several."""
    return f"v{pair[0]}" if pair[0] == pair[1] else f"v{pair[0]}-{pair[1]}"


def counted(number: int, word: str) -> str:
    """`2 engines`, `1 engine`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def clock(when: float, now: float | None = None) -> str:
    """The time of day on this machine; with the day in front where `now` is on another one."""
    there = time.localtime(when)
    if now is not None and time.localtime(now)[:3] != there[:3]:
        return time.strftime("%d %b %H:%M:%S", there)
    return time.strftime("%H:%M:%S", there)


def zone(when: float) -> str:
    """The zone that `clock` speaks in, such as `CET`."""
    return time.strftime("%Z", time.localtime(when))


def cut(text: str, width: int) -> str:
    """At most `width` cells; what is longer ends in an ellipsis. For text of one cell a character."""
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"[:width]
