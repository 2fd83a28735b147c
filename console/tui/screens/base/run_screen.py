"""Base of every screen over a run: the bars, the banner, panes that can be moved between and enlarged.

A screen shows the model as of the last tick; it holds the operator's view of it and nothing of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar, Final, Literal, cast

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget

from console.connect.source import Link
from console.settings.keys import Where
from console.store.model import RunModel
from console.tui.paint.cells import Cells
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.present import header, lease, plans
from console.tui.screens.base.bars import BannerBar, FooterBar, HeaderBar
from console.tui.screens.base.command_line import CommandLine
from console.tui.screens.base.replay_bar import ReplayBar
from console.tui.terminal.compositor import TightCompositor
from console.tui.terminal.textual_patches import PatchedScreen
from console.tui.widgets.cell_widget import CellWidget
from console.tui.widgets.pane import Pane
from driftline.frames import Level

if TYPE_CHECKING:
    from console.tui.command.command import Known
    from console.tui.command.history import History
    from console.tui.host import Host
    from console.tui.watch.watched_run import Watch

Direction = Literal["left", "right", "up", "down"]

SMALLEST: Final = (60, 15)
"""Columns and rows below which nothing is drawn but the wish for more."""

StyleSheets = str | list[str | PurePath]
"""Paths of style sheets, relative to the module of their screen."""

BASE_CSS: Final = "../base/run_screen.tcss"


class TooSmall(CellWidget):
    """Shown in place of panes that would have no room."""

    def paint(self, cells: Cells) -> None:
        lines = [f"needs {SMALLEST[0]}x{SMALLEST[1]}", f"has {cells.width}x{cells.height}"]
        for row, text in enumerate(lines, max((cells.height - len(lines)) // 2, 0)):
            cells.text(row, max((cells.width - len(text)) // 2, 0), text, Ink.WARN)


class RunScreen(PatchedScreen):
    """A screen over the run on show. Subclasses say what stands between banner and footer, and how it is drawn.

    They set `ident` (a word of the table of screens), `BINDINGS = bindings("screens", ident)` and, with a style
    sheet of their own, `CSS_PATH = [BASE_CSS, "their.tcss"]`.
    """

    CSS_PATH: ClassVar[StyleSheets] = BASE_CSS
    ident: ClassVar[Where]

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(TightCompositor())
        self.glyphs = glyphs
        self.frozen = False
        self.enlarged: Widget | None = None
        self._before_command: Widget | None = None
        self._seen: tuple[Watch, int] | None = None
        self._has_panes = False

    # -- for subclasses

    def body(self) -> ComposeResult:
        """The widgets between banner and footer."""
        raise NotImplementedError  # abstract: a Textual class has no room for the ABC metaclass

    def draw(self, model: RunModel, link: Link) -> None:
        """Hand what the model holds now to the panes; called with the model's lock held, not while frozen."""
        raise NotImplementedError  # abstract: a Textual class has no room for the ABC metaclass

    def place_panes(self, width: int, height: int) -> None:
        """Give the panes their sizes on a screen of `width` x `height`, one alone where `self.enlarged` is it."""

    def forget(self) -> None:
        """Another run is on show from now on: let go of what was remembered of the last one."""

    def rewound(self) -> None:
        """The same run as it was at another time, where a replay has jumped: let go of what may not have been yet."""
        self.forget()

    # -- the frame around it

    @property
    def ready(self) -> bool:
        """True while there are panes to draw on: not before they are composed, not after they are gone."""
        # Textual calls a screen mounted also where it was interrupted; panes within panes are then the first to lack.
        composed = self._has_panes and self.is_mounted and not self.console_app.leaving
        return composed and bool(self.query(FooterBar)) and bool(self.query(HeaderBar))

    @property
    def console_app(self) -> Host:
        """The app, with its type."""
        return cast("Host", self.app)

    def compose(self) -> ComposeResult:
        yield HeaderBar(id="header", glyphs=self.glyphs)
        yield BannerBar(id="banner", glyphs=self.glyphs)
        with Vertical(id="body"):
            yield from self.body()
        yield ReplayBar(id="replay", glyphs=self.glyphs)
        yield FooterBar(id="footer", glyphs=self.glyphs, where=self.ident)
        yield CommandLine(id="command", glyphs=self.glyphs)
        yield TooSmall(id="small", glyphs=self.glyphs)

    def on_mount(self) -> None:
        self._has_panes = True
        for pane in self.focus_chain[:1]:
            self.set_focus(pane)

    def on_screen_resume(self) -> None:
        self.rearrange()
        self.console_app.refresh_view()

    def on_resize(self) -> None:
        self.rearrange()

    def rearrange(self) -> None:
        """Show the panes and bars that have room; all of the room is an enlarged pane's."""
        if not self.ready:
            return
        width, height = self.size
        small = width < SMALLEST[0] or height < SMALLEST[1]
        self.query_one(TooSmall).display = small
        large = self.enlarged
        kept = set(large.ancestors_with_self) if large is not None else set()
        self.query_one("#body").display = not small
        for widget in self.query("#body *").results(Widget):
            widget.display = large is None or widget in kept
        command = self.query_one(CommandLine)
        if small:
            command.close()
        self.query_one("#header").display = not small
        self.query_one("#footer").display = not small and not command.is_open
        banner = self.query_one(BannerBar)
        banner.display = not small and banner.banner is not None
        replay = self.query_one(ReplayBar)
        replay.display = not small and replay.position is not None
        framed = large is not None or self.framed(height)
        for pane in self.query(Pane):
            pane.framed = framed
        self.place_panes(width, height)

    def framed(self, height: int) -> bool:  # noqa: ARG002  for those that leave frames out
        """Whether panes have a frame on a screen of `height` rows."""
        return True

    def show(self, model: RunModel, link: Link, notice: tuple[str, Level] | None) -> None:
        """Draw the model. While the view is frozen only the bars go on, so that it is not taken for live."""
        app = self.console_app
        before, self._seen = self._seen, (app.showing, app.showing.generation)
        if before is not None and before != self._seen:
            self.rewound() if before[0] is app.showing else self.forget()
        replay = self.query_one(ReplayBar)
        replay.show(app.showing.position(), model.marks)
        bar = self.query_one(BannerBar)
        bar.show(header.trouble(model, link))
        if replay.display != (replay.position is not None):
            self.rearrange()
        if bar.display != (bar.banner is not None):
            self.rearrange()
        operator = app.source.operator
        parts = header.header(model, app.source.run)
        guard = app.showing.guard
        news = app.alarms.news.now()
        if guard is not None:
            parts[2:2] = header.alarms_part(guard.sentinels.standing)
        mode = lease.mode(model, app.source.session, operator=operator) if not link.replay else lease.READ_ONLY
        self.query_one(HeaderBar).show(parts, header.link_text(model, link, frozen=self.frozen), mode, news)
        can_act = plans.possible(operator, link, model)
        self.query_one(FooterBar).show(can_act=can_act, replay=replay.position is not None, notice=notice)
        if not self.frozen:
            self.draw(model, link)

    def say(self, text: str, level: Level = "info") -> None:
        """Answer a key in the footer."""
        self.console_app.say(text, level)

    def use_glyphs(self, glyphs: Glyphs) -> None:
        """Draw with other characters from the next painting on."""
        self.glyphs = glyphs
        for widget in self.query(CellWidget):
            widget.glyphs = glyphs

    def repaint(self) -> None:
        """Paint every pane and bar again."""
        for widget in self.query(CellWidget):
            widget.repaint()

    # -- the keys of every screen

    def action_freeze(self) -> None:
        if self.console_app.showing.position() is not None:
            self.console_app.action_replay("play")
            return
        self.frozen = not self.frozen
        self.say("view frozen; the run goes on (space to thaw)" if self.frozen else "view live again")

    def action_move(self, direction: Direction) -> None:
        focused = self.focused
        if isinstance(focused, Pane) and focused.move(direction):
            return
        if self.moved(focused, direction):
            return
        target = self._neighbour(focused, direction)
        if target is not None:
            self.set_focus(target)

    def moved(self, focused: Widget | None, direction: Direction) -> bool:  # noqa: ARG002  for those that have a cursor
        """Take a direction that the focused pane did not take; False moves the focus."""
        return False

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
        self.enlarge(self.focused if self.enlarged is None else None)

    def enlarge(self, pane: Widget | None) -> None:
        """Give the whole body to one pane, or back to all."""
        self.enlarged = pane
        self.rearrange()
        self.call_after_refresh(self.console_app.refresh_view)

    def action_back(self) -> None:
        """One level out."""
        if self.enlarged is not None:
            self.enlarge(None)

    # -- the command line, in the place of the footer

    def goto(self, step: int) -> bool:  # noqa: ARG002  for those that have steps to go to
        """Bring a step into view; False where nothing here has a step."""
        return False

    def judge_from(self, step: int | None) -> bool:  # noqa: ARG002  for those that show a verdict
        """Judge parity from a step on, None the whole run; False where there is no verdict here."""
        return False

    def open_command(self, text: str, known: Callable[[], Known], history: History) -> None:
        """Open the command line with `text` typed already; `known` gives what can be named at any moment."""
        if not self.query_one("#header").display:
            return  # too small a terminal: nothing of the screen is there
        self._before_command = self.focused
        self.query_one(CommandLine).open(text, known, history)
        self.rearrange()

    def on_command_line_closed(self) -> None:
        self.rearrange()
        before, self._before_command = self._before_command, None
        if before is not None and before.is_mounted and before.display:
            self.set_focus(before)
        self.console_app.refresh_view()

    # -- acting on the run: the app holds the source, a screen only says what is meant

    def action_act_fix(self) -> None:
        self.console_app.acting.ask_fix(None)

    def action_act_align(self) -> None:
        self.console_app.acting.ask_align()

    def action_act_sync(self) -> None:
        self.console_app.acting.ask_sync()

    def action_act_pause(self) -> None:
        self.console_app.acting.ask_pause()

    def action_export(self) -> None:
        self.console_app.exports.table()
