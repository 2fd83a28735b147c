"""Bars in cells: upright in dots, as for a distribution, or lying, a line each. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from console.store.series.decimate import Envelope
from console.tui.paint.cells import Cells
from console.tui.paint.glyphs import Glyphs, Marker
from console.tui.paint.raster import dots

Floats = npt.NDArray[np.float64]

Box = tuple[int, int, int, int]
"""Row, column, width, height."""

_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_FULL: Final = "█"
_FILLS: Final = "█▓▒░▚▞"
_ASCII_FILLS: Final = "#=:.+x"


def spread(values: Floats, columns: int) -> Floats:
    """Values over dot columns: each as wide as the next where there is room, else the largest of those in a column."""
    n = len(values)
    if n == 0:
        return np.full(columns, np.nan)
    starts = np.arange(columns) * n // columns
    spread_out: Floats = values[starts] if columns >= n else np.fmax.reduceat(values, starts)
    return spread_out


def bars(cells: Cells, box: Box, values: Floats, top: float, inks: list[int], glyphs: Glyphs) -> None:
    """Bars from the floor of a box (row, column, width, height); one value a dot column, one ink a cell."""
    row, column, width, height = box
    marker: Marker = glyphs.marker
    none = np.full(len(values), np.nan)
    floor = np.where(values > 0, 0.0, np.nan)
    bits = dots(Envelope(floor, values, none, none, np.zeros(len(values), np.bool_)), 0.0, top, height, marker)
    place = (slice(row, row + height), slice(column, column + width))
    drawn = bits > 0
    cells.chars[place] = np.where(drawn, marker.codes[bits], cells.chars[place])
    cells.inks[place] = np.where(drawn, np.array(inks, np.uint8)[None, :], cells.inks[place])


def lying(share: float, width: int, glyphs: Glyphs) -> str:
    """A bar of `share` (0 to 1) of `width` cells, to an eighth of a cell; what is more than nothing is seen."""
    if not share > 0 or width < 1:
        return ""
    share = min(share, 1.0)
    if glyphs.name == "ascii":
        return "#" * max(round(share * width), 1)
    whole, rest = divmod(max(round(share * width * 8), 1), 8)
    return _FULL * whole + (_EIGHTHS[rest] if rest else "")


def parts(shares: Sequence[float], width: int, glyphs: Glyphs) -> list[str]:
    """One bar of `width` cells in as many parts as there are shares (0 and above), each of a fill of its own.

    A part that is more than nothing has a cell; all of them together have `width`.
    """
    total = sum(shares)
    if not total > 0 or width < len(shares):
        return ["" for _ in shares]
    cells = [max(round(share / total * width), 1) if share > 0 else 0 for share in shares]
    largest = max(range(len(cells)), key=cells.__getitem__)
    cells[largest] += width - sum(cells)
    fills = _ASCII_FILLS if glyphs.name == "ascii" else _FILLS
    return [fills[at % len(fills)] * count for at, count in enumerate(cells)]


def fill(place: int, glyphs: Glyphs) -> str:
    """The character of one part of `parts`, for a legend."""
    fills = _ASCII_FILLS if glyphs.name == "ascii" else _FILLS
    return fills[place % len(fills)]
