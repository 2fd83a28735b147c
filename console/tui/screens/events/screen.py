"""The events screen: everything that happened in the run, filtered, with the whole of one event beside the list."""

from __future__ import annotations

from typing import ClassVar, Final

from textual import work
from textual.app import ComposeResult

from console.connect.source import Link
from console.store.log import Entry
from console.store.model import RunModel
from console.tui.bindings import bindings
from console.tui.chart import from_model
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import zone
from console.tui.screens.base.run_screen import BASE_CSS, RunScreen, StyleSheets
from console.tui.screens.events import file, filter, view
from console.tui.screens.events.list import EventList
from console.tui.screens.events.view import Rows
from console.tui.terminal.clipboard import copy_text
from console.tui.terminal.short_path import short_path
from console.tui.widgets.filter_line import FilterLine
from console.tui.widgets.text_pane import TextPane
from driftline.rundir import RunDir

ROOMY: Final = 34
"""Rows of a screen on which the chosen event is shown without being asked for."""


class EventsScreen(RunScreen):
    """List above, the chosen event below where there is room or it was opened, the filter at the bottom."""

    ident = "events"
    CSS_PATH: ClassVar[StyleSheets] = [BASE_CSS, "screen.tcss"]
    BINDINGS = bindings("screens", "events")

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(glyphs)
        self.rows = Rows(filter.parse(""), folded=True)
        self.opened: bool | None = None
        """Whether the chosen event is shown; None as there is room."""

    def body(self) -> ComposeResult:
        yield EventList(id="events", glyphs=self.glyphs)
        yield TextPane(id="detail", glyphs=self.glyphs, title="event")
        yield FilterLine(filter.EVENTS.complaint, filter.HINT, glyphs=self.glyphs)

    @property
    def detailed(self) -> bool:
        """Whether the chosen event has a pane now."""
        return self.opened if self.opened is not None else self.size.height >= ROOMY

    def place_panes(self, width: int, height: int) -> None:  # noqa: ARG002  the rows are what is scarce
        self.query_one(FilterLine).display = self.query_one(FilterLine).is_open
        detail = self.query_one("#detail")
        detail.display = self.detailed
        detail.styles.height = max((height - 2) * 2 // 5, 6)

    def forget(self) -> None:
        self.rows = Rows(self.rows.wanted, folded=self.rows.folded)
        if self.ready:
            self.query_one(EventList).reset()

    # -- news

    def draw(self, model: RunModel, link: Link) -> None:
        fresh = from_model.freshness(model, link)
        rows = self.query_one(EventList)
        changed = self.rows.read_log(model.log)
        rows.now = model.last_time
        rows.words = self._words(model, {"stale": "OLD", "loading": "loading", "live": ""}[fresh])
        note = "the run's history is loading" if fresh == "loading" else view.empty(model, self.rows.wanted)
        if changed or not self.rows.rows:
            rows.show(self.rows.rows, [] if self.rows.rows else [[(f" {note}", Ink.DIM)]])
        else:
            rows.repaint()
        self._detail(model)

    def _words(self, model: RunModel, fresh: str) -> list[str]:
        words = [f"{self.rows.matches:,} of {len(model.log.entries):,}" if self.rows.wanted.tests else ""]
        if not self.rows.wanted.tests:
            words = [f"{self.rows.matches:,}"]
        if model.log.count > len(model.log.entries):
            words.append(f"{model.log.count - len(model.log.entries):,} older not kept")
        if self.rows.wanted.text:
            words.append(f"filter {self.rows.wanted.text}")
        if model.last_time is not None:
            words.append(f"times in {zone(model.last_time)}")
        return [*words, fresh] if fresh else words

    def _detail(self, model: RunModel) -> None:
        pane = self.query_one("#detail", TextPane)
        if not pane.display:
            return
        chosen = self.query_one(EventList).chosen
        if chosen is None:
            pane.show(lambda _width, _height: [], "event")
            return
        made = view.detail(model, chosen, max(self.size.width - 2, 20))

        def lines(_width: int, _height: int) -> list[list[Text]]:
            return made

        pane.show(lines, f"event {chosen.last.number:,}")

    def _again(self) -> None:
        """Show the rows as they are now, also while frozen: filter and choice are the operator's."""
        with self.console_app.lock:
            model = self.console_app.model
            rows = self.query_one(EventList)
            self.rows.read_log(model.log)
            note: list[list[Text]] = [[(f" {view.empty(model, self.rows.wanted)}", Ink.DIM)]]
            rows.words = self._words(model, "")
            rows.show(self.rows.rows, [] if self.rows.rows else note)
            self._detail(model)

    # -- filter

    def action_filter(self) -> None:
        self.query_one(FilterLine).open()

    def on_filter_line_changed(self, message: FilterLine.Changed) -> None:
        self.rows = Rows(filter.parse(message.text), folded=self.rows.folded)
        self.query_one(EventList).reset()
        self._again()

    def on_filter_line_closed(self) -> None:
        self.set_focus(self.query_one(EventList))

    def action_unfold(self) -> None:
        self.rows = Rows(self.rows.wanted, folded=not self.rows.folded)
        self.query_one(EventList).reset()
        self._again()
        self.say("routine syncs folded into one line" if self.rows.folded else "every sync on its own line")

    # -- choosing

    def _go(self, place: int) -> None:
        self.query_one(EventList).go(place)
        self.query_one("#detail", TextPane).top = 0
        with self.console_app.lock:
            self._detail(self.console_app.model)

    def action_first(self) -> None:
        self._go(0)

    def action_last(self) -> None:
        self._go(len(self.query_one(EventList).items) - 1)

    def action_page(self, pages: int) -> None:
        rows = self.query_one(EventList)
        self._go(rows.cursor + pages * rows.page)

    def action_move(self, direction: str) -> None:
        rows = self.query_one(EventList)
        place = rows.cursor + {"up": -1, "down": 1}.get(direction, 0)
        if self.focused is rows and place != rows.cursor and 0 <= place < len(rows.items):
            self._go(place)
            return
        super().action_move(direction)  # type: ignore[arg-type]

    def action_open(self) -> None:
        """Show the chosen event; where it is shown, give it all of the screen, and back."""
        if not self.detailed:
            self.opened = True
            self.rearrange()
        else:
            self.enlarge(self.query_one("#detail") if self.enlarged is None else None)
        self.call_after_refresh(self._again)

    def action_show_step(self) -> None:
        """Show the chosen event's step."""
        chosen = self.query_one(EventList).chosen
        if chosen is None or chosen.last.step < 0:
            self.say("no event is chosen" if chosen is None else "the event says nothing of a step", "warn")
        else:
            self.console_app.show_step(chosen.last.step)

    def action_back(self) -> None:
        if self.enlarged is not None:
            self.enlarge(None)
        elif self.opened:
            self.opened = None
            if self.detailed:
                self.opened = False
            self.set_focus(self.query_one(EventList))
            self.rearrange()
        elif self.rows.wanted.tests:
            self.query_one(FilterLine).clear()

    # -- out of the console

    def action_export_events(self) -> None:
        run = self.console_app.run_dir
        if run is None:
            self.say(
                "the run's directory is not on this machine; in a shell here: driftline export --table events", "warn"
            )
            return
        entries = self.rows.entries()
        if not entries:
            self.say("nothing to export: no event passes the filter", "warn")
            return
        self._export(run, entries, self.rows.wanted.text)

    @work(thread=True, exclusive=True, group="export")
    def _export(self, run: RunDir, entries: list[Entry], wanted: str) -> None:
        from console.export import ExportError

        out = run.snapshots / f"events-{entries[-1].seq}{file.SUFFIX}"
        try:
            count = file.write(entries, out, run.id, wanted)
        except (ExportError, OSError) as error:
            self.app.call_from_thread(self.say, f"export failed: {error}", "error")
        else:
            self.app.call_from_thread(self.say, f"{count:,} events exported to {short_path(out)}")

    def action_copy(self) -> None:
        chosen = self.query_one(EventList).chosen
        if chosen is None:
            self.say("nothing to copy: no event is chosen", "warn")
            return
        run = self.console_app.run_dir
        text = "\n".join(view.as_text(entry) for entry in chosen.entries)
        try:
            said = copy_text(self.app, text, "the event", run.snapshots if run else None)
        except OSError as error:
            self.say(f"copied to the clipboard, but not to a file: {error}", "warn")
        else:
            self.say(said)
