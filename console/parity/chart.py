"""The same figure in a terminal: two panels beside each other, in 80 columns and without colours. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from console.formatting import short
from console.parity.figure import Floats, Line, Panel, Scale, horizontal, vertical

ROWS: Final = 9
GUTTER: Final = 6
SIGNS: Final = {"reference": "─", "defaults": "x", "fixed": "+", "repaired": "o"}
BAND: Final = "·"
MARK: Final = "┊"


def chart(panels: Sequence[Panel], labels: dict[str, str], mark: float | None, width: int = 80) -> list[str]:
    """Lines of text, `width` columns wide; later lines are drawn over earlier ones, the band under all."""
    if not panels:
        return []
    across = horizontal(panels)
    columns = (width - 2) // 2 - GUTTER
    legend = [f"{BAND} band of the reference"] + [f"{SIGNS[kind]} {label}" for kind, label in labels.items()]
    if mark is not None:
        legend.append(f"{MARK} fixes switched on")
    text = [*_folded(legend, width), ""]
    drawn = [_panel(panel, across, columns, mark) for panel in panels]
    for i in range(0, len(drawn), 2):
        right = drawn[i + 1] if i + 1 < len(drawn) else [""] * len(drawn[i])
        text += [f"{a.ljust(GUTTER + columns)}  {b}".rstrip() for a, b in zip(drawn[i], right, strict=True)]
        text.append("")
    return text


def _folded(parts: Sequence[str], width: int, between: str = "   ") -> list[str]:
    """The parts of a legend on as many lines as they need."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}{between}{part}" if lines[-1] else part
        if len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def _panel(panel: Panel, across: Scale, columns: int, mark: float | None) -> list[str]:
    up = vertical(panel)
    at = across.low + (np.arange(columns) + 0.5) / columns * (across.high - across.low)
    cells = [[" "] * columns for _ in range(ROWS)]
    low, high = (up.at(np.interp(at, panel.x, edge)) for edge in (np.maximum(panel.low, up.low), panel.high))
    for column in range(columns):
        if panel.x[0] <= at[column] <= panel.x[-1] and not math.isnan(low[column] + high[column]):
            for row in range(_row(high[column]), _row(low[column]) + 1):
                cells[row][column] = BAND
    if mark is not None:
        column = min(int(float(across.at(np.array([mark]))[0]) * columns), columns - 1)
        for cell in cells:
            cell[column] = MARK
    for line in panel.lines:
        for column, height in enumerate(_heights(line, at, up)):
            if not math.isnan(height):
                cells[_row(height)][column] = SIGNS[line.kind]
    edges = {0: short(up.high), ROWS - 1: short(up.low)}
    plot = [f"{edges.get(i, ''):>{GUTTER - 1}} {''.join(row)}" for i, row in enumerate(cells)]
    first, last = f"{across.low:.0f}", f"step {across.high:.0f}"
    axis = " " * GUTTER + first + last.rjust(columns - len(first))
    return [f"{'':{GUTTER}}{panel.title}{' (log)' if panel.log else ''}", *plot, axis]


def _heights(line: Line, at: Floats, up: Scale) -> Floats:
    known = np.isfinite(line.y)
    if not known.any():
        return np.full(len(at), np.nan)
    x, y = line.x[known], line.y[known]
    return up.at(np.where((at >= x[0]) & (at <= x[-1]), np.interp(at, x, y), np.nan))


def _row(height: float) -> int:
    return min(ROWS - 1, int((1 - height) * ROWS))
