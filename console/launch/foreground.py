"""A run and who follows it: starts it, or takes it over, shows its frames, ends with it.

Four forms of the same loop: lines of text (no terminal, or --headless), the console over the run (a process of its
own, as any `driftline attach`: when it is quit or dies the run goes on, and so does this loop, as lines), a hook that
is called with every frame (the demonstration's operator, which must not wait for anything), and nothing at all (the
supervisor of a detached run). Whatever is printed goes through a thread, so that a stopped terminal stops nothing.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from console.errors import FAILED, OK, CommandError
from console.launch.console_child import ConsoleChild
from console.launch.last_words import UNKNOWN
from console.launch.printer import Printer
from console.launch.restarts import HUB, Backoff
from console.launch.supervisor import Supervisor
from console.process.signals import Signals
from console.status.progress import Progress
from console.status.step_lines import Lines
from driftline.client import Client, ClientError, Feed, attach
from driftline.config import HubConfig
from driftline.frames import Frame, FrameError, RunState, Stamped
from driftline.producer.probe import Probe
from driftline.rundir import RunDir, RunError
from driftline.supervision import Supervision

Hook = Callable[[Stamped, Frame], None]
ENDED: Final = frozenset({"finished", "failed"})
UNSAID: Final = 20
"""Newest sentences about the hub that are kept while a console owns the terminal."""
LAST_FRAMES_SECONDS: Final = 3.0
"""Seconds for the last frames of an ended trainer to arrive."""


class Session:
    """One run in the foreground, from its hub's start to its end."""

    def __init__(
        self,
        run: RunDir,
        signals: Signals,
        *,
        hook: Hook | None = None,
        hub_backoff: Backoff = HUB,
        lines: bool = True,
        record: Supervision | None = None,
        lock: int = -1,
    ) -> None:
        """`lines` False: no frame is printed. `record` and `lock`: see Supervisor."""
        self.run = run
        self.signals = signals
        self.progress = Progress()
        self._printer = Printer(lasting=record is not None)
        self.supervisor = Supervisor(
            run, say=self._say, hurried=self._hurried, hub_backoff=hub_backoff, record=record, lock=lock
        )
        self.state: RunState | None = None
        self._shows = lines
        self._hook = hook
        self._lines = Lines()
        self._quiet = True
        self._console_shown = False
        self._cleaned_up = self._end_reported = False
        self._feed: Feed | None = None
        self._unsaid: deque[str] = deque(maxlen=UNSAID)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._feed is not None:
            self._feed.close()
        self.supervisor.stop()
        # A pipe whose reader has gone ends the command, as everywhere; a second ctrl-C does not wait for a terminal.
        self._printer.submit(self.progress.done)
        self._printer.close(hurried=self._hurried)

    def start(self, hub: HubConfig, *, steps: int | None) -> bool:
        """Start hub and trainer and wait until the run runs or ends. False on a signal. Raises CommandError."""
        self._progress("starting the hub")
        if not self.supervisor.start_hub(hub, cancelled=self.signals.__bool__):
            return False
        self._feed = self._open_feed()
        if self._feed is None:
            return False
        return self._start_trainer(steps)

    def take_over(self, hub: HubConfig, *, steps: int | None) -> bool:
        """Go on with a run whose supervisor has gone, wherever that was. False on a signal. Raises CommandError."""
        started = self.supervisor.take_over(hub)
        self._feed = self._open_feed(known=True)
        if self._feed is None:
            return False
        return started or self._start_trainer(steps)

    def _start_trainer(self, steps: int | None) -> bool:
        self._progress("starting the trainer")
        self.supervisor.start_trainer(steps=steps)
        while not self.signals and self.supervisor.poll("trainer") is None:
            self._handle_frames(0.1)
            # A hub that dies here would take with it every state that is waited for.
            self._keep_hub()
            if self.state is not None and self.state.status != "starting":
                break
            self._progress((self.state.detail if self.state is not None else "") or "starting the trainer")
        self._printer.submit(self.progress.done)
        return not self.signals

    def _open_feed(self, *, known: bool = False) -> Feed | None:
        """The feed of all frames, over any number of deaths of the hub; None on a signal. Raises CommandError.

        `known`: only of frames from now on, after the state that the hub knows.
        """
        while not self.signals:
            try:
                connection, keys = attach(self.run, "viewer")
                since = 1
                if known:
                    with Client(connection, keys) as client:
                        snapshot = client.snapshot()
                    states = [frame for stamped in snapshot.states if isinstance(frame := stamped.frame(), RunState)]
                    self.state, since = states[-1] if states else None, snapshot.head + 1
                return Feed(connection, keys, since=since, refresh=self.run.connection)
            except ClientError as error:
                if self.supervisor.hub_up() and not known:
                    raise CommandError(str(error)) from error
            except RunError:
                if self.supervisor.hub_up():
                    raise
            self._keep_hub()
            self.signals.pause(0.05)
        return None

    def watch(self, screen: ConsoleChild | None = None) -> int:
        """Until the run ends: under the console, if there is one, then as lines. Returns the exit code."""
        if screen is not None:
            self._show_console(screen)
        self._quiet = not self._shows
        while not self.signals and self.supervisor.poll("trainer") is None:
            self._handle_frames(0.2)
            self._keep_hub()
        return self._ended()

    def _show_console(self, screen: ConsoleChild) -> None:
        self._console_shown = True
        try:
            with screen:
                while not self.signals and screen.poll() is None:
                    self._handle_frames(0.2)
                    self._keep_hub()
                    if self.supervisor.poll("trainer") is not None:
                        self._clean_up(screen.pids)
        finally:
            self._console_shown = False
        if not self.signals and self.supervisor.poll("trainer") is None:
            path = shlex.quote(str(self.run.path))
            self._print(
                f"run {self.run.id} goes on; the console again: driftline attach {path} --operate\n"
                f"ctrl-C here ends the run"
            )

    def _hurried(self) -> bool:
        return self.signals.count > 1

    def _say(self, text: str) -> None:
        # What it is about must happen even where it cannot be said: the end of the run, behind a closed pipe.
        with contextlib.suppress(OSError):
            if not self._console_shown:
                self._progress(text)

    def _progress(self, text: str) -> None:
        self._printer.submit(lambda: self.progress.update(text))

    def _print(self, text: str) -> None:
        # As one write: the demonstration's operator prints beside it.
        self._printer.submit(lambda: print(f"{text}\n", end="", flush=True))

    def _print_news(self, text: str) -> None:
        self.progress.done()
        print(f"driftline: {text}", file=sys.stderr, flush=True)

    def _keep_hub(self) -> None:
        news = self.supervisor.keep_hub()
        if news:
            self._unsaid.append(news)
        # Nothing may be printed while the console owns the terminal; it shows a missing hub itself.
        while self._unsaid and not self._console_shown:
            self._printer.submit(partial(self._print_news, self._unsaid.popleft()))

    def _handle_frames(self, seconds: float) -> bool:
        """Wait for frames, print them and call the hook; True if there were any."""
        if self._feed is None:
            return False
        self._feed.wait(seconds)
        some = False
        for stamped in self._feed.drain():
            some = True
            try:
                frame = stamped.frame()
            except FrameError:
                # A kind that this console does not know; the journal keeps it.
                continue
            if isinstance(frame, RunState):
                self.state = frame
            if not self._quiet:
                for text in self._lines.format(stamped, frame):
                    self._print(text)
            if self._hook is not None:
                self._hook(stamped, frame)
        return some

    def _clean_up(self, spare: Sequence[int] = ()) -> None:
        """After the trainer's end: end its remaining processes, and report its failure if it did not do so itself."""
        if self._cleaned_up:
            return
        self._cleaned_up = True
        while self._handle_frames(0.2):
            pass
        self.supervisor.clear(spare)
        self._end_reported = self.state is not None and self.state.status in ENDED
        if self.supervisor.poll("trainer") == 0 or self._end_reported:
            return
        words = self.supervisor.last_words("trainer")
        last = self.state or RunState(self.run.id, "failed", 0, 0, 0, 0.0)
        # Sent with the trainer's own key: consoles show the trainer's state, and it can no longer send one itself.
        probe = Probe("trainer", self.run)
        probe.event("run.died", f"the trainer has died: {words}", "error", last.step)
        probe.send(replace(last, status="failed", detail=f"the trainer has died: {words}", time=time.time()))
        deadline = time.monotonic() + LAST_FRAMES_SECONDS
        while not probe.flush(0.2) and time.monotonic() < deadline:
            self._keep_hub()
        probe.close()

    def _ended(self) -> int:
        if self.signals:
            return self.signals.exit_code
        self._clean_up()
        # The hub has acknowledged the trainer's last frames before it ended; they only have to arrive here.
        deadline = time.monotonic() + LAST_FRAMES_SECONDS
        while time.monotonic() < deadline and (self._handle_frames(0.2) or self.supervisor.poll("hub") is not None):
            self._keep_hub()
        code = self.supervisor.poll("trainer")
        if code == 0 or (code == UNKNOWN and self.state is not None and self.state.status == "finished"):
            return OK
        if self._end_reported:
            detail = self.state.detail if self.state is not None else ""
            raise CommandError(f"the run has failed: {detail} (log: {self.supervisor.log('trainer')})", FAILED)
        raise CommandError(f"the trainer has died: {self.supervisor.last_words('trainer')}", FAILED)
