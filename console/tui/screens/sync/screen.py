"""The sync screen: every weight sync of the run, the phases of one engine by engine, versions and their lag."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal

from console.connect.source import Link
from console.store.model import RunModel
from console.store.sync import Sync
from console.tui.bindings import bindings
from console.tui.chart import from_model
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.table import flow
from console.tui.paint.theme import Ink
from console.tui.screens.base.run_screen import BASE_CSS, RunScreen, StyleSheets
from console.tui.screens.sync import view
from console.tui.screens.sync.panes import Gantt, SyncList
from console.tui.terminal.clipboard import copy_text
from console.tui.widgets.text_pane import TextPane


class SyncScreen(RunScreen):
    """List above, chart of the chosen one in the middle, the run's figures below."""

    ident = "sync"
    CSS_PATH: ClassVar[StyleSheets] = [BASE_CSS, "screen.tcss"]
    BINDINGS = bindings("screens", "sync")

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(glyphs)
        self._engines = 0

    def body(self) -> ComposeResult:
        yield SyncList(id="syncs", glyphs=self.glyphs)
        yield Gantt(id="gantt", glyphs=self.glyphs)
        with Horizontal(id="below"):
            yield TextPane(id="phases", glyphs=self.glyphs, title="phases")
            yield TextPane(id="versions", glyphs=self.glyphs, title="versions")

    def place_panes(self, width: int, height: int) -> None:
        alone = self.enlarged is not None
        body = height - 2
        below = 6 if body < 28 else 10 if body < 48 else 14
        rows = body - below
        # The chart gets what its engines and what is said of them need, at most three fifths; the list gets the rest.
        chart = max(min(self._engines + 8, rows * 3 // 5), rows - rows * 2 // 5 if rows < 24 else 0)
        self.query_one("#syncs").styles.height = "1fr" if alone else max(rows - chart, 5)
        self.query_one("#gantt").styles.height = "1fr"
        self.query_one("#below").styles.height = "1fr" if alone else below
        self.query_one("#phases").styles.width = "1fr" if alone else f"{62 if width < 120 else 65}%"
        self.query_one("#versions").styles.width = "1fr"

    def forget(self) -> None:
        if self.ready:
            self.query_one(SyncList).reset()
            self.query_one(Gantt).show_sync(None)

    # -- news

    def draw(self, model: RunModel, link: Link) -> None:
        fresh = from_model.freshness(model, link)
        rows = self.query_one(SyncList)
        rows.now, rows.total = model.last_time, model.syncs.count
        rows.failed = model.syncs.failures
        rows.word = {"stale": "OLD", "loading": "loading", "live": ""}[fresh]
        rows.show(list(model.syncs.syncs), self._notes(model, link))
        chosen = rows.chosen
        chart = self.query_one(Gantt)
        chart.show_sync(chosen)
        self._fit(chosen)
        self._figures(model, chosen)

    def _fit(self, chosen: Sync | None) -> None:
        """Give the chart other room where it has other engines."""
        count = len(chosen.engines) if chosen is not None else 0
        if count != self._engines:
            self._engines = count
            self.rearrange()

    def _notes(self, model: RunModel, link: Link) -> list[list[Text]]:
        notes = [line] if (line := view.going_on(model)) else []
        if not model.syncs.syncs and not notes:
            if from_model.freshness(model, link) == "loading":
                return [[(" the run's history is loading", Ink.DIM)]]
            notes.append([(f" {view.empty(model, operator=self.console_app.source.operator)}", Ink.DIM)])
        return notes

    def _figures(self, model: RunModel, chosen: Sync | None) -> None:
        """The panes below: made here from the model, drawn for any size later."""
        glyphs = self.glyphs
        phases = view.phases(model, chosen, self.size.width)
        count = model.syncs.phases["total"].count
        if count:
            label = f"{count:,} by engine over the run, within .5 %"
            self.query_one("#phases", TextPane).show(
                lambda width, height: view.phase_lines(phases, width, height, glyphs), "phases", label
            )
        else:
            note: list[Text] = [(" no phase has been timed yet", Ink.DIM)]
            self.query_one("#phases", TextPane).show(lambda _width, _height: [note], "phases")
        skew = view.skew(model)
        # As many bins as there may be rows; few on a small screen.
        bars = view.lags(model, max(self.query_one("#versions").size.height - 4, 2))

        def versions(width: int, height: int) -> list[list[Text]]:
            lines = flow(skew, width)
            label = view.lag_label(bars)
            if label and height - len(lines) >= 4:
                lines.append([(f" {label}", Ink.DIM)])
            return [*lines, *view.lag_lines(bars, width, glyphs)]

        now = view.lag_now(bars)
        self.query_one("#versions", TextPane).show(versions, "versions", now)

    # -- keys

    def _choose(self, place: int) -> None:
        rows = self.query_one(SyncList)
        with self.console_app.lock:
            rows.go(place)
            self.query_one(Gantt).show_sync(rows.chosen)
            self._fit(rows.chosen)
            self._figures(self.console_app.model, rows.chosen)

    def action_older(self) -> None:
        self._choose(self.query_one(SyncList).cursor - 1)

    def action_newer(self) -> None:
        self._choose(self.query_one(SyncList).cursor + 1)

    def action_first(self) -> None:
        self._choose(0)

    def action_last(self) -> None:
        self._choose(len(self.query_one(SyncList).items) - 1)

    def action_page(self, pages: int) -> None:
        rows = self.query_one(SyncList)
        focused = self.focused
        if isinstance(focused, Gantt):
            focused.go(focused.cursor + pages * focused.page)
        else:
            self._choose(rows.cursor + pages * rows.page)

    def action_failed(self) -> None:
        """The next older sync that failed, from the newest again after the oldest."""
        rows = self.query_one(SyncList)
        count = len(rows.items)
        for away in range(1, count + 1):
            place = (rows.cursor - away) % count
            if not rows.items[place].ok:
                self._choose(place)
                return
        self.say("no sync has failed" if count else "no weight sync yet")

    def action_move(self, direction: str) -> None:
        rows = self.query_one(SyncList)
        if self.focused is rows and direction in ("up", "down"):
            place = rows.cursor + (1 if direction == "down" else -1)
            if 0 <= place < len(rows.items):
                self._choose(place)
                return
        super().action_move(direction)  # type: ignore[arg-type]

    def action_copy(self) -> None:
        chosen = self.query_one(SyncList).chosen
        if chosen is None:
            self.say("nothing to copy: no weight sync yet", "warn")
            return
        run = self.console_app.run_dir
        try:
            said = copy_text(self.app, view.copied_text(chosen, self.glyphs), chosen.id, run.snapshots if run else None)
        except OSError as error:
            self.say(f"copied to the clipboard, but not to a file: {error}", "warn")
        else:
            self.say(said)
