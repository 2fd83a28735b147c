"""The console's application as its controllers and screens see it. Types only: nothing here runs.

`ConsoleApp` satisfies `Host`. Controllers, screens and dialogs take a `Host` and never import `console.tui.app`, so
that the application may import all of them. Everything here is called on the app's thread, but `call_from_thread` and
`post_message`, which are for workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from textual.message import Message
    from textual.screen import Screen
    from textual.worker import Worker

    from console.connect.source import Source
    from console.settings.keys import Key, Where
    from console.store.model import RunModel
    from console.tui.chart.view import ChartView
    from console.tui.notice import Notice
    from console.tui.paint.glyphs import Glyphs
    from console.tui.paint.theme import Look
    from console.tui.watch.watched_run import Watch
    from driftline.frames import Level
    from driftline.rundir import RunDir

R = TypeVar("R")

Steps = tuple[int | None, int | None]
"""First and last trainer step, both included; None without a bound."""


class Actions(Protocol):
    """Acting on the run on show: each asks the operator before anything is sent (`console.tui.control.acting`)."""

    def ask_fix(self, fix_id: str | None, value: str | None = None) -> None:
        """Ask for the switch of a fix; which one and to which value is chosen in lists where they are None."""

    def ask_correction(self, value: str | None = None) -> None:
        """Ask for a correction of the objective."""

    def ask_shadow(self, share: float) -> None:
        """Ask for this share of the groups, 0 to 1, to be scored by another engine as well."""

    def ask_align(self, *, undo: bool = False) -> None:
        """Ask for the fixes and syncs that the diagnosis asks for, at once; `undo`: for setting the last ones back."""

    def ask_round(self) -> None:
        """Ask for an active round, which measures the cause; one that waits or is under way is cancelled."""

    def ask_sync(self) -> None:
        """Ask for a weight sync."""

    def ask_pause(self) -> None:
        """Ask for a pause, or for the end of one."""

    def ask_stop(self) -> None:
        """Ask for the end of the run."""

    def mark(self, text: str) -> None:
        """Note `text` in the journal."""


class Exporter(Protocol):
    """Files about the run on show (`console.tui.control.exports`)."""

    def table(self, table: str = "metrics", kind: str = "parquet", steps: Steps = (None, None)) -> None:
        """Write a table to a file."""

    def evidence(self) -> None:
        """Write the evidence folder."""


class AlarmNotices(Protocol):
    """Alarms of the watched runs (`console.tui.control.alarms`)."""

    news: Notice


class ReferenceChooser(Protocol):
    """The reference runs of the run on show (`console.tui.control.references`)."""

    def begin(self) -> None:
        """Read those that were given at the start."""

    def choose(self, names: tuple[str, ...]) -> None:
        """Compare with these runs from now on, or with none."""


class RunView(Protocol):
    """A screen over the run on show (`console.tui.screens.base.run_screen`)."""

    def goto(self, step: int) -> bool:
        """Bring a step into view; False where the screen shows no steps."""

    def judge_from(self, step: int | None) -> bool:
        """Judge parity from a step on, None the whole run; False where the screen shows no verdict."""

    def use_glyphs(self, glyphs: Glyphs) -> None:
        """Draw with other characters from now on."""

    def repaint(self) -> None:
        """Paint every pane again."""


class LiveCharts(RunView, Protocol):
    """The live screen's charts."""

    view: ChartView

    def action_crosshair(self) -> None:
        """Show or hide the crosshair."""

    def action_show_all(self) -> None:
        """Show the whole run."""


class Host(Protocol):
    """The application: the watched runs, the one on show, and what a controller or a screen may ask for."""

    watches: list[Watch]
    showing: Watch
    overlay: Watch | None
    glyphs: Glyphs
    fps: float
    look: Look
    theme: str
    sixteen: bool
    keys: tuple[Key, ...]
    notice: Notice
    leaving: bool

    @property
    def alarms(self) -> AlarmNotices:
        """Alarms of the watched runs."""

    @property
    def exports(self) -> Exporter:
        """Exports of the run on show."""

    @property
    def references(self) -> ReferenceChooser:
        """Reference runs of the run on show."""

    @property
    def acting(self) -> Actions:
        """Actions on the run on show."""

    @property
    def live(self) -> LiveCharts:
        """The live screen."""

    @property
    def current(self) -> RunView:
        """The screen on show, which may be under a dialog."""

    @property
    def run_screens(self) -> Iterable[RunView]:
        """The screens that are mounted."""

    @property
    def source(self) -> Source:
        """The source of the run on show."""

    @property
    def model(self) -> RunModel:
        """The model of the run on show."""

    @property
    def run_dir(self) -> RunDir | None:
        """Its directory, where that is on this machine."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held while that model is read or changed."""

    def drawing(self) -> AbstractContextManager[None]:
        """Hold the models of the run on show and of the overlay still."""

    # -- the console

    def say(self, text: str, level: Level = "info") -> None:
        """Answer the operator in the footer."""

    def ring(self, text: str) -> None:
        """Write bytes to the terminal, outside of a frame."""

    def refresh_view(self) -> None:
        """Draw what the model holds now."""

    def show_watch(self, watch: Watch) -> None:
        """Show another of the watched runs."""

    def show_overlay(self, watch: Watch | None) -> None:
        """Draw another watched run over the charts, or none, and say so."""

    def use_theme(self, name: str) -> None:
        """Show everything in another look."""

    def use_marker(self, name: str) -> None:
        """Draw charts with other characters. Raises KeyError."""

    def goto(self, step: int) -> None:
        """Bring a step into view on the screen on show, else on the live charts."""

    def show_step(self, step: int) -> None:
        """Show a step on the live charts, or take a recording to it."""

    def next_overlay(self) -> None:
        """Draw the next of the other watched runs over the charts."""

    def run_key(self, key: Key) -> None:
        """Do what an entry of the table of keys does, after the current message."""

    def action_screen(self, ident: Where) -> None:
        """Show another screen."""

    def action_replay(self, what: str) -> None:
        """Play, stop, hasten or step a recording."""

    def action_command(self, text: str = "") -> None:
        """Open the command line with `text`."""

    def action_alarms(self) -> None:
        """List the alarms of the run on show."""

    def action_help(self) -> None:
        """Open the help."""

    def action_runs(self) -> None:
        """List the watched runs."""

    def action_leave(self) -> None:
        """End the console."""

    # -- Textual's application

    @property
    def screen(self) -> Screen[Any]:
        """The screen or dialog on top."""

    def push_screen(self, screen: Screen[R], callback: Callable[[R | None], None] | None = None) -> object:
        """Open a dialog; its result goes to `callback`."""

    def run_worker(
        self,
        work: Callable[[], None],
        name: str | None = "",
        group: str = "default",
        description: str = "",
        exit_on_error: bool = True,
        start: bool = True,
        exclusive: bool = False,
        thread: bool = False,
    ) -> Worker[None]:
        """Run `work` beside the app."""

    def call_from_thread(self, callback: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Call on the app's thread, from a worker, and wait for the result."""

    def call_after_refresh(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """Call when everything is drawn."""

    def post_message(self, message: Message) -> bool:
        """Send a message to the app, from any thread."""

    def batch_update(self) -> AbstractContextManager[None]:
        """Hold back drawing."""

    def exit(self, result: None = None, return_code: int = 0) -> None:
        """End the app."""
