"""The live screen: six charts, the fixes, the engines, the events."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, cast

from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.screen import Screen
from textual.widget import Widget

from console.store.model import RunModel
from console.tui import present
from console.tui.bindings import bindings
from console.tui.fixrows import fix_rows
from console.tui.glyphs import Glyphs
from console.tui.present import LIVE_CHARTS
from console.tui.source import Link
from console.tui.theme import Ink
from console.tui.updates import TightCompositor
from console.tui.widgets.bars import BannerBar, FooterBar, HeaderBar
from console.tui.widgets.cells import Cells, CellWidget
from console.tui.widgets.chart_view import ChartView
from console.tui.widgets.line_chart import LineChart
from console.tui.widgets.panes import EnginePanel, EventLog, FixPanel, Pane
from driftline.frames import Level

if TYPE_CHECKING:
    from console.tui.app import ConsoleApp

Direction = Literal["left", "right", "up", "down"]

SMALLEST: Final = (60, 15)
"""Columns and rows below which nothing is drawn but the wish for more."""


class TooSmall(CellWidget):
    """What is shown instead of panes that would have no room."""

    def paint(self, cells: Cells) -> None:
        lines = [f"needs {SMALLEST[0]}x{SMALLEST[1]}", f"has {cells.width}x{cells.height}"]
        for row, text in enumerate(lines, max((cells.height - len(lines)) // 2, 0)):
            cells.text(row, max((cells.width - len(text)) // 2, 0), text, Ink.WARN)


class LiveScreen(Screen[None]):
    """Shows the model as of the last tick; holds the operator's view of it and nothing of the run."""

    CSS_PATH = "live.tcss"
    BINDINGS = bindings("live")

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__()
        self._compositor = TightCompositor()
        self.glyphs = glyphs
        self.view = ChartView()
        self.logs: dict[str, bool] = {spec.id: spec.log for spec in LIVE_CHARTS}
        self.frozen = False
        self._newest_event = 0
        self.enlarged: Widget | None = None
        self.extent = (0, 0)

    @property
    def ready(self) -> bool:
        """True while there are panes to draw on: not before they are composed, not after they are gone."""
        return self.is_mounted and bool(self.query(FooterBar)) and bool(self.query(HeaderBar))

    @property
    def console_app(self) -> ConsoleApp:
        """The app, with its type."""
        return cast("ConsoleApp", self.app)

    def compose(self) -> ComposeResult:
        yield HeaderBar(id="header", glyphs=self.glyphs)
        yield BannerBar(id="banner", glyphs=self.glyphs)
        with Container(id="charts"):
            for spec in LIVE_CHARTS:
                yield LineChart(present.chart(RunModel(), spec), id=spec.id, glyphs=self.glyphs)
        with Horizontal(id="panes"):
            yield FixPanel(id="fixes", glyphs=self.glyphs)
            with Vertical(id="right"):
                yield EnginePanel(id="engines", glyphs=self.glyphs)
                yield EventLog(id="events", glyphs=self.glyphs)
        yield FooterBar(id="footer", glyphs=self.glyphs)
        yield TooSmall(id="small", glyphs=self.glyphs)

    def on_mount(self) -> None:
        self.set_focus(self.query_one(f"#{LIVE_CHARTS[0].id}"))

    def on_screen_resume(self) -> None:
        self.console_app.refresh_view()

    def on_resize(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        """Give the rows that the panes need to the panes, and all others to the charts; or all to one pane."""
        width, height = self.size
        small = width < SMALLEST[0] or height < SMALLEST[1]
        self.query_one(TooSmall).display = small
        rows = 5 if height < 20 else 8 if height < 30 else 13 if height < 50 else 16
        large = self.enlarged
        kept = set(large.ancestors_with_self) if large is not None else set()
        for widget in self.query("#charts, #panes, #right, LineChart, Pane").results(Widget):
            widget.display = not small and (large is None or widget in kept)
        for bar in ("#header", "#footer"):
            self.query_one(bar).display = not small
        banner = self.query_one(BannerBar)
        banner.display = not small and banner.banner is not None
        framed = rows > 5 or large is not None
        for pane in self.query(Pane):
            pane.framed = framed
        alone = large is not None
        engines = min(max(len(self.query_one(EnginePanel).engines), 1) + (2 if framed else 0), rows // 2)
        self.query_one("#charts").styles.grid_size_columns = 1 if alone else 3
        self.query_one("#charts").styles.grid_size_rows = 1 if alone else 2
        self.query_one("#panes").styles.height = "1fr" if alone else rows
        self.query_one("#engines").styles.height = "1fr" if alone else engines
        self.query_one("#fixes").styles.width = "1fr" if alone else "55%"

    # -- news

    def show(self, model: RunModel, link: Link, notice: tuple[str, Level] | None) -> None:
        """Draw the model. While the view is frozen only the bars go on, so that nobody takes it for live."""
        bar = self.query_one(BannerBar)
        bar.show(present.trouble(model, link))
        if bar.display != (bar.banner is not None):
            self._arrange()
        app = self.console_app
        operator = app.source.operator
        self.query_one(HeaderBar).show(
            present.header(model, app.source.run), present.link_text(model, link, frozen=self.frozen), operator=operator
        )
        self.query_one(FooterBar).show(operator=operator, notice=notice)
        if self.frozen:
            return
        self.extent = present.extent(model)
        self.view = self.view.measured(model.metrics.clock.ruler(self.view.ruler.unit) or self.view.ruler, self.extent)
        fresh = present.freshness(model, link)
        for spec in LIVE_CHARTS:
            chart = self.query_one(f"#{spec.id}", LineChart)
            if chart.display:
                chart.show(present.chart(model, spec, fresh), self._view(spec.id), self.extent)
        self.query_one(FixPanel).show(fix_rows(model, self.glyphs))
        engines = self.query_one(EnginePanel)
        count = len(engines.engines)
        engines.show([model.engines[name] for name in sorted(model.engines)])
        if count != len(engines.engines):
            self._arrange()
        newest = model.events[-1].seq if model.events else 0
        if newest != self._newest_event:
            self._newest_event = newest
            self.query_one(EventLog).show(present.notable(model.events))

    def _view(self, chart_id: str) -> ChartView:
        return replace(self.view, log=self.logs[chart_id])

    def _look(self, view: ChartView) -> None:
        """Draw the same data in another view; also while frozen, because the view is the operator's."""
        self.view = view
        # What a chart derives from its series is made while drawing, and the reader must not rewrite it meanwhile.
        with self.console_app.lock:
            for spec in LIVE_CHARTS:
                chart = self.query_one(f"#{spec.id}", LineChart)
                chart.show(chart.data, self._view(spec.id), self.extent)

    def say(self, text: str, level: Level = "info") -> None:
        """Answer a key in the footer."""
        self.console_app.say(text, level)

    # -- view

    def action_zoom(self, factor: float) -> None:
        self._look(self.view.zoom(factor, self.extent))

    def action_pan(self, part: float) -> None:
        self._look(self.view.pan(part, self.extent))

    def action_show_all(self) -> None:
        self._look(self.view.all())

    def action_follow(self) -> None:
        self._look(self.view.follow(self.extent))

    def action_smooth(self) -> None:
        self._look(self.view.smooth())
        weight = self.view.weight
        self.say(f"smoothing: moving average of weight {weight:g}, the raw line behind" if weight else "smoothing off")

    def action_unit(self) -> None:
        before = self.view.ruler.unit
        with self.console_app.lock:
            view = self.view.next_unit(self.console_app.model.metrics.clock, self.extent)
        self._look(view)
        unit = self.view.ruler.unit
        words = {"step": "steps", "time": "time since the first step", "tokens": "tokens sampled"}
        self.say(f"x axis: {words[unit]}" if unit != before else "x axis: only steps are known yet")

    def action_log(self) -> None:
        chart = self.focused
        if not isinstance(chart, LineChart) or chart.id is None:
            self.say("log axis: focus a chart first (arrows or tab)", "warn")
            return
        self.logs[chart.id] = not self.logs[chart.id]
        self._look(self.view)

    def action_crosshair(self) -> None:
        self._look(self.view.crosshair(self.extent))

    def action_freeze(self) -> None:
        self.frozen = not self.frozen
        self.console_app.refresh_view()
        self.say("view frozen; the run goes on (space to thaw)" if self.frozen else "view live again")

    def action_move(self, direction: Direction) -> None:
        focused = self.focused
        if isinstance(focused, Pane) and focused.move(direction):
            return
        if isinstance(focused, LineChart) and self.view.cursor is not None and direction in ("left", "right"):
            self._look(self.view.moved(-1 if direction == "left" else 1, focused.size.width, self.extent))
            return
        target = self._neighbour(focused, direction)
        if target is not None:
            self.set_focus(target)

    def _neighbour(self, focused: Widget | None, direction: Direction) -> Widget | None:
        """The nearest pane in a direction, by where panes are on the screen."""
        panes = [widget for widget in self.focus_chain if widget is not focused]
        if focused is None:
            return panes[0] if panes else None
        here = focused.region
        sideways = direction in ("left", "right")
        forward = direction in ("right", "down")
        best: tuple[float, Widget] | None = None
        for pane in panes:
            there = pane.region
            if sideways:
                ahead = there.x - here.x if forward else here.x - there.x
                aside = abs(there.center[1] - here.center[1]) * 2
            else:
                ahead = there.y - here.y if forward else here.y - there.y
                aside = abs(there.center[0] - here.center[0]) / 2
            if ahead > 0 and (best is None or ahead + 2 * aside < best[0]):
                best = (ahead + 2 * aside, pane)
        return best[1] if best is not None else None

    def action_enlarge(self) -> None:
        self._enlarge(self.focused if self.enlarged is None else None)

    def _enlarge(self, pane: Widget | None) -> None:
        self.enlarged = pane
        self._arrange()
        self.call_after_refresh(self.console_app.refresh_view)

    def action_back(self) -> None:
        """One level out: crosshair, then enlargement, then zoom."""
        if self.view.cursor is not None:
            self.action_crosshair()
        elif self.enlarged is not None:
            self._enlarge(None)
        elif self.view.x.mode != "all":
            self.action_show_all()

    # -- acting on the run: the app holds the source, this screen only says what is meant

    def action_act_fix(self) -> None:
        panel = self.query_one(FixPanel)
        self.console_app.ask_fix(panel.chosen if self.focused is panel else None)

    def action_act_sync(self) -> None:
        self.console_app.ask_sync()

    def action_act_pause(self) -> None:
        self.console_app.ask_pause()

    def action_export(self) -> None:
        self.console_app.export()
