"""The live screen: six charts, the fixes, the engines, the events."""

from __future__ import annotations

from typing import ClassVar

from msgspec.structs import replace
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical

from console.connect.source import Link
from console.status.costly_fixes import costly, sentences
from console.status.fix_effects import MISMATCH
from console.status.link_health import over
from console.store.model import RunModel
from console.tui.bindings import bindings
from console.tui.chart import from_model
from console.tui.chart.from_model import LIVE_CHARTS
from console.tui.chart.line_chart import LineChart
from console.tui.chart.overlay import overlaid
from console.tui.chart.view import ChartView
from console.tui.paint.glyphs import Glyphs
from console.tui.present import live_lines, plans
from console.tui.present.engine_rows import by_name
from console.tui.present.fix_rows import fix_rows
from console.tui.screens.base.chart_screen import ChartScreen
from console.tui.screens.base.run_screen import BASE_CSS, StyleSheets
from console.tui.screens.live.panes import EnginePanel, EventLog, FixPanel
from console.tui.watch.alarm_marks import alarmed


class LiveScreen(ChartScreen):
    """The charts of one view, linked; the other panes beside them."""

    ident = "live"
    CSS_PATH: ClassVar[StyleSheets] = [BASE_CSS, "screen.tcss"]
    BINDINGS = bindings("screens", "live")

    def __init__(self, glyphs: Glyphs, weight: float = 0.0) -> None:
        super().__init__(glyphs, weight)
        self.logs: dict[str, bool] = {spec.id: spec.log for spec in LIVE_CHARTS}
        self._newest_event = 0

    def body(self) -> ComposeResult:
        with Container(id="charts"):
            for spec in LIVE_CHARTS:
                yield LineChart(from_model.chart(RunModel(), spec), id=spec.id, glyphs=self.glyphs)
        with Horizontal(id="panes"):
            yield FixPanel(id="fixes", glyphs=self.glyphs)
            with Vertical(id="right"):
                yield EnginePanel(id="engines", glyphs=self.glyphs)
                yield EventLog(id="events", glyphs=self.glyphs)

    def framed(self, height: int) -> bool:
        return _rows(height) > 5

    def place_panes(self, width: int, height: int) -> None:  # noqa: ARG002  the rows are what is scarce
        """Give the rows that the panes need to the panes, and all others to the charts."""
        rows = _rows(height)
        alone = self.enlarged is not None
        framed = alone or self.framed(height)
        wanted = max(len(self.query_one(EnginePanel).engines), 1) + (2 if framed else 0)
        # Of many engines there is a summary, which is worth more than the events before the last.
        engines = min(wanted, rows // 2 if wanted <= rows else rows - (3 if rows <= 8 else 5))
        self.query_one("#charts").styles.grid_size_columns = 1 if alone else 3
        self.query_one("#charts").styles.grid_size_rows = 1 if alone else 2
        self.query_one("#panes").styles.height = "1fr" if alone else rows
        self.query_one("#engines").styles.height = "1fr" if alone else engines
        self.query_one("#fixes").styles.width = "1fr" if alone else "55%"

    def forget(self) -> None:
        self.view = replace(ChartView(), weight=self.view.weight)
        self._newest_event = 0
        self.extent = (0, 0)

    def rewound(self) -> None:
        self._newest_event = 0

    # -- news

    def draw(self, model: RunModel, link: Link) -> None:
        self.extent = from_model.extent(model)
        self.view = self.view.measured(model.metrics.clock.ruler(self.view.ruler.unit) or self.view.ruler, self.extent)
        fresh = from_model.freshness(model, link)
        for spec in LIVE_CHARTS:
            chart = self.query_one(f"#{spec.id}", LineChart)
            if chart.display:
                spec = from_model.shown(model, spec)
                data = self.console_app.showing.judging.behind(spec.metric, from_model.chart(model, spec, fresh))
                data = alarmed(data, self.console_app.showing.guard)
                other = self.console_app.overlay
                if other is not None:
                    unit = self.view.ruler.unit
                    data = overlaid(data, spec.metric, other.model, other.source.run, unit)
                chart.show(data, self._view(spec.id), self.extent)
        self._show_fixes(model, link)
        engines = self.query_one(EnginePanel)
        count = len(engines.engines)
        engines.show(by_name(model), run_over=over(model.run), absent=live_lines.no_engine(model))
        if count != len(engines.engines):
            self.rearrange()
        newest = model.events[-1].seq if model.events else 0
        if newest != self._newest_event:
            self._newest_event = newest
            self.query_one(EventLog).show(live_lines.notable(model.events))

    def _show_fixes(self, model: RunModel, link: Link) -> None:
        """The fixes in the catalogue's order, but what is off and costs something first, with its price in words."""
        mismatch = model.metrics.last(MISMATCH)
        off = [] if over(model.run) else costly(model.fixes, model.effects, mismatch)
        order = [one.fix for one in off]
        rows = fix_rows(model, self.glyphs)
        rows.sort(key=lambda row: order.index(row.fix.id) if row.fix.id in order else len(order))
        key = "F" if plans.possible(self.console_app.source.operator, link, model) else ""
        self.query_one(FixPanel).show(rows, sentences(off, mismatch, key))

    def _view(self, chart_id: str) -> ChartView:
        return replace(self.view, log=self.logs[chart_id])

    def use_view(self, view: ChartView) -> None:
        """Draw the same data in another view; also while frozen, because the view is the operator's."""
        self.view = view
        # What a chart derives from its series is made while drawing, and the reader must not rewrite it meanwhile.
        with self.console_app.drawing():
            for spec in LIVE_CHARTS:
                chart = self.query_one(f"#{spec.id}", LineChart)
                chart.show(chart.data, self._view(spec.id), self.extent)

    # -- view

    def action_smooth(self) -> None:
        self.use_view(self.view.smooth())
        weight = self.view.weight
        self.say(f"smoothing: moving average of weight {weight:g}, the raw line behind" if weight else "smoothing off")

    def action_unit(self) -> None:
        before = self.view.ruler.unit
        with self.console_app.lock:
            view = self.view.next_unit(self.console_app.model.metrics.clock, self.extent)
        self.use_view(view)
        unit = self.view.ruler.unit
        words = {"step": "steps", "time": "time since the first step", "tokens": "tokens sampled"}
        self.say(f"x axis: {words[unit]}" if unit != before else "x axis: only steps are known yet")

    def action_overlay(self) -> None:
        self.console_app.next_overlay()

    def action_log(self) -> None:
        chart = self.focused
        if not isinstance(chart, LineChart) or chart.id is None:
            self.say("log axis: focus a chart first (arrows or tab)", "warn")
            return
        self.logs[chart.id] = not self.logs[chart.id]
        self.use_view(self.view)

    def action_act_fix(self) -> None:
        panel = self.query_one(FixPanel)
        self.console_app.acting.ask_fix(panel.chosen if self.focused is panel else None)


def _rows(height: int) -> int:
    """Rows of the panes below the charts."""
    return 5 if height < 20 else 8 if height < 30 else 13 if height < 50 else 16
