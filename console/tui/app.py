"""The console's application: the runs that it watches, and the screens over the one on show.

Each watch drains its source into its model and posts at most `fps` ticks a second, of which one at most is waiting:
screens draw at their own pace, however fast frames come. Nothing here changes a run but `send`, behind a
confirmation.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.worker import get_current_worker

from console.config import Settings
from console.gate import needs_consent
from console.outcome import NO_RUN, Failure
from console.place import Place
from console.sentinels.alarm import Alarm
from console.sentinels.watch import Sentinels
from console.store.model import CommandLife, RunModel
from console.tui import actions, appearance, keymap, lease
from console.tui.actions import Plan, RefusedError
from console.tui.bindings import TABS, Where, bindings
from console.tui.driver import ConsoleDriver
from console.tui.fixrows import FixRow, fix_rows
from console.tui.glyphs import GLYPHS
from console.tui.guard import Guards
from console.tui.history import History
from console.tui.live_source import LiveSource
from console.tui.options import app_options
from console.tui.screens import catalogue
from console.tui.screens.alarms import AlarmsScreen
from console.tui.screens.command_line import CommandLine
from console.tui.screens.confirm import ConfirmScreen
from console.tui.screens.dialog import Dialog
from console.tui.screens.help import HelpScreen
from console.tui.screens.live import LiveScreen
from console.tui.screens.picker import CorrectionPicker, FixPicker, GateScreen, ValuePicker
from console.tui.screens.run_screen import RunScreen
from console.tui.source import HeldError, Source, SourceError
from console.tui.theme import AUTO, choose
from console.tui.views.corrections import advice, correction_view, verdict_now
from console.tui.watch import Watch
from driftline.fixes import BY_ID
from driftline.frames import Level
from driftline.rundir import RunDir
from driftline.text import sanitize

NOTICE_SECONDS: Final = 6.0
EVIDENCE_SECONDS: Final = 600.0


class Tick(Message):
    """The model may have news. A waiting tick stands for all later ones."""

    bubble = False

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Tick)


class ConsoleApp(App[None]):
    """The console over one source."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings("replay", "everywhere"),
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
        theme: str = AUTO,
        guards: Guards | None = None,
        watch: Watch | None = None,
        more: Sequence[tuple[Source, RunDir | None]] = (),
        keys: Mapping[str, str] | None = None,
        history: History | None = None,
        smoothing: float = 0.0,
        reference: Sequence[str] = (),
    ) -> None:
        """`watch` is one made already, over `source`; `more` are other runs to watch beside that one.

        `fps` is the most frames a second; `clock` times the notices; `sixteen` colours, None asks the terminal.

        `guards` makes the sentinels of each run that is watched; without it nothing is.

        `keys` moves entries of the table of bindings to other keys; `history` is of the command line; `smoothing` is
        the weight of the charts' moving average to start with.

        `reference`: the runs that the one on show is held against (ids, directories, FILE.parquet).

        Raises KeyError for an unknown marker or theme, keymap.KeymapError.
        """
        glyphs = GLYPHS[marker]
        own = keys or {}
        self.keys = keymap.mapped(own)
        """The table of bindings as the operator has it."""
        self._own_keys = keymap.overrides(self.keys, own)
        self.history = history or History()
        super().__init__(driver_class=ConsoleDriver)
        self._guards = guards
        self._reference = tuple(reference)
        self.watches = [watch if watch is not None else self.watching(source, run)]
        self.watches += [self.watching(*one) for one in more]
        self.showing = self.watches[0]
        """The one on show."""
        self.glyphs = glyphs
        self.fps = fps
        self.sixteen = self.console.color_system == "standard" if sixteen is None else sixteen
        """True on a terminal of 16 colours; the panes are painted with its own then."""
        self.look = choose(theme, sixteen=self.sixteen, environ=os.environ)
        self.overlay: Watch | None = None
        """Another of the runs that are watched, drawn over the charts of the one on show."""
        self.live = LiveScreen(glyphs, smoothing)
        self._screens: dict[Where, RunScreen] = {"live": self.live}
        self._clock = clock
        self._notice: tuple[str, Level, float] | None = None
        self._following: dict[str, tuple[Watch, str]] = {}
        """Commands of this console that are not over, by id: their run, and what they are called."""

    def watching(self, source: Source, run: RunDir | None) -> Watch:
        """A watch over a run, with sentinels of its own."""
        return Watch(source, run, self._guards(source.run) if self._guards is not None else None)

    @property
    def source(self) -> Source:
        """Where the frames of the run on show come from, and its commands go."""
        return self.showing.source

    @property
    def model(self) -> RunModel:
        """The run on show."""
        return self.showing.model

    @property
    def lock(self) -> threading.Lock:
        """Held by whoever reads or changes that model."""
        return self.showing.lock

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Hold what is drawn still: the run on show and the one that is drawn over it."""
        with self.showing.lock:
            if self.overlay is None or self.overlay is self.showing:
                yield
            else:
                with self.overlay.lock:
                    yield

    @property
    def run_screens(self) -> Iterator[RunScreen]:
        """The screens that there are so far, shown or not."""
        return (screen for screen in self._screens.values() if screen.is_mounted)

    @property
    def run_dir(self) -> RunDir | None:
        """Its directory, where that is on this machine."""
        return self.showing.run_dir

    @property
    def current(self) -> RunScreen:
        """The screen on show, which may be under a dialog."""
        return next(screen for screen in reversed(self.screen_stack) if isinstance(screen, RunScreen))

    def on_mount(self) -> None:
        appearance.prepare(self)
        self.theme = self.look.theme
        self.set_keymap(self._own_keys)
        self.animation_level = "none"
        self.install_screen(self.live, "live")
        self.push_screen("live")
        for watch in self.watches:
            self.read(watch)
        if self._reference:
            self.choose_reference(self._reference)

    # -- from the source to the screens

    @work(thread=True, group="reader", name="reader")
    def read(self, watch: Watch) -> None:
        """Take in one run until the app ends."""
        worker = get_current_worker()

        def news() -> None:
            if watch is self.showing:  # the others are drawn with it, however many there are
                self.post_message(Tick())

        watch.read(self.fps, news, lambda: worker.is_cancelled)

    def on_tick(self) -> None:
        self._tell()
        self.refresh_view()

    def _tell(self) -> None:
        """Tell of new alarms: in the footer, and as was asked for at the start."""
        for watch in self.watches:
            if watch.guard is None:
                continue
            text, told, complaints = watch.guard.turn(time.monotonic())
            if text and self._driver is not None:
                # From this thread and whole: in between the bytes of a screen it would be a part of them.
                self._driver.write(text)
                self._driver.flush()
            run = f"{watch.source.run}: " if watch is not self.showing else ""
            words = [(f"{run}{alarm.line}  (! lists alarms)", alarm.level) for alarm in told[:1]]
            for words_, level in [*words, *((one, "warn") for one in complaints)]:
                self._notice = (words_, level, self._clock() + NOTICE_SECONDS)

    def refresh_view(self) -> None:
        """Draw what the model holds now: the dialog where one is open, else the screen.

        The screen under a dialog stands still: Textual sends the whole of it again for every change below the dim.
        """
        screen = next((one for one in reversed(self.screen_stack) if isinstance(one, RunScreen)), None)
        if screen is None or not screen.ready:
            return
        self._tell_ends()
        notice = None
        if self._notice is not None:
            text, level, until = self._notice
            if self._clock() < until:
                notice = (text, level)
            else:
                self._notice = None
        link = self.source.link()
        with self.drawing(), self.batch_update():
            if isinstance(self.screen, Dialog):
                self.screen.tick()
            else:
                screen.show(self.model, link, notice)

    def say(self, text: str, level: Level = "info") -> None:
        """Answer the operator in the footer for a while."""
        self._notice = (text, level, self._clock() + NOTICE_SECONDS)
        self.refresh_view()

    # -- everywhere

    def action_screen(self, ident: Where) -> None:
        """Show another screen; a dialog that is open closes without acting."""
        while isinstance(self.screen, Dialog):
            self.pop_screen()
        if ident not in self._screens:
            self._screens[ident] = catalogue.make(ident, self.glyphs)
            self.install_screen(self._screens[ident], ident)
        if self.screen is not self._screens[ident]:
            self.switch_screen(ident)

    def show_watch(self, watch: Watch) -> None:
        """Show another of the runs that are watched."""
        self.showing = watch
        if self.overlay is watch:
            self.overlay = None
        for screen in self._screens.values():
            screen.forget()
        self.refresh_view()

    def action_replay(self, what: str) -> None:
        """Play, stop, hasten or step a recording."""
        watch = self.showing
        if watch.position() is None:
            self.say("only a recording is played: driftline replay RUN")
            return
        watch.replay(what)
        self.refresh_view()

    def action_help(self) -> None:
        if not isinstance(self.screen, Dialog):
            replay = self.showing.position() is not None
            operator, where = self.source.operator, self.current.ident
            self.push_screen(HelpScreen(self.glyphs, operator=operator, where=where, keys=self.keys, replay=replay))

    def action_command(self, text: str = "") -> None:
        """Open the command line of the screen on show, with `text` typed already."""
        if not isinstance(self.screen, Dialog):
            self.current.open_command(text)

    def on_command_line_entered(self, message: CommandLine.Entered) -> None:
        from console.tui.perform import perform

        perform(self, message.action)

    def action_palette(self) -> None:
        if isinstance(self.screen, Dialog):
            return
        # Not before they are asked for: the first frame is what an operator waits for.
        from console.tui.perform import perform_entry
        from console.tui.screens.palette import Palette, entries

        offered = entries(self.keys, self.current.ident)
        palette = Palette(self.glyphs, offered, operator=self.source.operator)
        self.push_screen(palette, lambda entry: perform_entry(self, entry))

    def action_runs(self) -> None:
        if not isinstance(self.screen, Dialog):
            from console.tui.perform import list_watches

            list_watches(self)

    def show_overlay(self, watch: Watch | None) -> None:
        """Draw another watched run over the charts of the one on show, or none."""
        self.overlay = watch if watch is not self.showing else None
        self.refresh_view()

    def action_alarms(self) -> None:
        if isinstance(self.screen, Dialog):
            return
        if self.showing.guard is None:
            self.say("no sentinels are watching this run")
            return
        self.push_screen(AlarmsScreen(self.glyphs, self._sentinels), self._go_to)

    def _sentinels(self) -> Sentinels | None:
        return self.showing.guard.sentinels if self.showing.guard is not None else None

    def _go_to(self, alarm: Alarm | None) -> None:
        """Show where an alarm came from: its engine, or its step on the charts."""
        if alarm is None:
            return
        if alarm.subject in self.model.engines and any(tab.id == "engines" for tab in TABS):
            self.action_screen("engines")
        else:
            self.action_screen("live")
            if alarm.step >= 0:
                self.live.goto(alarm.step)
        self.say(alarm.line, "info")

    def action_leave(self) -> None:
        self.exit()

    # -- the reference

    def choose_reference(self, names: tuple[str, ...]) -> None:
        """Hold the run on show against other runs from now on (ids, directories, FILE.parquet), or against none."""
        watch = self.showing
        number = watch.judging.choose(names)
        self.say(f"reading {len(names)} reference run{'s' if len(names) != 1 else ''}" if names else "no reference")
        if names:
            self._load_reference(watch, number)

    @work(thread=True, group="reference", name="reference")
    def _load_reference(self, watch: Watch, number: int) -> None:
        watch.judging.load(number)
        self.call_from_thread(self._loaded, watch, number)

    def _loaded(self, watch: Watch, number: int) -> None:
        chosen = watch.judging.chosen
        if chosen.number == number and chosen.state == "failed":
            self.say(f"reference: {chosen.error}", "error")
        self.refresh_view()

    # -- acting on the run

    def ask_fix(self, fix_id: str | None, value: str | None = None) -> None:
        """Confirm the switch of one fix, after a choice where none is given, to a value where one is given."""
        if not self._may_act():
            return
        if fix_id is not None and value is not None:
            self._confirm(lambda: actions.plan_fix(self.model, fix_id, value))
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

    def ask_correction(self, value: str | None = None) -> None:
        """Confirm a correction of the objective, after a choice where none is given; twice while the backend fails."""
        if not self._may_act():
            return

        def chosen(value: str | None) -> None:
            if value is None:
                return
            with self.drawing():
                verdict = verdict_now(self.model)
            if not needs_consent(value, verdict):
                self._confirm(lambda: actions.plan_correction(self.model, value, verdict))
                return

            def consented(yes: bool | None) -> None:
                if yes:
                    self._confirm(lambda: actions.plan_correction(self.model, value, verdict))

            self.push_screen(GateScreen(self.glyphs, advice(value, verdict)), consented)

        if value is not None:
            chosen(value)
        elif not (self.model.run and self.model.run.correction):
            self.say("refused: this run's trainer says nothing of corrections", "warn")
        else:
            with self.drawing():
                view = correction_view(self.model)
            self.push_screen(CorrectionPicker(self.glyphs, view), chosen)

    def ask_sync(self) -> None:
        """Confirm a weight sync."""
        if self._may_act():
            self._confirm(lambda: actions.plan_sync(self.model))

    def ask_pause(self) -> None:
        """Confirm a pause, or the end of one."""
        if self._may_act():
            self._confirm(lambda: actions.plan_pause(self.model))

    def ask_stop(self) -> None:
        """Confirm the end of the run, with a word typed."""
        if self._may_act():
            self._confirm(lambda: actions.plan_stop(self.model))

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
        if len(self.watches) > 1:
            plan = replace(plan, target=f"run {self.source.run}: {plan.target}")
        self.push_screen(ConfirmScreen(self.glyphs, plan, self.send, self._life, self._holder))

    def _holder(self) -> str:
        """Who else holds the run, as a clause; "" for nobody."""
        holder = lease.other(self.model, self.source.session)
        return "" if holder is None else lease.holds(holder, self.source.session)

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
        watch = self.showing
        try:
            if dialog.take_over:
                watch.source.take_lease()
            command_id = watch.source.command(plan.verb, plan.args, plan.generation)
        except HeldError as error:
            self.call_from_thread(self._held, dialog, str(error))
        except SourceError as error:
            self.call_from_thread(self._sent, watch, dialog, "", str(error))
        else:
            self.call_from_thread(self._sent, watch, dialog, command_id, "")

    def _held(self, dialog: ConfirmScreen, error: str) -> None:
        """Somebody took the run while the operator was reading: ask again, for taking over."""
        if dialog.is_mounted:
            with self.lock:
                dialog.held(error.partition(";")[0])
        else:
            self.say(error, "warn")

    def _sent(self, watch: Watch, dialog: ConfirmScreen, command_id: str, error: str) -> None:
        if error:
            self.say(error, "error")
        else:
            self._following[command_id] = (watch, dialog.plan.title)
        if dialog.is_mounted:
            with self.lock:
                if error:
                    dialog.failed(error)
                else:
                    dialog.sent(command_id)

    def mark(self, text: str) -> None:
        """Note something in the journal of the run on show; it changes nothing in the run and needs no hold on it."""
        if self._may_act():
            self._mark(self.showing, text)

    @work(thread=True, group="command")
    def _mark(self, watch: Watch, text: str) -> None:
        try:
            watch.source.command("mark", {"text": text}, -1)
        except SourceError as error:
            self.call_from_thread(self.say, str(error), "error")
        else:
            self.call_from_thread(self.say, f"marked: {text}")

    def _tell_ends(self) -> None:
        """Say in the footer how commands ended whose dialog was closed before that."""
        showing = self.screen.command_id if isinstance(self.screen, ConfirmScreen) else ""
        for command_id, (watch, title) in list(self._following.items()):
            life = watch.model.commands.get(command_id)
            if life is None or not life.done:
                continue
            if command_id == showing:
                del self._following[command_id]
            elif not isinstance(self.screen, Dialog):  # the footer is behind a dialog: it waits
                del self._following[command_id]
                where = "" if watch is self.showing else f" of {watch.source.run}"
                detail = life.acks[-1].detail
                text = f"{title}{where}: {life.state}{f', {detail}' if detail else ''}"
                self._notice = (text, "info" if life.state == "applied" else "error", self._clock() + NOTICE_SECONDS)

    # -- export

    def export(
        self, table: str = "metrics", kind: str = "parquet", steps: tuple[int | None, int | None] = (None, None)
    ) -> None:
        """Write a table of the run into its snapshots; `steps` are the first and last one, None without a bound."""
        if self.run_dir is None:
            self.say("the run's journal is not on this machine; in a shell here: driftline export --run RUN", "warn")
            return
        first, last = steps
        last = max(self.model.step, 0) if last is None else last
        out = self.run_dir.snapshots / f"{table}-step{'' if first is None else f'{first}-'}{last}.{kind}"
        self.say(f"exporting to {out}")
        self._export(self.run_dir, out, table, steps)

    def action_evidence(self) -> None:
        """Write all about the run into one folder in its snapshots."""
        if self.run_dir is None:
            self.say("the run's journal is not on this machine; in a shell there: driftline evidence RUN", "warn")
            return
        self.say("gathering evidence: tables, a picture of every screen, config, audit log, summary")
        self._evidence(self.run_dir)

    @work(thread=True, exclusive=True, group="evidence")
    def _evidence(self, run: RunDir) -> None:
        # A process of its own: it draws every screen, which this one is busy with.
        command = [sys.executable, "-m", "console.cli", "evidence", str(run.path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=EVIDENCE_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            text = f"no evidence after {EVIDENCE_SECONDS:.0f} s; in a shell: driftline evidence {run.path}"
            self.call_from_thread(self.say, text, "error")
            return
        if done.returncode == 0:
            self.call_from_thread(self.say, f"evidence in {done.stdout.strip()}")
        else:
            self.call_from_thread(self.say, sanitize(done.stderr.strip().rpartition("\n")[2]), "error")

    @work(thread=True, exclusive=True, group="export")
    def _export(self, run: RunDir, out: Path, table: str, steps: tuple[int | None, int | None]) -> None:
        # Polars takes a third of a second to import, which only who exports should pay for.
        from console.export import ExportError, export

        try:
            export(run, out, table, steps=steps)
        except (ExportError, OSError) as error:
            self.call_from_thread(self.say, f"export failed: {error}", "error")
        else:
            self.call_from_thread(self.say, f"exported to {out}")


def run_console(
    runs: Sequence[Place],
    operate: bool,
    settings: Settings,
    guards: Guards | None = None,
    reference: tuple[str, ...] = (),
) -> int:
    """Show live runs on this terminal, the first at first, until the operator leaves; returns the exit code.

    That is not 0 after a crash. `guards` makes the sentinels of a run; `reference`: the runs that it is held against.
    Raises Failure when a run cannot be reached. The places stay the caller's to close.
    """
    with contextlib.ExitStack() as opened:
        sources: list[tuple[Source, RunDir | None]] = []
        for run in runs:
            try:
                source = LiveSource(run, operate=operate)
            except SourceError as error:
                raise Failure(str(error), NO_RUN) from error
            opened.callback(source.close)
            sources.append((source, run.directory))
        (first, directory), *more = sources
        app = ConsoleApp(
            first,
            run=directory,
            more=more,
            marker=settings.marker,
            fps=settings.fps,
            guards=guards,
            reference=reference,
            **app_options(settings),
        )
        for watch in app.watches:
            opened.callback(watch.close)
        app.run(mouse=settings.mouse)
    # A crash inside Textual is printed by it, and would otherwise end in 0.
    return app.return_code or 0
