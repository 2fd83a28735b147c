"""The figure: reference with its band, defaults and repaired run, panel by panel, as SVG. Pure, numpy alone.

The colours follow the reader's light or dark scheme (a media query inside the file); the lines also differ by their
dashes, so that the figure reads without colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WIDTH: Final = 960
PANEL: Final = (410, 190)
"""Width and height of a panel's plot, in pixels."""
LEFT, TOP, RIGHT, GAP_X, GAP_Y = 62, 92, 16, 62, 62
COLUMNS: Final = 2
WORD: Final = 40
"""Pixels of the longest tick, half of which a tick in the middle has beside it."""

STYLE: Final = """
text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.page{fill:#fff}.title{font-size:17px;font-weight:600}.head{font-weight:600}.note{fill:#59636e;font-size:12px}
.tick{fill:#59636e;font-size:11px}.grid{stroke:#d1d9e0;stroke-width:1}.frame{fill:none;stroke:#818b98}
.band{fill:#0969da;opacity:.16}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round}.raw{fill:none;stroke-width:.8;opacity:.4}
.reference{stroke:#0969da}.defaults{stroke:#bc4c00;stroke-dasharray:7 3}.repaired{stroke:#1a7f37}
.fixed{stroke:#8250df;stroke-dasharray:2 4}.raw.fixed{display:none}
.mark{stroke:#1a7f37;stroke-width:1.4;stroke-dasharray:2 3}.raw.defaults{stroke-dasharray:none}
@media (prefers-color-scheme:dark){
text{fill:#f0f6fc}.page{fill:#0d1117}.note,.tick{fill:#9198a1}.grid{stroke:#2f3742}.frame{stroke:#656c76}
.band{fill:#4493f8;opacity:.22}.reference{stroke:#4493f8}.defaults{stroke:#f0883e}.repaired{stroke:#3fb950}
.fixed{stroke:#a371f7}.mark{stroke:#3fb950}}
"""


