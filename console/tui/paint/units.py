"""Figures as people read them: durations, sizes, rates and times of day in units that fit them. Pure."""

from __future__ import annotations

import math
import time
from typing import Final

from rich.cells import cell_len

from console.tui.paint.clean_text import clean

NONE: Final = "–"
"""Stands in place of a figure that was not reported."""

_DAY: Final = 86_400.0
_SIZES: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def number(value: float) -> str:
    """A number in at most six characters, for axes, tables and headers: three digits that matter, k, M and G above."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    size = abs(value)
    if size == 0:
        return "0"
    for limit, unit, factor in ((999.5e9, "", 0.0), (999.5e6, "G", 1e-9), (999.5e3, "M", 1e-6), (999.5, "k", 1e-3)):
        if size >= limit:
            return f"{value:.0e}".replace("e+", "e") if not unit else _digits(value * factor, 2) + unit
    if size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return _digits(value, 3)


def _digits(value: float, digits: int) -> str:
    size = abs(value)
    whole = max(math.floor(math.log10(size)) + 1, 0) if size >= 1 else 0
    # Below one the zeros after the point are no digits that matter, but two places always are enough room.
    places = max(digits - whole, 0) if size >= 1 else min(digits - 1 - math.floor(math.log10(size)), 4)
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def span(seconds: float) -> str:
    """A time span in at most six characters: 45s, 2m30, 1h05, 3d4h."""
    if not math.isfinite(seconds) or abs(seconds) >= 1000 * _DAY:
        return number(seconds)
    if seconds < 60:
        return f"{number(seconds)}s" if seconds else "0"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}m{rest:02d}" if rest else f"{minutes}m"
    if seconds < _DAY:
        hours, rest = divmod(round(seconds / 60), 60)
        return f"{hours}h{rest:02d}" if rest else f"{hours}h"
    days, rest = divmod(round(seconds / 3600), 24)
    return f"{days}d{rest}h" if rest else f"{days}d"


def elapsed(seconds: float) -> str:
    """A time span as a player shows it: 2:05, 1:02:05."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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


def version(number: int) -> str:
    """A version of the weights; `v?` where it is not recorded."""
    return f"v{number}" if number >= 0 else "v?"


def versions(pair: tuple[int, int]) -> str:
    """A weight version, or the oldest and the newest of several."""
    return version(pair[0]) if pair[0] == pair[1] else f"{version(pair[0])}-{version(pair[1])[1:]}"


def counted(number: int, word: str) -> str:
    """`2 engines`, `1 engine`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def zone(when: float) -> str:
    """The zone that `clock` speaks in, such as `CET`."""
    return time.strftime("%Z", time.localtime(when))


def cut(text: str, width: int, ellipsis: str = "…") -> str:
    """At most `width` cells; what is longer ends in an ellipsis. For text of one cell a character."""
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}{ellipsis}"[:width]


def cut_wide(text: str, width: int) -> str:
    """As `cut`, made printable, for text whose characters may take two cells."""
    text = clean(text[: 4 * width + 8])
    if cell_len(text) <= width:
        return text
    kept, used = [], 1
    for char in text:
        used += cell_len(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + "…" if width > 0 else ""
