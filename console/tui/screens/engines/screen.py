"""The engines screen: scheduler, KV use, prefix hits, preemptions and speed of every engine; one of them over time."""

from __future__ import annotations

from typing import ClassVar, Final

from textual.app import ComposeResult

from console.connect.source import Link
from console.status.engine_config import Differences, differences
from console.store.engines import Reading
from console.store.model import RunModel
from console.tui.bindings import bindings
from console.tui.chart import from_model
from console.tui.dialogs.engine_diff import EngineDiffScreen
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.table import flow
from console.tui.paint.theme import Ink
from console.tui.present.engine_rows import ORDERS, EngineRow, by_name, engine_rows
from console.tui.present.live_lines import no_engine
from console.tui.screens.base.run_screen import BASE_CSS, RunScreen, StyleSheets
from console.tui.screens.engines import view
from console.tui.screens.engines.map import EngineMap
from console.tui.screens.engines.table import EngineTable
from console.tui.terminal.clipboard import copy_text
from console.tui.widgets.text_pane import TextPane

MAP_FROM: Final = 64
"""Engines above which the screen begins with the map."""


class EnginesScreen(RunScreen):
    """Table or map above, everything about the chosen engine below."""

    ident = "engines"
    CSS_PATH: ClassVar[StyleSheets] = [BASE_CSS, "screen.tcss"]
    BINDINGS = bindings("screens", "engines")

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(glyphs)
        self.whole = False
        """Histories of the whole run, else of the last minutes."""
        self.mapped: bool | None = None
        """The map, or the table, as was asked for; None for what suits the number of engines."""
        self._rows = 0

    def body(self) -> ComposeResult:
        yield EngineTable(id="engines", glyphs=self.glyphs)
        yield EngineMap(id="map", glyphs=self.glyphs)
        yield TextPane(id="detail", glyphs=self.glyphs, title="engine")

    def place_panes(self, width: int, height: int) -> None:
        alone = self.enlarged is not None
        body = height - 2
        # The table gets what its rows need, but leaves the lower pane its facts and histories.
        chart = self.query_one(EngineMap)
        table, least = min(max(self._rows, 1) + 3, body - 13 if body >= 20 else body // 2), 5
        if self._on_map:
            table, least = min(chart.rows(width - 2) + 2, body // 2), 6
        for pane, shown in ((self.query_one(EngineTable), not self._on_map), (chart, self._on_map)):
            pane.display = shown and pane.display
            pane.styles.height = "1fr" if alone else max(table, least)
        self.query_one("#detail").styles.height = "1fr"

    def forget(self) -> None:
        if self.ready:
            self.query_one(EngineTable).reset()
            self.query_one(EngineMap).reset()

    @property
    def _on_map(self) -> bool:
        return self._rows > MAP_FROM if self.mapped is None else self.mapped

    @property
    def _pane(self) -> EngineMap | EngineTable:
        """What is on show."""
        return self.query_one(EngineMap) if self._on_map else self.query_one(EngineTable)

    @property
    def _chosen(self) -> EngineRow | None:
        """The engine under the cursor of what is on show."""
        return self._pane.chosen

    # -- news

    def draw(self, model: RunModel, link: Link) -> None:
        fresh = from_model.freshness(model, link)
        table, chart = self.query_one(EngineTable), self.query_one(EngineMap)
        table.word = chart.word = {"stale": "OLD", "loading": "loading", "live": ""}[fresh]
        note = "the run's history is loading" if fresh == "loading" else no_engine(model)
        table.notes = [] if model.engines else [[(f" {note}", Ink.DIM)]]
        if len(model.engines) != self._rows:
            focused = self.focused in (table, chart)
            self._rows = len(model.engines)
            self.rearrange()
            if focused:
                self.set_focus(self._pane)
        self._fill(model)

    def _fill(self, model: RunModel) -> None:
        """Give the pane on show its engines, and the pane below it what there is of the chosen one."""
        table = self.query_one(EngineTable)
        if self._on_map:
            self.query_one(EngineMap).show(by_name(model))
        else:
            table.show(engine_rows(model, table.order, reverse=table.reverse), table.notes)
        self._detail(model)

    def _detail(self, model: RunModel) -> None:
        pane = self.query_one("#detail", TextPane)
        chosen = self._chosen
        if chosen is None:
            pane.show(lambda _width, _height: [], "engine")
            return
        facts = view.facts(model, chosen)
        trace = model.history.traces[chosen.state.engine]
        readings: list[Reading] = trace.whole() if self.whole else chosen.recent
        period = f", means of {trace.period:g} s" if self.whole and trace.period > 1 else ""
        glyphs = self.glyphs

        def lines(width: int, height: int) -> list[list[Text]]:
            made = flow(facts, width)
            drawn = view.history_lines(readings, width, glyphs)
            gap: list[list[Text]] = [[]] if height > len(made) + len(drawn) else []
            return [*made, *gap, *drawn]

        word = "whole run" if self.whole else "lately"
        label = f"{word}: {view.span(readings)}{period}" if len(readings) > 1 else ""
        pane.show(lines, chosen.state.engine, label)

    # -- keys

    def _redraw(self) -> None:
        """Draw again, also while frozen: order and choice are the operator's, not the run's."""
        with self.console_app.lock:
            self._fill(self.console_app.model)

    def _go(self, place: int) -> None:
        self._pane.go(place)
        with self.console_app.lock:
            self._detail(self.console_app.model)

    def action_order(self) -> None:
        table = self.query_one(EngineTable)
        if self._on_map:
            self.say("the map is in the order of names; m shows the table", "warn")
            return
        table.order = ORDERS[(ORDERS.index(table.order) + 1) % len(ORDERS)]
        self._redraw()
        self.say(f"order: {table.order}; dead and silent engines first")

    def action_reverse(self) -> None:
        table = self.query_one(EngineTable)
        if self._on_map:
            self.say("the map is in the order of names; m shows the table", "warn")
            return
        table.reverse = not table.reverse
        self._redraw()

    def action_window(self) -> None:
        self.whole = not self.whole
        self._redraw()
        self.say("histories: the whole run" if self.whole else "histories: the last reports")

    def action_map(self) -> None:
        chosen, focused = self._chosen, self.focused is self._pane
        self.mapped = not self._on_map
        if self.enlarged is not None:
            self.enlarge(None)
        self.rearrange()
        self._redraw()
        name = chosen.state.engine if chosen is not None else ""
        self._go(next((place for place, row in enumerate(self._pane.items) if row.state.engine == name), 0))
        if focused:
            self.set_focus(self._pane)
        self.say("the map: one cell an engine, in natural order" if self.mapped else "the table")

    def action_differences(self) -> None:
        app = self.console_app

        def found() -> Differences:
            return differences(app.model.engines, app.model.fixes)

        with app.lock:
            first = found()
        app.push_screen(EngineDiffScreen(self.glyphs, first, found))

    def action_first(self) -> None:
        self._go(0)

    def action_last(self) -> None:
        self._go(self._rows - 1)

    def action_page(self, pages: int) -> None:
        pane = self._pane
        self._go(pane.cursor + pages * pane.page)

    def action_move(self, direction: str) -> None:
        if self.focused is self._pane and self._pane.move(direction):
            with self.console_app.lock:
                self._detail(self.console_app.model)
            return
        super().action_move(direction)  # type: ignore[arg-type]

    def action_copy(self) -> None:
        chosen = self._chosen
        if chosen is None:
            self.say("nothing to copy: no engine has reported yet", "warn")
            return
        with self.console_app.lock:
            text = view.copied_text(self.console_app.model, chosen)
        run = self.console_app.run_dir
        try:
            said = copy_text(self.app, text, chosen.state.engine, run.snapshots if run else None)
        except OSError as error:
            self.say(f"copied to the clipboard, but not to a file: {error}", "warn")
        else:
            self.say(said)
