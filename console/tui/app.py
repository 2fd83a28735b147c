"""The console's application: one source, one model, one reader thread, and the screens over them.

The reader drains the source into the model and posts at most `fps` ticks a second, of which one at most is waiting:
screens draw at their own pace, however fast frames come. Nothing here changes the run but `send`, behind a
confirmation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.worker import get_current_worker

from console.outcome import NO_RUN, Failure
from console.place import Place
from console.store.model import CommandLife, RunModel
from console.tui import actions
from console.tui.actions import Plan, RefusedError
from console.tui.bindings import bindings
from console.tui.driver import ConsoleDriver
from console.tui.fixrows import FixRow, fix_rows
from console.tui.glyphs import GLYPHS
from console.tui.live_source import LiveSource
from console.tui.screens.confirm import ConfirmScreen
from console.tui.screens.dialog import Dialog
from console.tui.screens.help import HelpScreen
from console.tui.screens.live import LiveScreen
from console.tui.screens.picker import FixPicker, ValuePicker
from console.tui.source import Source, SourceError
from console.tui.theme import THEME
from driftline.fixes import BY_ID
from driftline.frames import Level
from driftline.rundir import RunDir

BATCH: Final = 500
"""Frames applied before the screens may have the model."""

NOTICE_SECONDS: Final = 6.0


class Tick(Message):
    """The model may have news. A waiting tick stands for all later ones."""

    bubble = False

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Tick)


class ConsoleApp(App[None]):
    """The console over one source."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("everywhere"),
        Binding("ctrl+q,ctrl+c", "leave", show=False, priority=True),
    ]
    TITLE = "driftline"

    def __init__(
        self,
        source: Source,
        *,
        run: RunDir | None = None,
        marker: str = "braille",
        fps: float = 4.0,
        clock: Callable[[], float] = time.monotonic,
        sixteen: bool | None = None,
    ) -> None:
        """`fps` is the most frames a second; `clock` times the notices; `sixteen` colours, None asks the terminal.

        Raises KeyError for an unknown marker.
        """
        glyphs = GLYPHS[marker]
        super().__init__(driver_class=ConsoleDriver)
        self.source = source
        self.run_dir = run
        self.glyphs = glyphs
        self.fps = fps
        self.sixteen = self.console.color_system == "standard" if sixteen is None else sixteen
        """True on a terminal of 16 colours; the panes are painted with its own then."""
        self.model = RunModel()
        self.lock = threading.Lock()
        """Held by whoever reads or changes the model; the reader thread changes it, all else is the app's thread."""
        self.live = LiveScreen(glyphs)
        self._clock = clock
        self._notice: tuple[str, Level, float] | None = None

    def on_mount(self) -> None:
        self.register_theme(THEME)
        self.theme = THEME.name
        self.animation_level = "none"
        self.push_screen(self.live)
        self.read()

    # -- from the source to the screens

    @work(thread=True, exclusive=True, group="reader", name="reader")
    def read(self) -> None:
        """Drain the source until the app ends."""
        worker = get_current_worker()
        pause = 1.0 / self.fps
        posted = 0.0
        while not worker.is_cancelled:
            self.source.wait(max(posted + pause - time.monotonic(), 0.01))
            frames = self.source.drain(BATCH)
            with self.lock:
                for stamped in frames:
                    if stamped.seq <= self.model.head:
                        # A source gives each number once; again means that the hub's journal lost its newest frames.
                        self.model.rewind(stamped.seq - 1)
                    self.model.apply(stamped)
            now = time.monotonic()
            if now >= posted + pause:
                posted = now
                self.post_message(Tick())
            if len(frames) == BATCH:
                time.sleep(0.001)  # lets the screens have the lock while a long history comes in

    def on_tick(self) -> None:
        self.refresh_view()

    def refresh_view(self) -> None:
        """Draw what the model holds now: the dialog where one is open, else the screen.

        The screen under a dialog stands still: Textual sends the whole of it again for every change below the dim.
        """
        if not self.live.ready:
            return
        notice = None
        if self._notice is not None:
            text, level, until = self._notice
            if self._clock() < until:
                notice = (text, level)
            else:
                self._notice = None
        link = self.source.link()
        with self.lock, self.batch_update():
            if isinstance(self.screen, Dialog):
                self.screen.tick()
            else:
                self.live.show(self.model, link, notice)

    def say(self, text: str, level: Level = "info") -> None:
        """Answer the operator in the footer for a while."""
        self._notice = (text, level, self._clock() + NOTICE_SECONDS)
        self.refresh_view()

    # -- everywhere

    def action_live(self) -> None:
        while len(self.screen_stack) > 2:
            self.pop_screen()

    def action_help(self) -> None:
        if not isinstance(self.screen, Dialog):
            self.push_screen(HelpScreen(self.glyphs, operator=self.source.operator))

    def action_leave(self) -> None:
        self.exit()

    # -- acting on the run

    def ask_fix(self, fix_id: str | None) -> None:
        """Confirm the switch of one fix, after a choice where none is given."""
        if not self._may_act():
            return
        if fix_id is not None:
            self._ask_value(fix_id)
            return

        def rows() -> list[FixRow]:
            return fix_rows(self.model, self.glyphs)

        def chosen(fix: str | None) -> None:
            if fix is not None:
                self._ask_value(fix)

        self.push_screen(FixPicker(self.glyphs, rows), chosen)

    def _ask_value(self, fix_id: str) -> None:
        """Confirm the switch of a fix to its other value, after a choice where there are several."""
        state = self.model.fixes.get(fix_id)
        if state is None or not actions.available(state) or len(BY_ID[fix_id].values) == 2:
            self._confirm(lambda: actions.plan_fix(self.model, fix_id))
            return

        def chosen(value: str | None) -> None:
            if value is not None:
                self._confirm(lambda: actions.plan_fix(self.model, fix_id, value))

        self.push_screen(ValuePicker(self.glyphs, state), chosen)

    def ask_sync(self) -> None:
        """Confirm a weight sync."""
        if self._may_act():
            self._confirm(lambda: actions.plan_sync(self.model))

    def ask_pause(self) -> None:
        """Confirm a pause, or the end of one."""
        if self._may_act():
            self._confirm(lambda: actions.plan_pause(self.model))

    def _may_act(self) -> bool:
        try:
            actions.check(self.source.operator, self.source.link(), self.model)
        except RefusedError as error:
            self.say(str(error), "warn")
            return False
        return True

    def _confirm(self, make: Callable[[], Plan]) -> None:
        try:
            with self.lock:
                plan = make()
        except RefusedError as error:
            self.say(str(error), "warn")
            return
        self.push_screen(ConfirmScreen(self.glyphs, plan, self.send, self._life))

    def _life(self, command_id: str) -> CommandLife | None:
        return self.model.commands.get(command_id)

    def send(self, plan: Plan, dialog: ConfirmScreen) -> None:
        """Send a confirmed plan, unless the feed has gone stale while it was being read."""
        try:
            actions.check(self.source.operator, self.source.link(), self.model)
        except RefusedError as error:
            dialog.failed(str(error))
            return
        self._send(plan, dialog)

    @work(thread=True, group="command")
    def _send(self, plan: Plan, dialog: ConfirmScreen) -> None:
        try:
            command_id = self.source.command(plan.verb, plan.args, plan.generation)
        except SourceError as error:
            self.call_from_thread(self._sent, dialog, "", str(error))
        else:
            self.call_from_thread(self._sent, dialog, command_id, "")

    def _sent(self, dialog: ConfirmScreen, command_id: str, error: str) -> None:
        if error:
            self.say(error, "error")
        if dialog.is_mounted:
            with self.lock:
                if error:
                    dialog.failed(error)
                else:
                    dialog.sent(command_id)

    # -- export

    def export(self) -> None:
        """Write the metrics of the run as Parquet into its snapshots."""
        if self.run_dir is None:
            self.say("the run's journal is not on this machine; in a shell here: driftline export --run RUN", "warn")
            return
        out = self.run_dir.snapshots / f"metrics-step{max(self.model.step, 0)}.parquet"
        self.say(f"exporting to {out}")
        self._export(self.run_dir, out)

    @work(thread=True, exclusive=True, group="export")
    def _export(self, run: RunDir, out: Path) -> None:
        # Polars takes a third of a second to import, which only who exports should pay for.
        from console.export import ExportError, export

        try:
            export(run, out)
        except (ExportError, OSError) as error:
            self.call_from_thread(self.say, f"export failed: {error}", "error")
        else:
            self.call_from_thread(self.say, f"exported to {out}")


def run_console(run: Place, operate: bool, marker: str = "braille", fps: float = 4.0) -> int:
    """Show a live run on this terminal until the operator leaves; returns the exit code, not 0 after a crash.

    Raises Failure when the run cannot be reached. The place stays the caller's to close.
    """
    try:
        source = LiveSource(run, operate=operate)
    except SourceError as error:
        raise Failure(str(error), NO_RUN) from error
    try:
        app = ConsoleApp(source, run=run.directory, marker=marker, fps=fps)
        app.run(mouse=False)
    finally:
        source.close()
    # A crash inside Textual is printed by it, and would otherwise end in 0.
    return app.return_code or 0
