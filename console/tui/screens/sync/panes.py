"""The panes of the sync screen that have rows: the syncs, and the engines of one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from console.store.sync import EngineSync, Sync
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.table import Column, choose, flow, head
from console.tui.paint.theme import Ink
from console.tui.paint.units import duration
from console.tui.screens.sync import gantt, view
from console.tui.widgets.list_pane import ListPane

_EMPTY: Final[list[Text]] = [(" pause, load, verify, cache reset and resume of every engine come here", Ink.DIM)]


class SyncList(ListPane[Sync]):
    """The syncs, newest last."""

    title = "weight syncs"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs, follow=True)
        self.now: float | None = None
        self.total = 0
        self.failed = 0
        self.word = ""

    def key(self, item: Sync) -> Hashable:
        return item.number

    def _columns(self, width: int) -> list[Column]:
        return choose(view.COLUMNS, width)

    def head(self, width: int) -> list[Text]:
        return head(self._columns(width))

    def row(self, item: Sync, width: int) -> list[Text]:
        return view.list_row(item, self._columns(width), self.glyphs, self.now)

    def label(self) -> str:
        if not self.items:
            return self.word
        chosen = self.chosen
        parts = [f"{chosen.number if chosen else 0:,} of {self.total:,}"]
        if len(self.items) < self.total:
            parts.append(f"the last {len(self.items):,} kept")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        parts.append(self.word or ("newest" if self.follow else "G newest"))
        return ", ".join(parts)


class Gantt(ListPane[EngineSync]):
    """The engines of one sync on one time axis, worst first, under what there is to say of it."""

    title = "engines"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.sync: Sync | None = None

    def show_sync(self, shown: Sync | None) -> None:
        """Take the sync to draw."""
        if shown is None or self.sync is None or shown.number != self.sync.number:
            self.reset()
        self.sync = shown
        self.title = f"{shown.id}, step {shown.step}" if shown is not None else "engines"
        self.show(shown.worst_first() if shown is not None else [], [] if shown is not None else [_EMPTY])

    def key(self, item: EngineSync) -> Hashable:
        return item.engine

    def head(self, width: int) -> list[Text]:
        return gantt.axis(self.sync, gantt.columns(self.sync, width)) if self.sync is not None else []

    def row(self, item: EngineSync, width: int) -> list[Text]:
        assert self.sync is not None  # there are rows
        return gantt.engine_row(self.sync, item, gantt.columns(self.sync, width), self.glyphs)

    def label(self) -> str:
        if self.sync is None:
            return ""
        return f"{len(self.items)} worst first, {duration(self.sync.seconds)}"

    def _facts(self, width: int, height: int) -> list[list[Text]]:
        if self.sync is None:
            return []
        facts = flow(view.facts(self.sync, self.glyphs), width)
        # Of a small pane the rows of engines get one half; why a sync has failed comes first in the other.
        room = max(height - 1 - min(len(self.items), max(height // 2, 1)), 1)
        lines = facts[:room]
        if len(lines) < room and height - len(lines) - 1 - len(self.items) > 0:
            lines += flow(gantt.legend(self.glyphs), width)[:1]
        return lines

    def lines(self, width: int, height: int) -> list[list[Text]]:
        facts = self._facts(width, height)
        return [*facts, *super().lines(width, max(height - len(facts), 1))]

    def selected(self) -> int | None:
        chosen = super().selected()
        offset = 2 if self.framed and self.size.height >= 3 else 0
        if chosen is None:
            return None
        return chosen + len(self._facts(self.size.width - offset, self.size.height - offset))
