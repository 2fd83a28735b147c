"""The console's application: the runs that it watches, and the screens over the one on show.

Each watch drains its source into its model and posts at most `fps` ticks a second, of which one at most is waiting:
screens draw at their own pace, however fast frames come. Nothing here changes a run: that is
`console.tui.control.acting`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.events import Key

from console.connect.source import Source
from console.process.collector import Collector
from console.settings import keymap
from console.settings.keys import Key as KeyEntry
from console.settings.keys import Where
from console.store.model import RunModel
from console.tui.bindings import bindings
from console.tui.command.history import History
from console.tui.control import appearance, navigate
from console.tui.control.alarms import Alarms
from console.tui.control.exports import Exports
from console.tui.control.reading import Opened, Opening, Reading
from console.tui.control.references import References
from console.tui.dialogs.dialog import Dialog
from console.tui.notice import Notice
from console.tui.paint.glyphs import GLYPHS
from console.tui.paint.theme import AUTO, choose
from console.tui.screens import catalogue
from console.tui.screens.base.command_line import CommandLine
from console.tui.screens.base.run_screen import RunScreen
from console.tui.screens.live.screen import LiveScreen
from console.tui.terminal.driver import ConsoleDriver
from console.tui.terminal.textual_patches import empty_caches, write_now
from console.tui.watch.watched_run import Watch
from console.tui.widgets.typing_line import TypingLine
from driftline.frames import Level
from driftline.rundir import RunDir

if TYPE_CHECKING:
    from rich.console import RenderableType

    from console.tui.control.acting import Acting
    from console.tui.watch.guard import Guards


def _collect() -> None:
    empty_caches()
    gc.collect()


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
        opening: Opening | None = None,
    ) -> None:
        """`watch` is one made already, over `source`; `more` are other runs to watch beside that one.

        `fps` is the most frames a second; `clock` times the notices; `sixteen` colours, None asks the terminal.

        `guards` makes the sentinels of each run that is watched; without it nothing is.

        `keys` moves entries of the table of bindings to other keys; `history` is of the command line; `smoothing` is
        the weight of the charts' moving average to start with.

        `reference`: the runs that the one on show is held against (ids, directories, FILE.parquet).

        `opening` is done with the watches on a worker once the first frame is on the terminal, before any of them is
        read; the GrammarError that it may raise ends the app and stands in `reading.failure` then.

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
        self.watches = [watch if watch is not None else self.watching(source, run)]
        self.watches += [self.watching(*one) for one in more]
        self.showing = self.watches[0]
        """The one on show."""
        self.glyphs = glyphs
        self.fps = fps
        self.sixteen = self.console.color_system == "standard" if sixteen is None else sixteen
        """True on a terminal of 16 colours; the panes are painted with its own then."""
        self.look = choose(theme, sixteen=self.sixteen, environ=os.environ)
        appearance.prepare(self, self.look)
        self.overlay: Watch | None = None
        """Another of the runs that are watched, drawn over the charts of the one on show."""
        self.live = LiveScreen(glyphs, smoothing)
        self._screens: dict[Where, RunScreen] = {"live": self.live}
        self.notice = Notice(clock)
        self.alarms: Alarms = Alarms(self)
        self.exports: Exports = Exports(self)
        self._acting: Acting | None = None
        self.references: References = References(self, tuple(reference))
        self.reading: Reading = Reading(self, opening)
        self._collector = Collector(collect=_collect)
        self._feed = ""
        """The state of the feed as the screen on show has it."""
        self._drawn = self._shown = False
        """Whether something of the run has been drawn, and whether that has been sent to the terminal."""
        self.leaving = False
        """True once the app has been asked to end."""

    def exit(self, result: None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        self.leaving = True
        super().exit(result, return_code, message)

    def watching(self, source: Source, run: RunDir | None) -> Watch:
        """A watch over a run, with sentinels of its own."""
        return Watch(source, run, self._guards(source.run) if self._guards is not None else None)

    @property
    def source(self) -> Source:
        """Source of the frames of the run on show, and way of its commands."""
        return self.showing.source

    @property
    def model(self) -> RunModel:
        """The run on show."""
        return self.showing.model

    @property
    def lock(self) -> contextlib.AbstractContextManager[object]:
        """Held while that model is read or changed, by any thread."""
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
    def acting(self) -> Acting:
        """Actions on the run on show."""
        if self._acting is None:
            # Not before it is asked for: the first frame is what an operator waits for.
            from console.tui.control.acting import Acting

            self._acting = Acting(self)
        return self._acting

    @property
    def current(self) -> RunScreen:
        """The screen on show, which may be under a dialog."""
        return next(screen for screen in reversed(self.screen_stack) if isinstance(screen, RunScreen))

    def on_mount(self) -> None:
        self.set_keymap(self._own_keys)
        self.animation_level = "none"
        self.install_screen(self.live, "live")
        self.push_screen("live")
        self.reading.start()

    # -- from the source to the screens

    def refresh_css(self, animate: bool = True) -> None:
        # Textual begins with a change of theme, for which it parses all again; ours has been there from the start.
        if self._shown:
            super().refresh_css(animate)

    def post_display_hook(self) -> None:
        """Called by Textual when something has been sent to the terminal."""
        self._shown = self._drawn
        if self._shown:
            self.reading.painted()

    def on_key(self, event: Key) -> None:
        """Keys that no widget has handled, before they are looked up in the table of bindings.

        Over a slow link a whole line may come at once: what is behind its `:` was on its way to a pane before the
        line was open, and an S in a word must not sync the weights.
        """
        line = self.focused
        if isinstance(line, TypingLine) and line.is_open:
            line.on_key(event)

    def on_opened(self, message: Opened) -> None:
        self.reading.opened(message.failure)

    def on_tick(self) -> None:
        self.alarms.show_new()
        self.refresh_view()
        self._collector.tick()

    def ring(self, text: str) -> None:
        """Write to the terminal what it shall ring or notify with."""
        write_now(self, text)

    def refresh_view(self) -> None:
        """Draw what the model holds now: the dialog where one is open, else the screen.

        The screen under a dialog stands still, until the feed is lost or comes back: Textual sends the whole of it
        again for every change below the dim, but no decision may rest on figures that are called live and are not.
        """
        screen = next((one for one in reversed(self.screen_stack) if isinstance(one, RunScreen)), None)
        if screen is None or not screen.ready:
            return
        if self._acting is not None:
            self._acting.report_outcomes()
        notice = self.notice.now()
        link = self.source.link()
        with self.drawing(), self.batch_update():
            dialog = self.screen if isinstance(self.screen, Dialog) else None
            if dialog is None or link.state != self._feed:
                self._feed = link.state
                screen.show(self.model, link, notice)
            if dialog is not None:
                dialog.tick()
        self._drawn = True

    def say(self, text: str, level: Level = "info") -> None:
        """Answer the operator in the footer for a while."""
        self.notice.show(text, level)
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
        if isinstance(self.screen, Dialog):
            return
        from console.tui.dialogs.help import HelpScreen  # not before it is asked for, as `acting`

        replay = self.showing.position() is not None
        operator, where = self.source.operator, self.current.ident
        self.push_screen(HelpScreen(self.glyphs, operator=operator, where=where, keys=self.keys, replay=replay))

    def action_command(self, text: str = "") -> None:
        """Open the command line of the screen on show, with `text` typed already."""
        if not isinstance(self.screen, Dialog):
            # Imported when it is asked for: the first frame is what an operator waits for.
            from console.tui.control.known import known

            self.current.open_command(text, lambda: known(self), self.history)

    def on_command_line_entered(self, message: CommandLine.Entered) -> None:
        message.request.perform(self)

    def action_palette(self) -> None:
        if not isinstance(self.screen, Dialog):
            from console.tui.control.lists import list_entries  # not before it is asked for, as `acting`

            list_entries(self, self.current.ident)

    def action_runs(self) -> None:
        if not isinstance(self.screen, Dialog):
            from console.tui.control.lists import list_watches  # as above

            list_watches(self)

    def run_key(self, key: KeyEntry) -> None:
        """Do what an entry of the table of keys does, after the current message."""
        namespace = self if key.where == "everywhere" else self.current
        self.call_next(self.run_action, key.action, namespace)

    def show_step(self, step: int) -> None:
        """Show a step on the live charts: the crosshair on it, or the recording as of it."""
        navigate.show_step(self, step)

    def goto(self, step: int) -> None:
        """Bring a step into view on the screen on show, else on the live charts."""
        navigate.goto(self, step)

    def next_overlay(self) -> None:
        """Draw the next of the other watched runs over the charts, after the last one none."""
        navigate.next_overlay(self)

    def show_overlay(self, watch: Watch | None) -> None:
        """Draw another watched run over the charts of the one on show, or none, and say so."""
        self.overlay = watch if watch is not self.showing else None
        self.say(f"over the charts: {watch.source.run}" if watch is not None else "no other run over the charts")

    def use_theme(self, name: str) -> None:
        """Show everything in another look."""
        appearance.use_theme(self, name)

    def use_marker(self, name: str) -> None:
        """Draw charts with other characters. Raises KeyError."""
        appearance.use_marker(self, name)

    def action_alarms(self) -> None:
        if not isinstance(self.screen, Dialog):
            self.alarms.open()

    def action_evidence(self) -> None:
        self.exports.evidence()

    def action_leave(self) -> None:
        self.exit()