@dataclass(frozen=True)
class Line:
    """One curve: `kind` is reference, defaults, fixed or repaired; `raw_x`, `raw_y` its single steps, drawn faint."""

    kind: str
    x: Floats
    y: Floats
    raw_x: Floats = field(default_factory=lambda: np.empty(0))
    raw_y: Floats = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Panel:
    """One metric over the steps; the band lies between `low` and `high` at `x`."""

    title: str
    log: bool
    x: Floats
    low: Floats
    high: Floats
    lines: list[Line]


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high`, linearly or by their logarithm, onto 0 to 1; outside it is cut off."""

    low: float
    high: float
    log: bool = False

    def at(self, values: Floats) -> Floats:
        """Positions of values; what is not finite, or not positive on a logarithmic scale, is NaN."""
        values = np.where(np.isfinite(values), values, np.nan)
        if not self.log:
            return np.asarray(np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0))
        values = np.where(values > 0, values, np.nan)
        low, high = math.log(self.low), math.log(self.high)
        return np.asarray(np.clip((np.log(values) - low) / (high - low), 0.0, 1.0))

    def ticks(self) -> list[float]:
        """Round numbers inside, at most about six."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


def vertical(panel: Panel) -> Scale:
    """The vertical scale of a panel: all means, the band, and most of the single steps."""
    parts = [panel.low, panel.high, *(line.y for line in panel.lines)]
    for line in panel.lines:
        known = line.raw_y[np.isfinite(line.raw_y)]
        parts.append(np.quantile(known, [0.02, 0.98]) if len(known) else known)
    values = np.concatenate(parts)
    values = values[np.isfinite(values) & ((values > 0) | (not panel.log))]
    if not len(values):
        return Scale(0.1, 1.0, panel.log)
    low, high = float(values.min()), float(values.max())
    if panel.log:
        low, high = max(low, high / 1e4), max(high, low * 1.2)
        return Scale(low / 1.1, high * 1.1, log=True)
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return Scale(low - room, high + room)


def horizontal(panels: Sequence[Panel]) -> Scale:
    """The steps of all panels."""
    parts = [x for panel in panels for line in panel.lines for x in (line.x, line.raw_x) if len(x)]
    ends = [float(x[end]) for x in parts for end in (0, -1)]
    low, high = min(ends), max(ends)
    return Scale(low, high if high > low else low + 1)


def svg(panels: Sequence[Panel], *, heading: str, labels: dict[str, str], mark: float | None, note: str) -> str:
    """The figure as an SVG document. `labels` name the kinds of line in the legend; `mark` is the step of the switch.

    Raises ValueError without a panel.
    """
    if not panels:
        raise ValueError("a figure needs a panel")
    rows = -(-len(panels) // COLUMNS)
    height = TOP + rows * (PANEL[1] + GAP_Y) + 6
    across = horizontal(panels)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(heading, {chr(34): "&quot;"})}">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="{LEFT}" y="30">{escape(heading)}</text>',
        *_legend(labels, marked=mark is not None),
    ]
    for i, panel in enumerate(panels):
        left = LEFT + (i % COLUMNS) * (PANEL[0] + GAP_X)
        body += _panel(panel, across, left, TOP + (i // COLUMNS) * (PANEL[1] + GAP_Y), mark)
    body += [f'<text class="note" x="{LEFT}" y="{height - 14}">{escape(note)}</text>', "</svg>", ""]
    return "\n".join(body)


def _legend(labels: dict[str, str], *, marked: bool) -> Iterator[str]:
    x = LEFT
    for kind, label in labels.items():
        if kind == "reference":
            yield f'<rect class="band" x="{x}" y="45" width="30" height="14"/>'
        yield f'<path class="line {kind}" d="M{x} 52h30"/><text x="{x + 37}" y="56">{escape(label)}</text>'
        x += 60 + round(6.6 * len(label))
    if marked:
        yield f'<path class="mark" d="M{x + 4} 44v16"/><text x="{x + 12}" y="56">fixes switched on</text>'


def _panel(panel: Panel, across: Scale, left: float, top: float, mark: float | None) -> Iterator[str]:
    width, height = PANEL
    up = vertical(panel)

    def points(x: Floats, y: Floats) -> list[tuple[float, float]]:
        return list(zip((left + width * across.at(x)).tolist(), (top + height * (1 - up.at(y))).tolist(), strict=True))

    log = '<tspan class="note" dx="5">(log)</tspan>' if panel.log else ""
    yield f'<text class="head" x="{left}" y="{top - 9}">{escape(panel.title)}{log}</text>'
    for value in up.ticks():
        y = top + height * (1 - float(up.at(np.array([value]))[0]))
        yield f'<path class="grid" d="M{left} {y:.1f}h{width}"/>'
        yield f'<text class="tick" text-anchor="end" x="{left - 7}" y="{y + 4:.1f}">{value:.6g}</text>'
    steps = across.ticks()
    for value in steps:
        word = "step " if value == steps[-1] else ""
        x = left + width * float(across.at(np.array([value]))[0])
        # Its word is as long as the margin is wide.
        anchor = "end" if word and x > left + width - WORD else "middle"
        yield f'<text class="tick" text-anchor="{anchor}" x="{x:.1f}" y="{top + height + 16}">{word}{value:.6g}</text>'
    low, high = points(panel.x, np.maximum(panel.low, up.low)), points(panel.x, panel.high)
    edge = [point for point in high + low[::-1] if not math.isnan(point[0] + point[1])]
    if edge:
        yield f'<path class="band" d="M{" ".join(f"{x:.1f} {y:.1f}" for x, y in edge)}Z"/>'
    for line in panel.lines:
        if len(line.raw_x):
            yield f'<path class="raw {line.kind}" d="{_path(points(line.raw_x, line.raw_y))}"/>'
    for line in panel.lines:
        yield f'<path class="line {line.kind}" d="{_path(points(line.x, line.y))}"/>'
    if mark is not None:
        x = left + width * float(across.at(np.array([mark]))[0])
        yield f'<path class="mark" d="M{x:.1f} {top}v{height}"/>'
    yield f'<rect class="frame" x="{left}" y="{top}" width="{width}" height="{height}"/>'


def _path(points: list[tuple[float, float]]) -> str:
    """A path that is interrupted where a point is not known."""
    parts, pen = [], "M"
    for x, y in points:
        if math.isnan(x) or math.isnan(y):
            pen = "M"
            continue
        parts.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return "".join(parts)


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [factor * 10.0**decade for decade in decades for factor in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) >= 3:
            return found
    return found
