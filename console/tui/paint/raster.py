"""Envelopes to characters: pure numpy, no screen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from console.store.series.decimate import Bools, Envelope, Floats
from console.tui.paint.glyphs import Marker

Bits = npt.NDArray[np.uint32]


def dots(env: Envelope, low: float, high: float, rows: int, marker: Marker) -> Bits:
    """Bits of one line's dots per cell, shape (rows, columns / marker.wide).

    `low` and `high` are the values at the lower and upper edge; what lies beyond them is drawn at the edge's side only
    as far as the line passes through. Raises ValueError unless high > low.
    """
    return _bits(_span(env.low, env.high, low, high, rows * marker.high), rows, marker)


def between(floor: Floats, ceiling: Floats, low: float, high: float, rows: int, marker: Marker) -> Bits:
    """Bits of a pattern of single dots between two lines, one value of each a dot column; shapes as for `dots`.

    Sparse, so that a line on top of it can be told apart from it without colours. Raises ValueError unless high > low.
    """
    mask = _span(floor, ceiling, low, high, rows * marker.high)
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    mask &= ((x + y // 2) % 2 == 0) & (y % 2 == marker.high % 2)
    return _bits(mask, rows, marker)


def _span(floor: Floats, ceiling: Floats, low: float, high: float, height: int) -> Bools:
    """Mask of those of `height` dots of each column that lie between two values."""
    if not high > low:
        raise ValueError(f"cannot draw between {low} and {high}")
    scale = (height - 1) / (high - low)
    with np.errstate(invalid="ignore"):
        # A line that leaves the range altogether has no dots; NaN compares false everywhere below.
        top = np.maximum(np.rint((high - ceiling) * scale), 0)
        bottom = np.minimum(np.rint((high - floor) * scale), height - 1)
        y = np.arange(height, dtype=np.float64)[:, None]
        return np.asarray((y >= top) & (y <= bottom))


def _bits(mask: Bools, rows: int, marker: Marker) -> Bits:
    columns = mask.shape[1] // marker.wide
    cells = mask.reshape(rows, marker.high, columns, marker.wide)
    bits = np.zeros((rows, columns), np.uint32)
    for row in range(marker.high):
        for column in range(marker.wide):
            bits |= cells[:, row, :, column].astype(np.uint32) << np.uint32(row * marker.wide + column)
    return bits
