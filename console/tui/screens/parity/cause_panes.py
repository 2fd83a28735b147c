"""The panes of the cause: a small picture of the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from console.diagnosis.model import Profile
from console.formatting import short
from console.tui.paint.bars import bars, lying, spread
from console.tui.paint.cells import Cells, Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut
from console.tui.widgets.pane import Pane

_STANDS_OUT: Final = 2.0
"""A bar of this many times the median is drawn as one that stands out."""
_SHORT: Final = {
    "engine": "by engine", "position": "by position", "tails": "by probability", "onset": "by version",
    "seam": "at a seam",
}  # fmt: skip
"""Titles where there is no room for the whole one."""


class Picture(Pane):
    """One profile: a line for each label where there is room for all, else upright bars over them."""

    title = "picture"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.profile: Profile | None = None

    def show(self, profile: Profile | None) -> None:
        """Take what to draw."""
        self.profile = profile
        self.repaint()

    def label(self) -> str:
        profile = self.profile
        if profile is None:
            return ""
        return profile.unit if len(self._title(profile)) + len(profile.unit) + 8 <= self.size.width else ""

    def _title(self, profile: Profile) -> str:
        fits = len(profile.title) + 6 <= self.size.width
        return profile.title if fits else _SHORT.get(profile.instrument, profile.title)

    def lines(self, width: int, height: int) -> list[list[Text]]:
        profile = self.profile
        if profile is None:
            return []
        head: list[list[Text]] = [] if self.framed else [[(f" {self._title(profile)}", Ink.DIM)]]
        if len(profile.labels) > height - len(head) and profile.instrument != "engine":
            return head  # upright bars are drawn, not written
        return [*head, *lying_bars(profile, width, height - len(head), self.glyphs)]

    def paint(self, cells: Cells) -> None:
        profile = self.profile
        self.title = self._title(profile) if profile is not None else "picture"
        super().paint(cells)
        offset, width, height = self.inner(cells)
        if profile is None:
            return
        top = 0 if self.framed else 1
        if len(profile.labels) > height - top and profile.instrument != "engine":
            upright_bars(cells, profile, (offset + top, offset, width, height - top), self.glyphs)


def lying_bars(profile: Profile, width: int, height: int, glyphs: Glyphs) -> list[list[Text]]:
    """A line for each label: its name, a bar, its figure; of more than fit, the largest and how many others."""
    sizes = [abs(value) if math.isfinite(value) else 0.0 for value in profile.values]
    top = max(sizes, default=0.0)
    out = standing_out(profile.values)
    places = list(range(len(sizes)))
    rest = 0
    if len(places) > height:
        kept = sorted(sorted(places, key=lambda at: -sizes[at])[: max(height - 1, 1)])
        rest = len(places) - len(kept)
        places = kept
    # A figure is worth more than a name: names are cut first.
    name = min(max((len(profile.labels[at]) for at in places), default=0), max(width - 14, 6))
    room = max(width - name - 10, 0)
    rows: list[list[Text]] = []
    for at in places:
        value = profile.values[at]
        bar = lying(sizes[at] / top if top else 0.0, room, glyphs)
        figure = short(value) if math.isfinite(value) else "–"
        ink = Ink.WARN if at in out else Ink.LINE
        rows.append([
            (f" {cut(profile.labels[at], name, glyphs.ellipsis):<{name}} ", Ink.TEXT), (f"{figure:>6} ", Ink.BRIGHT),
            (bar, ink),
        ])  # fmt: skip
    if rest and len(rows) < height:
        rows.append([(f" {rest} more, none larger", Ink.DIM)])
    return rows


def upright_bars(cells: Cells, profile: Profile, box: tuple[int, int, int, int], glyphs: Glyphs) -> None:
    """Bars from the floor, the first and the last label below them, and the largest figure on top."""
    row, column, width, height = box
    values = np.abs(np.array(profile.values, np.float64))
    if height < 2 or width < 8 or not np.isfinite(values).any():
        return
    top = max(float(np.nanmax(values)), 1e-12)
    figure = f" {short(top)} "
    above = 1 if height >= 4 else 0
    # A bar that is nearly nothing is seen: a place that was not looked at must not look like one that agrees.
    least = top / ((height - 1 - above) * glyphs.marker.high)
    columns = spread(np.where(np.isfinite(values), np.maximum(values, least), np.nan), width * glyphs.marker.wide)
    out = standing_out(profile.values)
    inks = [int(Ink.WARN if cell * len(values) // width in out else Ink.LINE) for cell in range(width)]
    bars(cells, (row + above, column, width, height - 1 - above), columns, top, inks, glyphs)
    at = int(np.nanargmax(values))
    middle = (at * 2 + 1) * width // (2 * len(values))
    if above:
        cells.text(row, column + min(max(middle - len(figure) // 2, 0), width - len(figure)), figure, Ink.BRIGHT)
    _labels(cells, profile.labels, at, (row + height - 1, column, width), middle)


def _labels(cells: Cells, labels: Sequence[str], at: int, place: tuple[int, int, int], middle: int) -> None:
    """The first and the last label, and that of the largest bar where there is room between them."""
    row, column, width = place
    first, last, most = labels[0], labels[-1], labels[at]
    cells.text(row, column, cut(first, width // 2), Ink.DIM)
    if len(first) + len(last) + 1 <= width:
        cells.text(row, column + width - len(last), last, Ink.DIM)
    start = min(max(middle - len(most) // 2, 0), width - len(most))
    if len(first) < start and start + len(most) < width - len(last) and at not in (0, len(labels) - 1):
        cells.text(row, column + start, most, Ink.BRIGHT)


def standing_out(values: Sequence[float]) -> set[int]:
    """Places of values that are far larger than most."""
    sizes = [abs(value) if math.isfinite(value) else math.nan for value in values]
    known = sorted(size for size in sizes if math.isfinite(size))
    if len(known) < 2:
        return set()
    # The lower one of two: of two engines one may stand out.
    median = known[(len(known) - 1) // 2]
    return {at for at, size in enumerate(sizes) if math.isfinite(size) and size > _STANDS_OUT * median and size > 0}
