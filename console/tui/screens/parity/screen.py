"""The cause of a mismatch, and the run against its reference: two views of one screen.

The cause comes first: the answer in a sentence, three small pictures of the evidence, and what speaks for it. `v` shows
the parity table instead, metric by metric, with the chart of one of them; choosing a reference shows it too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from msgspec.structs import replace
from textual.app import ComposeResult
from textual.containers import Container

from console.connect.source import Link
from console.diagnosis.rounds import standing
from console.status.link_health import by_files
from console.store.model import RunModel
from console.tui.bindings import bindings
from console.tui.chart import from_model
from console.tui.chart.from_model import ChartSpec
from console.tui.chart.line_chart import LineChart
from console.tui.chart.view import ChartView
from console.tui.dialogs.picker import RunPicker
from console.tui.paint.glyphs import Glyphs
from console.tui.present import plans, rounds
from console.tui.present.alignment import asked_for
from console.tui.screens.base.chart_screen import ChartScreen
from console.tui.screens.base.run_screen import BASE_CSS, Direction, StyleSheets
from console.tui.screens.parity import cause_view
from console.tui.screens.parity import view as views
from console.tui.screens.parity.cause_panes import Picture
from console.tui.screens.parity.cause_view import PICTURES, Answer, Asked
from console.tui.screens.parity.panes import Limits, VerdictTable
from console.tui.watch.alarm_marks import alarmed
from console.tui.watch.judging import Judging, last_switch
from console.tui.watch.watched_run import Watch
from console.tui.widgets.text_pane import TextPane
from driftline.catalog.metrics import BY_NAME

if TYPE_CHECKING:
    from console.diagnosis.facts import Facts
    from console.diagnosis.model import Diagnosis
    from console.diagnosis.rounds import Standing
    from console.parity.runs import Run
    from console.tui.watch.diagnosing import Diagnosing

BESIDE = 150
"""Columns from which the published limits stand beside the chart of a judged metric."""
APART: Final = 110
"""Columns from which what was ruled out stands beside the evidence."""
FRAMED: Final = 20
"""Rows of the screen from which the panes of the cause have frames."""


class ParityScreen(ChartScreen):
    """The cause, or the parity table.

    Of the table the verdicts are on top; below them the chosen metric before its band, or what can be judged without a
    reference. Of the cause the answer is on top; without one the published limits have the rest.
    """

    ident = "parity"
    CSS_PATH: ClassVar[StyleSheets] = [BASE_CSS, "screen.tcss"]
    BINDINGS = bindings("screens", "parity")

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(glyphs)
        self.logs: dict[str, bool] = {}
        self.table_shown = False
        """Whether the parity table has the place of the cause."""
        self._answered: tuple[object, ...] = ()
        """What the panes of the cause were placed for."""
        self._placed = (False, 0)
        """Whether there was a verdict when the panes were placed, and the rows that the table took."""

    def body(self) -> ComposeResult:
        with Container(id="parity"):
            yield VerdictTable(id="verdict", glyphs=self.glyphs)
            with Container(id="under"):
                yield LineChart(
                    from_model.chart(RunModel(), _spec("policy/clip_fraction")), id="chart", glyphs=self.glyphs
                )
                yield Limits(id="limits", glyphs=self.glyphs)
        with Container(id="cause"):
            yield TextPane(id="answer", glyphs=self.glyphs, title="cause")
            with Container(id="pictures"):
                for place in range(PICTURES):
                    yield Picture(id=f"picture-{place}", glyphs=self.glyphs)
            with Container(id="reasons"):
                yield TextPane(id="evidence", glyphs=self.glyphs, title="evidence")
                yield TextPane(id="excluded", glyphs=self.glyphs, title="ruled out")
            yield Limits(id="known", glyphs=self.glyphs)

    def forget(self) -> None:
        self.view = ChartView()
        self.query_one(VerdictTable).cursor = 0
        if self.is_current:
            self._ask(self.console_app.showing)

    def rewound(self) -> None:
        """The reference and what is asked of it are the same at another time."""

    # -- token pairs are asked for when the cause is looked at

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self._ask(self.console_app.showing)

    def _ask(self, watch: Watch) -> None:
        self.run_worker(partial(self._ask_tokens, watch), thread=True, group="tokens", name="tokens", exclusive=True)

    def _ask_tokens(self, watch: Watch) -> None:
        watch.ask_tokens()
        self.app.call_from_thread(self.console_app.refresh_view)

    # -- where things are

    def framed(self, height: int) -> bool:
        return self.table_shown or height >= FRAMED

    def place_panes(self, width: int, height: int) -> None:
        hidden = "#cause" if self.table_shown else "#parity"
        gone = self.query_one(hidden)
        gone.display = False
        if self.focused is None or gone in self.focused.ancestors:
            self.set_focus(self.query_one("#verdict" if self.table_shown else "#answer"))
        if self.table_shown:
            self._place_table(width)
        else:
            self._place_cause(width, height)

    def _place_table(self, width: int) -> None:
        """The table takes the rows that it needs."""
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

    def _place_cause(self, width: int, height: int) -> None:
        """The answer takes the rows that it needs, up to a share; the pictures a third."""
        answer, pictures, reasons = (self.query_one(name) for name in ("#answer", "#pictures", "#reasons"))
        if self.enlarged is not None:
            for widget in (answer, pictures, reasons):
                widget.styles.height = "1fr"
            self.enlarged.styles.width = "1fr"
            return
        body, edge = height - 2, 2 if self.framed(height) else 0
        view = self._view()
        needed = len(cause_view.answer(view, self.glyphs, width - edge, 99)) + edge
        answer.styles.height = max(min(needed, body * 2 // 5 + 1), 3)
        found = view.found
        known = found is not None and bool(found.profiles)
        pictures.display = reasons.display = known
        self.query_one("#known").display = not known
        pictures.styles.height = max(body // 3, 4)
        reasons.styles.height = "1fr"
        shown = len(cause_view.pictures(found))
        for place in range(PICTURES):
            self.query_one(f"#picture-{place}").display = place < shown
        self.query_one("#excluded").display = width >= APART
        self._answered = (needed, known, shown)

    # -- drawing

    def draw(self, model: RunModel, link: Link) -> None:
        app = self.console_app
        judging, diagnosing = app.showing.judging, app.showing.diagnosing
        if judging.due(model):
            run = judging.gather(app.source.run, model)
            self.run_worker(partial(self._judge, judging, run), thread=True, group="judge", name="judge")
        if diagnosing.due(model):
            work = partial(self._diagnose, diagnosing, *diagnosing.gather(model))
            self.run_worker(work, thread=True, group="diagnosis", name="diagnosis")
        if self.table_shown:
            self._draw_table(model, link)
        else:
            self._draw_cause(model)

    def _draw_table(self, model: RunModel, link: Link) -> None:
        judging = self.console_app.showing.judging
        table = self.query_one(VerdictTable)
        table.show(judging.chosen, judging.verdict, views.backend(model), self._offer(judging, model))
        if self._placed != (judging.verdict is not None, table.rows):
            self.rearrange()
        limits = self.query_one("#limits", Limits)
        if limits.display:
            limits.show(model)
        self._chart(model, link)

    def _draw_cause(self, model: RunModel) -> None:
        view = self._view()
        width, height = self.size
        edge = 2 if self.framed(height) else 0
        needed = len(cause_view.answer(view, self.glyphs, width - edge, 99)) + edge
        pictures = cause_view.pictures(view.found)
        known = view.found is not None and bool(view.found.profiles)
        if self._answered != (needed, known, len(pictures)) and self.enlarged is None:
            self.rearrange()
        glyphs, found = self.glyphs, view.found
        answer = self.query_one("#answer", TextPane)
        answer.show(lambda w, h: cause_view.answer(view, glyphs, w, h), label=cause_view.label(found, view.by_round))
        for place, profile in enumerate(pictures):
            self.query_one(f"#picture-{place}", Picture).show(profile)
        if found is not None and known:
            apart = width >= APART
            evidence, excluded = self.query_one("#evidence", TextPane), self.query_one("#excluded", TextPane)
            evidence.show(
                lambda w, _h: cause_view.evidence(found, w, ruled_out=not apart),
                title="evidence" if apart else "evidence, and what is ruled out",
            )
            excluded.show(lambda w, _h: cause_view.excluded(found, w), label=str(len(found.ruled_out)))
        else:
            self.query_one("#known", Limits).show(model)

    def _view(self) -> Answer:
        """What is known of the cause now."""
        app = self.console_app
        watch, model = app.showing, app.model
        link = watch.source.link()
        found = watch.diagnosing.found
        asked = Asked(
            watch.tokens_asked, watch.tokens_refused, watch.source.tokens_behind, watch.diagnosing.tokens,
            recorded=bool(link.replay or by_files(model.run)), error=watch.diagnosing.error,
        )  # fmt: skip
        stands = standing(model)
        by_round = rounds.label(watch.diagnosing.by_round, model)
        try:
            plans.check(watch.source.operator, link, model)
        except plans.RefusedError as error:
            row, urgent = rounds.line(stands, may_act=False)
            return Answer(found, asked, None, str(error), row, urgent, by_round)
        row, urgent = rounds.line(stands, may_act=not rounds.cannot(model))
        return Answer(found, asked, asked_for(model, found), "", row, urgent, by_round)

    def _diagnose(self, diagnosing: Diagnosing, facts: Facts, stands: Standing) -> None:
        diagnosing.diagnose(facts, stands)
        self.app.call_from_thread(self.console_app.refresh_view)

    @property
    def found(self) -> Diagnosis | None:
        """The newest diagnosis."""
        return self.console_app.showing.diagnosing.found

    def action_other_view(self) -> None:
        """The parity table in place of the cause, or back."""
        self.show_table(shown=not self.table_shown)

    def show_table(self, *, shown: bool) -> None:
        """Show one of the two views."""
        if self.table_shown == shown:
            return
        self.table_shown = shown
        self.enlarged = None
        self.rearrange()
        self.call_after_refresh(self.console_app.refresh_view)

    def action_act_round(self) -> None:
        self.console_app.acting.ask_round()

    def action_act_fix(self) -> None:
        """The dialog of the fix that the cause asks for, where one is named; else the list of fixes."""
        found = self.found
        fix = None
        if not self.table_shown and found is not None:
            fix = next((one for one in found.actions if one.kind == "fix"), None)
        if fix is not None:
            self.console_app.acting.ask_fix(fix.fix, fix.value)
        else:
            super().action_act_fix()

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
        if not self._charted("there is no chart without a reference (r chooses one)"):
            return
        self.view = view
        self._redraw()

    def _charted(self, otherwise: str) -> bool:
        """Whether there is a chart on show; else says why not."""
        if self.table_shown and self.query_one(VerdictTable).judged is not None:
            return True
        self.say(otherwise if self.table_shown else "the chart is beside the parity table: v shows it", "warn")
        return False

    def goto(self, step: int) -> bool:
        if not self.table_shown or self.query_one(VerdictTable).judged is None:
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
        self.show_table(shown=True)
        self.say("judging the whole run" if step is None else
                 f"judging from step {step} on, as after a switch: time to come home is granted")  # fmt: skip
        return True

    def action_move(self, direction: Direction) -> None:
        super().action_move(direction)
        if self.table_shown:
            self._redraw()

    def action_back(self) -> None:
        """One level out: what a chart has, then the cause."""
        if self.table_shown and self.enlarged is None and self.view.cursor is None and self.view.x.mode == "all":
            self.show_table(shown=False)
        else:
            super().action_back()

    def _redraw(self) -> None:
        # Which metric is looked at is the operator's choice, also while the view is frozen.
        app = self.console_app
        with app.lock:
            self._chart(app.model, app.source.link())

    def action_log(self) -> None:
        judged = self.query_one(VerdictTable).judged
        if not self._charted("log axis: there is no chart without a reference") or judged is None:
            return
        self.logs[judged.metric] = not self.query_one(LineChart).view.log
        self._redraw()

    def action_reference(self) -> None:
        app = self.console_app
        root = app.run_dir.path.parent if app.run_dir is not None else None

        def chosen(names: tuple[str, ...] | None) -> None:
            if names is not None:
                app.references.choose(names)
                self.show_table(shown=True)

        names = app.showing.judging.chosen.names
        app.push_screen(RunPicker(self.glyphs, root, own=app.source.run, chosen=names), chosen)


def _spec(metric: str) -> ChartSpec:
    title = BY_NAME[metric].title if metric in BY_NAME else metric
    return ChartSpec("chart", metric, title, title)
