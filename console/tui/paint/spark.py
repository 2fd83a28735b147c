"""Numbers over time in one line of cells. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from console.tui.paint.glyphs import Glyphs

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_ASCII: Final = "_.-=+*#@"


def spark(values: Sequence[float], width: int, glyphs: Glyphs, top: float | None = None) -> str:
    """The newest values, at most `width` of them, from 0 to `top` (the largest of them without one).

    A value below 0 or NaN was not reported: a blank.
    """
    shown = values[-width:] if width > 0 else ()
    ramp = _ASCII if glyphs.name == "ascii" else _BLOCKS
    ceiling = top if top is not None else max((value for value in shown if value >= 0), default=0.0)
    if ceiling <= 0:
        return "".join(ramp[0] if value >= 0 else " " for value in shown)
    last = len(ramp) - 1
    return "".join(ramp[min(int(value / ceiling * last + 0.5), last)] if value >= 0 else " " for value in shown)


def resample(times: Sequence[float], values: Sequence[float], width: int) -> list[float]:
    """Values at times as `width` means over equal spans of time; -1 for a span without one."""
    if not times or width < 1:
        return []
    begin, span = times[0], times[-1] - times[0]
    if len(times) <= width // 2 or span <= 0:
        # So few that each has a cell of its own: to spread them would show gaps that are none.
        return list(values)
    sums, counts = [0.0] * width, [0] * width
    for when, value in zip(times, values, strict=True):
        if value >= 0:
            place = min(int((when - begin) / span * width), width - 1)
            sums[place] += value
            counts[place] += 1
    return [total / count if count else -1.0 for total, count in zip(sums, counts, strict=True)]


def bars(counts: Sequence[int], glyphs: Glyphs) -> str:
    """Counts as bars from none to the largest of them; none is a blank, and one is seen beside a thousand."""
    ramp = _ASCII if glyphs.name == "ascii" else _BLOCKS
    top = max(counts, default=0)
    last = len(ramp) - 1
    return "".join(ramp[round(count / top * last)] if count else " " for count in counts)
