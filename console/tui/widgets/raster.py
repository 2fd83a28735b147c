"""Envelopes to characters: pure numpy, no screen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from console.store.decimate import Envelope
from console.tui.glyphs import Codes, Marker

Bits = npt.NDArray[np.uint32]


def dots(env: Envelope, low: float, high: float, rows: int, marker: Marker) -> Bits:
    """Bits of one line's dots per cell, shape (rows, columns / marker.wide).

    `low` and `high` are the values at the lower and upper edge; what lies beyond them is drawn at the edge's side only
    as far as the line passes through. Raises ValueError unless high > low.
    """
    if not high > low:
        raise ValueError(f"cannot draw between {low} and {high}")
    columns = len(env.low)
    height = rows * marker.high
    scale = (height - 1) / (high - low)
    with np.errstate(invalid="ignore"):
        top = np.rint((high - env.high) * scale)
        bottom = np.rint((high - env.low) * scale)
        # A line that leaves the range altogether has no dots; NaN compares false everywhere below.
        top = np.maximum(top, 0)
        bottom = np.minimum(bottom, height - 1)
        y = np.arange(height, dtype=np.float64)[:, None]
        mask = (y >= top) & (y <= bottom)
    cells = mask.reshape(rows, marker.high, columns // marker.wide, marker.wide)
    weights = (1 << np.arange(marker.high * marker.wide, dtype=np.uint32)).reshape(marker.high, marker.wide)
    bits = np.zeros((rows, columns // marker.wide), np.uint32)
    for row in range(marker.high):
        for column in range(marker.wide):
            bits |= cells[:, row, :, column] * weights[row, column]
    return bits


def characters(bits: Bits, marker: Marker) -> Codes:
    """Code points of the bits, same shape."""
    return marker.codes[bits]
