"""The engines screen: scheduler, KV use, prefix hits, preemptions and speed of every engine; one of them over time."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from console.connect.source import Link
from console.store.engines import Reading
from console.store.model import RunModel
from console.tui.bindings import bindings
from console.tui.chart import from_model
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.table import flow
from console.tui.paint.theme import Ink
from console.tui.present.live_lines import no_engine
from console.tui.screens.base.run_screen import BASE_CSS, RunScreen, StyleSheets
from console.tui.screens.engines import view
from console.tui.screens.engines.table import EngineTable
from console.tui.terminal.clipboard import copy_text
from console.tui.widgets.text_pane import TextPane


class EnginesScreen(RunScreen):
    """Table above, everything about the chosen engine below."""

    ident = "engines"
    CSS_PATH: ClassVar[StyleSheets] = [BASE_CSS, "screen.tcss"]
    BINDINGS = bindings("screens", "engines")

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(glyphs)
        self.whole = False
        """Histories of the whole run, else of the last minutes."""
        self._rows = 0

    def body(self) -> ComposeResult:
        yield EngineTable(id="engines", glyphs=self.glyphs)
        yield TextPane(id="detail", glyphs=self.glyphs, title="engine")

    def place_panes(self, width: int, height: int) -> None:  # noqa: ARG002  the rows are what is scarce
        alone = self.enlarged is not None
        body = height - 2
        # The table gets what its rows need, but leaves the lower pane its facts and histories.
        table = min(max(self._rows, 1) + 3, body - 13 if body >= 20 else body // 2)
        self.query_one("#engines").styles.height = "1fr" if alone else max(table, 5)
        self.query_one("#detail").styles.height = "1fr"

    def forget(self) -> None:
        if self.ready:
            self.query_one(EngineTable).reset()

    # -- news

    def draw(self, model: RunModel, link: Link) -> None:
        fresh = from_model.freshness(model, link)
        table = self.query_one(EngineTable)
        table.word = {"stale": "OLD", "loading": "loading", "live": ""}[fresh]
        rows = view.engine_rows(model, table.order, reverse=table.reverse)
        note = "the run's history is loading" if fresh == "loading" else no_engine(model)
        table.show(rows, [] if rows else [[(f" {note}", Ink.DIM)]])
        if len(rows) != self._rows:
            self._rows = len(rows)
            self.rearrange()
        self._detail(model)

    def _detail(self, model: RunModel) -> None:
        pane = self.query_one("#detail", TextPane)
        chosen = self.query_one(EngineTable).chosen
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
        table = self.query_one(EngineTable)
        with self.console_app.lock:
            model = self.console_app.model
            table.show(view.engine_rows(model, table.order, reverse=table.reverse), table.notes)
            self._detail(model)

    def _go(self, place: int) -> None:
        self.query_one(EngineTable).go(place)
        with self.console_app.lock:
            self._detail(self.console_app.model)

    def action_order(self) -> None:
        table = self.query_one(EngineTable)
        table.order = view.ORDERS[(view.ORDERS.index(table.order) + 1) % len(view.ORDERS)]
        self._redraw()
        self.say(f"order: {table.order}; dead and silent engines first")

    def action_reverse(self) -> None:
        table = self.query_one(EngineTable)
        table.reverse = not table.reverse
        self._redraw()

    def action_window(self) -> None:
        self.whole = not self.whole
        self._redraw()
        self.say("histories: the whole run" if self.whole else "histories: the last reports")

    def action_first(self) -> None:
        self._go(0)

    def action_last(self) -> None:
        self._go(len(self.query_one(EngineTable).items) - 1)

    def action_page(self, pages: int) -> None:
        table = self.query_one(EngineTable)
        self._go(table.cursor + pages * table.page)

    def action_move(self, direction: str) -> None:
        table = self.query_one(EngineTable)
        place = table.cursor + {"up": -1, "down": 1}.get(direction, 0)
        if self.focused is table and place != table.cursor and 0 <= place < len(table.items):
            self._go(place)
            return
        super().action_move(direction)  # type: ignore[arg-type]

    def action_copy(self) -> None:
        chosen = self.query_one(EngineTable).chosen
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
