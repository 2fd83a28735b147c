"""The line below the screens of a recording: where in it they are, how fast it goes, what was changed when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from console.formatting import clock
from console.store.model import Mark
from console.tui.chart.plot import mark_ink
from console.tui.paint.cells import Cells, Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import elapsed
from console.tui.widgets.cell_widget import CellWidget

if TYPE_CHECKING:
    from console.replay.source import Position


class ReplayBar(CellWidget):
    """Takes no room while a live run is on show."""

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.position: Position | None = None
        self.marks: Sequence[Mark] = ()

    def show(self, position: Position | None, marks: Sequence[Mark] = ()) -> None:
        """Take what to show; `marks` are those of what has been played."""
        self.position, self.marks = position, marks
        self.repaint()

    def paint(self, cells: Cells) -> None:
        position = self.position
        if position is None:
            return
        if position.timeline is None:
            cells.text(0, 1, "opening the recording", Ink.DIM)
            return
        timeline = position.timeline
        sign = self.glyphs.pointer if position.playing else self.glyphs.vertical * 2
        left: list[Text] = [
            (f" {sign:<2} ", Ink.ACCENT),
            (f"x{position.speed:<5g}", Ink.BRIGHT if position.playing else Ink.DIM),
            ("step ", Ink.DIM),
            (f"{max(position.step, 0)}", Ink.BRIGHT),
            (f"/{max(timeline.last_step, 0)} ", Ink.TEXT),
        ]
        gone = max(position.time - timeline.begin, 0.0) if position.time else 0.0
        right: list[Text] = [
            (f" {clock(position.time) if position.time else ''} ", Ink.TEXT),
            (f"+{elapsed(gone)}", Ink.DIM),
        ]
        if cells.width >= 100:
            right.append((f"/{elapsed(max(timeline.end - timeline.begin, 0.0))}", Ink.DIM))
        right.append((" ", Ink.DIM))
        used = cells.line(0, 0, left)
        room = cells.width - used - sum(len(text) for text, _ in right)
        if room >= 8:
            self._track(cells, used, room, position)
        cells.line(0, used + max(room, 0), right)

    def _track(self, cells: Cells, column: int, width: int, position: Position) -> None:
        timeline = position.timeline
        assert timeline is not None
        first, last = timeline.first_step, timeline.last_step
        whole = max(last - first, 1)

        def place(step: int) -> int:
            return round(min(max((step - first) / whole, 0.0), 1.0) * (width - 1))

        here = place(position.step)
        cells.text(0, column, self.glyphs.horizontal * width, Ink.FRAME)
        cells.text(0, column, self.glyphs.horizontal * here, Ink.ACCENT)
        for mark in self.marks:
            if first <= mark.step <= last:
                cells.text(0, column + place(mark.step), self.glyphs.mark, mark_ink(mark))
        cells.text(0, column + here, self.glyphs.on, Ink.BRIGHT)
