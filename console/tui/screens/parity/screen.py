"""The parity screen: this run against its reference, metric by metric, and the chart of one of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.containers import Container

from console.connect.source import Link
from console.store.model import RunModel
from console.tui.bindings import bindings
from console.tui.chart import from_model
from console.tui.chart.from_model import ChartSpec
from console.tui.chart.line_chart import LineChart
from console.tui.chart.view import ChartView
from console.tui.dialogs.picker import RunPicker
from console.tui.paint.glyphs import Glyphs
from console.tui.screens.base.chart_screen import ChartScreen
from console.tui.screens.base.run_screen import BASE_CSS, Direction, StyleSheets
from console.tui.screens.parity import view as views
from console.tui.screens.parity.panes import Limits, VerdictTable
from console.tui.watch.alarm_marks import alarmed
from console.tui.watch.judging import Judging, last_switch
from driftline.catalog.metrics import BY_NAME

if TYPE_CHECKING:
    from console.parity.runs import Run

BESIDE = 150
"""Columns from which the published limits stand beside the chart of a judged metric."""


class ParityScreen(ChartScreen):
    """The verdicts on top; below them the chosen metric before its band, or what can be judged without a reference."""

    ident = "parity"
    CSS_PATH: ClassVar[StyleSheets] = [BASE_CSS, "screen.tcss"]
    BINDINGS = bindings("screens", "parity")

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(glyphs)
        self.logs: dict[str, bool] = {}
        self._placed = (False, 0)
        """Whether there was a verdict when the panes were placed, and the rows that the table took."""

    def body(self) -> ComposeResult:
        yield VerdictTable(id="verdict", glyphs=self.glyphs)
        with Container(id="under"):
            yield LineChart(from_model.chart(RunModel(), _spec("policy/clip_fraction")), id="chart", glyphs=self.glyphs)
            yield Limits(id="limits", glyphs=self.glyphs)

    def forget(self) -> None:
        self.view = ChartView()
        self.query_one(VerdictTable).cursor = 0

    def rewound(self) -> None:
        """The reference and what is asked of it are the same at another time."""

    def place_panes(self, width: int, height: int) -> None:  # noqa: ARG002  the table takes the rows that it needs
        table, chart, limits = self.query_one(VerdictTable), self.query_one("#chart"), self.query_one("#limits")
        if self.enlarged is not None:
            table.styles.height = "1fr"
            return
        judged = table.verdict is not None
        self._placed = (judged, table.rows)
        table.styles.height = table.rows + 2
        chart.display = judged
        limits.display = not judged or width >= BESIDE
        chart.styles.width = "2fr"
        limits.styles.width = "1fr"

    def draw(self, model: RunModel, link: Link) -> None:
        app = self.console_app
        judging = app.showing.judging
        if judging.due(model):
            run = judging.gather(app.source.run, model)
            self.run_worker(partial(self._judge, judging, run), thread=True, group="judge", name="judge")
        table = self.query_one(VerdictTable)
        table.show(judging.chosen, judging.verdict, views.backend(model), self._offer(judging, model))
        if self._placed != (judging.verdict is not None, table.rows):
            self.rearrange()
        limits = self.query_one(Limits)
        if limits.display:
            limits.show(model)
        self._chart(model, link)

    def _judge(self, judging: Judging, run: Run) -> None:
        judging.judge(run)
        self.app.call_from_thread(self.console_app.refresh_view)

    def _chart(self, model: RunModel, link: Link) -> None:
        judged = self.query_one(VerdictTable).judged
        chart = self.query_one(LineChart)
        if judged is None or not chart.display:
            return
        judging = self.console_app.showing.judging
        spec = _spec(judged.metric)
        data = judging.figure(judged, from_model.chart(model, spec, from_model.freshness(model, link)))
        data = alarmed(data, self.console_app.showing.guard)
        rules = judging.chosen.rules
        scale = rules.metrics[judged.metric].scale if rules is not None and judged.metric in rules.metrics else "linear"
        ruler = model.metrics.clock.ruler("step")
        self.extent = data.extent() or (0, 0)
        self.view = replace(self.view, ruler=ruler) if ruler is not None else self.view
        log = self.logs.get(judged.metric, scale == "log")
        chart.show(data, replace(self.view, log=log), self.extent)

    def use_view(self, view: ChartView) -> None:
        """Look at the chart in another way; without a verdict there is none."""
        if self.query_one(VerdictTable).judged is None:
            self.say("there is no chart without a reference (r chooses one)", "warn")
            return
        self.view = view
        self._redraw()

    def goto(self, step: int) -> bool:
        if self.query_one(VerdictTable).judged is None:
            return False
        return super().goto(step)

    # -- from which step on

    def _offer(self, judging: Judging, model: RunModel) -> str:
        """The key with its present effect, "" where it would have none."""
        if judging.start is not None:
            return "s whole run"
        step = last_switch(model)
        return f"s from step {step}" if step is not None else ""

    def action_since_switch(self) -> None:
        """Judge what came after the last switch of a fix, or all of the run again."""
        app = self.console_app
        with app.lock:
            step = last_switch(app.model)
        if app.showing.judging.start is not None:
            self.judge_from(None)
        elif step is None:
            self.say("no fix has been switched in this run; :judge from STEP judges from any step on", "warn")
        else:
            self.judge_from(step)

    def judge_from(self, step: int | None) -> bool:
        """Judge from a step on, None the whole run, and say so."""
        app = self.console_app
        app.showing.judging.judge_from(step)
        self.say("judging the whole run" if step is None else
                 f"judging from step {step} on, as after a switch: time to come home is granted")  # fmt: skip
        return True

    def action_move(self, direction: Direction) -> None:
        super().action_move(direction)
        self._redraw()

    def _redraw(self) -> None:
        # Which metric is looked at is the operator's choice, also while the view is frozen.
        app = self.console_app
        with app.lock:
            self._chart(app.model, app.source.link())

    def action_log(self) -> None:
        judged = self.query_one(VerdictTable).judged
        if judged is None:
            self.say("log axis: there is no chart without a reference", "warn")
            return
        self.logs[judged.metric] = not self.query_one(LineChart).view.log
        self._redraw()

    def action_reference(self) -> None:
        app = self.console_app
        root = app.run_dir.path.parent if app.run_dir is not None else None

        def chosen(names: tuple[str, ...] | None) -> None:
            if names is not None:
                app.references.choose(names)

        names = app.showing.judging.chosen.names
        app.push_screen(RunPicker(self.glyphs, root, own=app.source.run, chosen=names), chosen)


def _spec(metric: str) -> ChartSpec:
    title = BY_NAME[metric].title if metric in BY_NAME else metric
    return ChartSpec("chart", metric, title, title)
