"""The distribution of differences: their histogram and their mean by position, drawn into cells."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from console.store.tokens.ring import BINS, OCTAVES, SIDE, bin_of
from console.store.tokens.survey import Positions
from console.tui.paint.bars import Box, bars, spread
from console.tui.paint.cells import Cells
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import number
from console.tui.screens.tokens.view import INKS, level, size_of

TICKS: Final = (0.0, -1.0, 1.0, -0.01, 0.01, 10.0, -10.0, -0.1, 0.1, -0.001, 0.001)


def draw_histogram(cells: Cells, box: Box, counts: npt.NDArray[np.int64], glyphs: Glyphs) -> None:
    """Counts by signed difference: both axes logarithmic, the difference on both sides of zero."""
    row, column, width, height = box
    if height < 2 or width < 8 or not counts.any():
        return
    columns = width * glyphs.marker.wide
    values = np.where(counts > 0, np.log10(1.0 + counts), np.nan)
    bin_inks = [int(INKS[level(_size(i))]) for i in range(BINS)]
    inks = [max((bin_inks[i] for i in _bins_of(cell, width)), key=INKS_ORDER.__getitem__) for cell in range(width)]
    top = max(float(np.nanmax(values)), 1e-9)
    bars(cells, (row, column, width, height - 1), spread(values, columns), top, inks, glyphs)
    taken: list[tuple[int, int]] = []
    for tick in TICKS:
        text = f"{tick:g}".replace("0.", ".")
        middle = (bin_of(tick) * 2 + 1) * width // (2 * BINS)
        start = min(max(middle - len(text) // 2, 0), width - len(text))
        if all(start > stop or start + len(text) < begin for begin, stop in taken):
            taken.append((start, start + len(text)))
            cells.text(row + height - 1, column + start, text, Ink.DIM)


INKS_ORDER: Final = {int(ink): at for at, ink in enumerate(dict.fromkeys(INKS))}


def _bins_of(cell: int, width: int) -> range:
    first = cell * BINS // width
    return range(first, max((cell + 1) * BINS // width, first + 1))


def _size(at: int) -> float:
    """The smallest |d| of a bin."""
    half = abs(at - SIDE)
    if half == 0:
        return 0.0
    octave, upper = divmod(half - 1, 2)
    return float(2.0 ** (OCTAVES[0] + octave) * (1.5 if upper else 1.0))


def draw_positions(cells: Cells, box: Box, positions: Positions, glyphs: Glyphs) -> None:
    """Mean |d| by position in the response, from 0 on."""
    row, column, width, height = box
    mean = positions.mean
    if height < 2 or width < 8 or not len(mean) or not np.isfinite(mean).any():
        return
    top = max(float(np.nanmax(mean)), 1e-12)
    columns = spread(mean, width * glyphs.marker.wide)
    cell_means = np.fmax.reduceat(columns, np.arange(0, len(columns), glyphs.marker.wide))
    inks = [int(INKS[level(value)]) if np.isfinite(value) else int(Ink.DIM) for value in cell_means]
    # A bar that is not nothing is seen: a position that is never sampled must not look like one that agrees.
    lifted = np.where(columns >= 0, np.maximum(columns, top / (height * glyphs.marker.high)), np.nan)
    bars(cells, (row, column, width, height - 1), lifted, top, inks, glyphs)
    last = f"{len(mean) * positions.width - 1}"
    cells.text(row + height - 1, column, "0", Ink.DIM)
    cells.text(row + height - 1, column + width - len(last), last, Ink.DIM)
    if width > 24:
        cells.text(row + height - 1, column + width // 2 - 4, "position", Ink.DIM)


def positions_label(positions: Positions) -> str:
    """The place at which the mean is largest."""
    if not len(positions.mean) or not np.isfinite(positions.mean).any():
        return ""
    at = int(np.nanargmax(positions.mean))
    where = str(at) if positions.width == 1 else f"{at * positions.width}-{(at + 1) * positions.width - 1}"
    return f"most {size_of(float(positions.mean[at]))} at {where}"


def histogram_label(matched: int, mean: float, broken: int) -> str:
    """Number and average of the differences."""
    text = f"n {number(float(matched))}, mean|Δ| {size_of(mean)}" if matched else ""
    return f"{text}, {broken} no number" if broken else text
