"""The panes of the live screen that are not charts: each paints one part of the model as lines in a frame."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from console.formatting import clock
from console.store.model import Logged
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.present import engine_rows, live_lines
from console.tui.present.engine_rows import LEVEL_INK, EngineRow, Level
from console.tui.present.fix_rows import FixRow, fix_line
from console.tui.widgets.pane import Pane
from driftline.frames import Level as EventLevel


class FixPanel(Pane):
    """Every fix of the catalogue: symbol, state over the engines, since when, by whom or what it waits for."""

    title = "fixes"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.rows: list[FixRow] = []
        self.cursor = 0
        self.first: Sequence[str] = ()
        """What an operator should see first, in ever fewer words."""
        self._moved = False
        """Whether the operator has chosen a fix: it is followed then, else the first row is the chosen one."""
        self._head = 0
        """Lines above the rows, as drawn last."""

    def show(self, rows: list[FixRow], first: Sequence[str] = ()) -> None:
        """Take the rows to show, and what stands above them where there is room; the chosen fix stays chosen."""
        chosen = self.chosen
        self.rows, self.first = rows, first
        if self._moved:
            self.cursor = next((place for place, row in enumerate(rows) if row.fix.id == chosen), self.cursor)
        self.repaint()

    @property
    def chosen(self) -> str | None:
        """Id of the fix under the cursor."""
        return self.rows[self.cursor].fix.id if self.rows else None

    def label(self) -> str:
        on = sum(row.symbol[0] == self.glyphs.on for row in self.rows)
        return f"{on} on" if self.rows else ""

    def selected(self) -> int | None:
        return self.cursor + self._head

    def move(self, direction: str) -> bool:
        step = {"up": -1, "down": 1}.get(direction, 0)
        if step == 0 or not 0 <= self.cursor + step < len(self.rows):
            return False
        self.cursor += step
        self._moved = True
        self.repaint()
        return True

    def lines(self, width: int, height: int) -> list[list[Text]]:
        lines = [fix_line(row, width) for row in self.rows]
        self._head = 0
        if self.first and height > len(lines):
            said = next((words for words in self.first if len(words) < width), self.first[-1])
            self._head = 1
            lines = [[(f" {said}", Ink.ALARM)], *lines]
        spare = height - len(lines)
        # Room to spare explains the fix under the cursor: what it does, and why it is there at all.
        if spare >= 3 and self.rows:
            row = self.rows[self.cursor]
            fix = row.fix
            texts = [
                (f"{fix.title}: {fix.summary}", Ink.TEXT),
                (f"why: {fix.why}", Ink.DIM),
                (f"vLLM's default: {fix.vllm_default}", Ink.DIM),
                *((line, Ink.DIM) for line in row.more),
            ]
            lines.append([])
            for text, ink in texts:
                parts = textwrap.wrap(text, max(width - 2, 10), subsequent_indent="  ")
                lines += [[(f" {part}", ink)] for part in parts]
            if len(lines) > height:
                text, ink = lines[height - 1][0] if lines[height - 1] else ("", Ink.DIM)
                lines[height - 1] = [(f"{text} {self.glyphs.ellipsis}", ink)]
        return lines


FEW: Final = 4
"""Engines that have a line each though there is no room for all lines: a summary of them would say less."""


class EnginePanel(Pane):
    """One line for each engine; of more than fit, how they are distributed and those that need a look."""

    title = "engines"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.engines: Sequence[EngineRow] = ()
        self.run_over = False
        self.absent = ""

    def show(self, engines: Sequence[EngineRow], *, run_over: bool, absent: str) -> None:
        """Take the engines to show, whether their run has ended, and the sentence in place of none."""
        self.engines, self.run_over, self.absent = engines, run_over, absent
        self.repaint()

    def label(self) -> str:
        return f"{len(self.engines)}" if len(self.engines) > 1 else ""

    def lines(self, width: int, height: int) -> list[list[Text]]:
        if not self.engines:
            return [[(f" {self.absent}", Ink.DIM)]]
        if len(self.engines) <= max(height, FEW):
            # What needs a look comes first where not all engines fit.
            rows = self.engines if len(self.engines) <= height else sorted(self.engines, key=lambda row: row.level)
            return [self._line(row, width) for row in rows]
        # How many are in which state, how they are distributed, and who is worst: each has its lines where it fits.
        bad = engine_rows.worst(self.engines, height)
        charts = [engine_rows.histogram_line(one, width, self.glyphs) for one in engine_rows.quantities(self.engines)]
        room = height - 1
        drawn = min(len(charts), max(room - len(bad), room // 2))
        return [
            [(" ", Ink.TEXT), *engine_rows.counts(self.engines)],
            *charts[:drawn],
            *(self._line(row, width) for row in bad[: room - drawn]),
        ]

    def _line(self, row: EngineRow, width: int) -> list[Text]:
        """An engine; one that needs a look says why."""
        if row.level in (Level.SILENT, Level.NOTABLE):
            state = row.state
            mark = (f"{'!' if row.level is Level.SILENT else ' '}", Ink.ALARM)
            why = [(f"{state.engine}", Ink.TEXT), (f" {row.why} ", LEVEL_INK[row.level])]
            used = 1 + sum(len(text) for text, _ in why)
            rest = live_lines.engine_line(state, width - used, run_over=self.run_over)[1:]
            return [mark, *why, *(rest if row.level is Level.NOTABLE else [])]
        return [(" ", Ink.TEXT), *live_lines.engine_line(row.state, width - 1, run_over=self.run_over)]


_LEVEL: Final[dict[EventLevel, Ink]] = {"info": Ink.TEXT, "warn": Ink.WARN, "error": Ink.ALARM}


class EventLog(Pane):
    """The newest events, newest last; scrolled with up and down while it has the focus."""

    title = "events"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.events: Sequence[Logged] = ()
        self.back = 0
        """Number of events that the view is scrolled back from the newest."""

    def show(self, events: Sequence[Logged]) -> None:
        """Take the events to show, oldest first. A view that is scrolled back stays where it is."""
        if self.back and self.events and events:
            lowest = self.events[len(self.events) - 1 - self.back].seq
            self.back = sum(1 for event in events if event.seq > lowest)
        self.events = events
        self.repaint()

    def label(self) -> str:
        return f"{self.back} newer below" if self.back else ""

    def move(self, direction: str) -> bool:
        step = {"up": 1, "down": -1}.get(direction, 0)
        room = max(len(self.events) - max(self.size.height - 2, 1), 0)
        if step == 0 or not 0 <= self.back + step <= room:
            return False
        self.back += step
        self.repaint()
        return True

    def lines(self, width: int, height: int) -> list[list[Text]]:
        if not self.events:
            return [[(" nothing has happened yet", Ink.DIM)]]
        stop = len(self.events) - self.back
        return [self._line(event, width) for event in list(self.events)[max(stop - height, 0) : stop]]

    def _line(self, logged: Logged, width: int) -> list[Text]:
        event = logged.event
        line: list[Text] = [(f" {clock(logged.time)} ", Ink.DIM)]
        if width >= 60:
            line.append((f"{f'step {event.step}' if event.step >= 0 else '':<10}", Ink.DIM))
        if width >= 90:
            line.append((f"{logged.producer:<12.12} ", Ink.DIM))
        ink = _LEVEL[event.level]
        # Of what is as usual a narrow pane says only what it is about: the room is the text's.
        kind = event.kind if width >= 60 or event.level != "info" else event.kind.partition(".")[0]
        if not event.text.startswith(kind):
            line.append((f"{kind} ", Ink.DIM if ink is Ink.TEXT else ink))
        line.append((event.text, ink))
        return line
