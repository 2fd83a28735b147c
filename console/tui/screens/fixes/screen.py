"""The fixes screen: every fix, what it changed in the numbers, and who did what."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Container, Vertical

from console.connect.source import Link
from console.store.model import RunModel
from console.tui.bindings import bindings
from console.tui.chart import from_model
from console.tui.chart.from_model import ChartSpec
from console.tui.chart.line_chart import LineChart
from console.tui.chart.view import ChartView
from console.tui.paint.glyphs import Glyphs
from console.tui.present import corrections
from console.tui.present.corrections import correction_view
from console.tui.screens.base.run_screen import BASE_CSS, Direction, RunScreen, StyleSheets
from console.tui.screens.fixes import view as views
from console.tui.screens.fixes.panes import Audit, Detail, FixTable
from console.tui.screens.fixes.view import MEASURED, Order
from driftline.catalog.metrics import BY_NAME

WIDE = 110
"""Columns from which the audit trail stands beside the chosen fix."""
ROOMY = 14
"""Rows of the chosen fix from which its effect is drawn as well."""
TALL = 48
"""Rows of the screen from which the metric is drawn over the steps too, with a mark where a fix changed."""

SPECS = tuple(
    ChartSpec("chart", metric, BY_NAME[metric].title, word, log=metric.startswith("mismatch/"))
    for metric, word in MEASURED
)


class FixesScreen(RunScreen):
    """The table on top, the chosen fix in full and the audit trail below."""

    ident = "fixes"
    CSS_PATH: ClassVar[StyleSheets] = [BASE_CSS, "screen.tcss"]
    BINDINGS = bindings("screens", "fixes")

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(glyphs)
        self.order: Order = "catalogue"
        self.measure = 0
        """The one of MEASURED in which the table shows effects."""

    def body(self) -> ComposeResult:
        yield FixTable(id="table", glyphs=self.glyphs)
        with Container(id="lower"):
            with Vertical(id="left"):
                yield Detail(id="detail", glyphs=self.glyphs)
                yield LineChart(from_model.chart(RunModel(), SPECS[0]), id="chart", glyphs=self.glyphs)
            yield Audit(id="audit", glyphs=self.glyphs)

    def place_panes(self, width: int, height: int) -> None:
        table, lower = self.query_one("#table"), self.query_one("#lower")
        detail, audit = self.query_one("#detail"), self.query_one("#audit")
        alone = self.enlarged is not None
        rows = len(self.query_one(FixTable).views) or views.ROWS
        # A line for what helps most, one for the heads of the columns, the correction below, and the frame.
        table.styles.height = "1fr" if alone else rows + 5
        wide = width >= WIDE
        lower.styles.layout = "horizontal" if wide else "vertical"
        audit.styles.height = "1fr" if alone or wide else max((height - rows - 7) // 3, 4)
        left, chart = self.query_one("#left"), self.query_one("#chart")
        if not alone:
            chart.display = wide and height >= TALL
        detail.styles.height = ROOMY + 3 if chart.display and not alone else "1fr"
        left.styles.width = "1fr" if alone or not wide else "3fr"
        audit.styles.width = "1fr" if alone or not wide else "2fr"

    def draw(self, model: RunModel, link: Link) -> None:
        metric, word = MEASURED[self.measure]
        table = self.query_one(FixTable)
        # Of a run that is over and of a recording nothing more will be measured.
        over = bool(link.replay) or (model.run is not None and model.run.status in ("finished", "failed"))
        rows = views.fix_views(model, self.glyphs, metric, self.order, over=over)
        table.show(rows, word, correction_view(model), over=over)
        self._detail(model)
        self._chart(model, link)
        self.query_one(Audit).show(model)

    def _chart(self, model: RunModel, link: Link) -> None:
        chart = self.query_one(LineChart)
        if not chart.display:
            return
        spec = SPECS[self.measure]
        data = from_model.chart(model, spec, from_model.freshness(model, link))
        data = self.console_app.showing.judging.behind(spec.metric, data)
        chart.show(data, ChartView(log=spec.log), data.extent() or (0, 0))

    def _detail(self, model: RunModel) -> None:
        table, detail = self.query_one(FixTable), self.query_one(Detail)
        if table.on_correction and table.correction is not None:
            detail.show("objective correction", corrections.detail(table.correction))
        elif table.views:
            width, height = detail.room
            view = table.views[table.cursor]
            rows = views.detail(model, view, width, self.glyphs, roomy=height >= ROOMY, over=table.over)
            detail.show(view.row.fix.title, rows)

    def action_move(self, direction: Direction) -> None:
        super().action_move(direction)
        # The cursor is the operator's: it shows what it stands on also while the view is frozen.
        with self.console_app.lock:
            self._detail(self.console_app.model)

    def action_order(self) -> None:
        self.order = "effect" if self.order == "catalogue" else "catalogue"
        word = MEASURED[self.measure][1]
        self._look(f"ordered by effect on {word}: what lowers it most first" if self.order == "effect" else
                   "in the catalogue's order")  # fmt: skip

    def action_measure(self) -> None:
        self.measure = (self.measure + 1) % len(MEASURED)
        self._look(f"effects shown in {MEASURED[self.measure][1]}")

    def _look(self, words: str) -> None:
        app = self.console_app
        with app.lock:
            self.draw(app.model, app.source.link())
        self.say(words)

    def action_enlarge(self) -> None:
        """Enter on a fix switches it, on another pane gives that the room."""
        if self.focused is self.query_one(FixTable) and self.enlarged is None:
            self.action_act_fix()
        else:
            super().action_enlarge()

    def action_act_fix(self) -> None:
        table = self.query_one(FixTable)
        if table.on_correction:
            self.console_app.acting.ask_correction()
        else:
            self.console_app.acting.ask_fix(table.chosen)
