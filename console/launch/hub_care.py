"""Keeps one hub alive: notices that it has died or hangs, and starts it again, for as long as the run lasts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from console.launch.children import Child
from console.launch.pulse import Pulse
from console.launch.restarts import Backoff, Restarts
from driftline.rundir import RunDir, RunError

START: Final = 30.0
"""Seconds for a hub to bind its sockets; doubled each time in a row that one does not, up to START_MOST: a long journal
on a slow disk may take longer, and must come up in the end."""
START_MOST: Final = 960.0
SILENT: Final = 20.0
"""Seconds without an answer after which a hub that is up counts as hung."""
_TURN: Final = 1.0
"""A turn of the loop counts as waiting up to this long: if this process was stopped, the hub is not to blame."""


class HubCare:
    """`start` starts a hub process, `last_words` tells of its end, `report` makes an event of the run."""

    def __init__(
        self,
        run: RunDir,
        backoff: Backoff,
        *,
        start: Callable[[Sequence[str]], Child],
        last_words: Callable[[int | None], str],
        report: Callable[[str, str], None],
    ) -> None:
        self._run = run
        self._start, self._last_words, self._report = start, last_words, report
        self._command: Sequence[str] = ()
        self._restarts = Restarts(backoff)
        self._pulse = Pulse(run)
        self._away_since: float | None = None
        self._waited = 0.0
        self._turned: float | None = None
        self._patience = START
        self._hung = ""
        self._seen_up = 0
        self.child: Child | None = None

    def carry(self, ages: Iterable[float]) -> None:
        """Go on with the deaths that another supervisor has counted, `ages` seconds ago."""
        self._restarts.carry(ages, time.monotonic())

    def begin(self, command: Sequence[str], child: Child | None = None) -> None:
        """Start the hub by this command; `child` is one that lives already, or has ended. Raises OSError."""
        self._command = command
        self.child = self._start(command) if child is None else child
        self._waited = 0.0

    @property
    def deaths(self) -> int:
        """Deaths within the window, as of the newest."""
        return self._restarts.deaths

    @property
    def ages(self) -> list[float]:
        """Seconds since each of those deaths, the oldest first."""
        return self._restarts.ages(time.monotonic())

    @property
    def window(self) -> float:
        """Seconds for which a death counts."""
        return self._restarts.window

    @property
    def away(self) -> float | None:
        """Seconds since the hub has gone, None while there is one."""
        return None if self._away_since is None else time.monotonic() - self._away_since

    @property
    def next_start(self) -> float | None:
        """Seconds until the next start, None while none is waited for."""
        due = self._restarts.next
        return None if due is None else max(0.0, due - time.monotonic())

    def up(self) -> bool:
        """True while the hub of this run lives and has bound its sockets."""
        # The connection file may be one of an earlier hub on this directory, even damaged or of another version: only
        # the pid says which hub wrote it.
        hub = self.child
        if hub is None or hub.poll() is not None:
            return False
        try:
            live = self._run.live() and self._run.connection_file.exists()
            return live and self._run.connection().pid == hub.pid
        except RunError:  # no locks here, or an unreadable connection: the hub itself says so
            return False

    def turn(self) -> str:
        """Start a hub again that has died, after a pause that grows with its deaths; replace one that hangs.

        Call it often, in every phase. Returns a sentence, "" when nothing is new. Never raises because of the hub.
        """
        hub = self.child
        if hub is None:
            return ""
        if hub.poll() is None:
            return self._look(hub)
        now = time.monotonic()
        again, news = self._restarts, ""
        if not again.waiting:
            self._pulse.watch(0)
            if self._away_since is None:
                self._away_since = now
            pause = again.died(now)
            why, self._hung = self._hung or self._last_words(hub.poll()), ""
            news = f"the hub has died and is started again {again.text(pause)}; the run goes on without it: {why}"
            self._report("hub.died", news)
        if again.due(now):
            again.started()
            try:
                self.begin(self._command)
            except OSError as error:
                # The dead hub stays the newest one, and so its next start is due after a longer pause.
                news = f"{news}; " if news else ""
                news += f"the hub cannot be started: {error}"
        return news

    def close(self) -> None:
        """Stop asking it for answers."""
        self._pulse.close()

    def _look(self, hub: Child) -> str:
        """At a hub that lives: a sentence when it is back; kill it where it hangs, which `turn` sees as its death."""
        now = time.monotonic()
        self._waited += min(now - (self._turned or now), _TURN)
        self._turned = now
        if self._seen_up == hub.pid or self.up():
            self._seen_up, self._waited = hub.pid, 0.0
            self._pulse.watch(hub.pid)
            if (silent := self._pulse.silent) > SILENT:
                self._kill(hub, f"its process lives, but it did not answer for {silent:.0f} s")
                return ""
            return self._back()
        if self._waited > self._patience:
            self._kill(hub, f"its process lives, but it had not bound its sockets after {self._patience:.0f} s")
            self._patience = min(2 * self._patience, START_MOST)
        return ""

    def _kill(self, hub: Child, why: str) -> None:
        self._hung = f"{why}, and was killed"
        with contextlib.suppress(ProcessLookupError):
            hub.kill()

    def _back(self) -> str:
        if self._away_since is None:
            return ""
        seconds = time.monotonic() - self._away_since
        self._away_since = None
        self._patience = START
        news = f"the hub is back after {seconds:.1f} s; frames that producers held meanwhile follow"
        self._report("hub.back", news)
        return news
