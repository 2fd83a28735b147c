"""Follows the files that a trainer writes, and reports them to a hub as that trainer's own frames.

Frames go out in the order of steps, so that numbers of token pairs, which come from other files, stand beside the
numbers of their step: a step's numbers wait a while for its pairs. Nothing of the followed run is touched: files are
only read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from console.following.growing_log import GrowingLog
from console.importing.pair_frames import pair_frames
from console.importing.rows import LogImportError
from console.importing.token_files import TokenFiles
from driftline.frames import Command, Event, Frame, Level, Metrics, RunState, RunStatus, Tokens
from driftline.producer.probe import Probe
from driftline.rundir import RunDir
from driftline.text import plural, sanitize

PAUSE: Final = 1.0
"""Seconds between two looks at the files."""
SHARE: Final = 20
"""Files that take a second to look through are looked through every SHARE seconds at most: five per cent of a core."""
HOLD: Final = 20.0
"""Seconds for which a step's numbers wait for its token pairs, where the run writes these."""
FULL: Final = 16 * 1024 * 1024
"""Bytes that may wait for the hub: the files are there, nothing needs to be dropped for want of memory."""
READ_ONLY: Final = "this run is followed by its files: nothing in it takes commands"


@dataclass(frozen=True, slots=True)
class _Held:
    """Frames of one step and kind that are not sent yet, since monotonic time `since`."""

    life: int
    step: int
    rank: int
    frames: tuple[Metrics | Tokens, ...]
    since: float


class Follower:
    """Reports the log at `path` to the hub of `run`. Call `step` again and again, then `close`.

    `stopped` is called while there is a wait for the hub; True ends that wait, and what is not sent is left out.
    """

    def __init__(
        self,
        run: RunDir,
        path: Path,
        *,
        step: str | None = None,
        only: str | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._run, self._path, self._stopped = run, path, stopped
        self._log = GrowingLog(path, step, only)
        self._tokens = TokenFiles(path, only)
        self._rng = np.random.default_rng(0)
        self._held: list[_Held] = []
        self._life = 0
        self._newest_pairs = -1
        self._last_step = 0
        self._said: set[str] = set()
        self._due = 0.0
        self._closed = False
        self._probe = Probe("trainer", run, on_command=self._refuse)
        self._send_state("starting", f"waiting: {self._log.waiting}")

    @property
    def waiting(self) -> str:
        """Why nothing was read yet, "" once something was."""
        return "" if self._newest_pairs >= 0 else self._log.waiting

    @property
    def last_step(self) -> int:
        """The newest step that was sent."""
        return self._last_step

    def step(self, ended: bool = False) -> bool:
        """Look at the files once, if it is time; True where anything new was sent. `ended`: they do not grow any more.

        Raises LogImportError for files that can never be followed.
        """
        now = time.monotonic()
        if now < self._due and not ended:
            return False
        self._take_log(now)
        self._take_pairs(now, ended)
        looked = time.monotonic()
        self._due = looked + max(PAUSE, SHARE * (looked - now))
        sent = False
        for frame in self._ready(now, ended):
            if not self._send(frame):
                break
            sent = True
        if sent:
            self._report()
        return sent

    def close(self, seconds: float) -> bool:
        """Say that the run is no longer followed; False where the hub did not take all of it within `seconds`.

        From any thread: a `step` that goes on in another one sends nothing any more.
        """
        self._closed = True
        if self._last_step or not self.waiting:
            for line in self._log.left_out:
                self._say("warn", "import.left_out", f"left out: {line}")
        self._send_state("finished", "no longer followed")
        taken = self._probe.flush(seconds)
        self._probe.close(0.1)
        return taken

    def _take_log(self, now: float) -> None:
        for life, frame in self._log.poll():
            self._life = max(life, self._life)
            self._held.append(_Held(life, frame.step, 0, (frame,), now))

    def _take_pairs(self, now: float, ended: bool) -> None:
        try:
            for found in self._tokens.poll(ended):
                self._newest_pairs = max(self._newest_pairs, found.step)
                for line in found.left_out.lines():
                    self._say("warn", "import.left_out", f"step {found.step}: left out: {line}")
                if frames := tuple(pair_frames(found, self._rng)):
                    self._held.append(_Held(self._life, found.step, 1, frames, now))
        except OSError as error:
            raise LogImportError(f"{error.filename or self._path}: {error.strerror or error}") from error

    def _ready(self, now: float, ended: bool) -> Iterator[Frame]:
        """What may go: in the order of steps, and not before its pairs where the run writes pairs."""
        self._held.sort(key=lambda one: (one.life, one.step, one.rank))
        waits = [
            one
            for one in self._held
            if not ended
            and one.rank == 0
            and 0 <= self._newest_pairs < one.step
            and one.life == self._life
            and now - one.since < HOLD
        ]
        first = waits[0] if waits else None
        ready = self._held if first is None else self._held[: self._held.index(first)]
        self._held = [] if first is None else self._held[len(ready) :]
        for one in ready:
            self._last_step = one.step
            yield from one.frames

    def _report(self) -> None:
        """The state of the run, and once each how its log is read."""
        self._send_state("running", f"followed: {self._log.kind or 'token files'} {self._log.title}".rstrip())
        for line in self._log.notes:
            self._say("info", "import.note", line)
        own = sorted(sanitize(name) for name, target in self._log.targets.items() if not target.known)
        if own:
            shown = ", ".join(own[:40]) + ("" if len(own) <= 40 else f" and {plural(len(own) - 40, 'more name')}")
            self._say("info", "import.names", f"kept under their own names: {shown}")

    def _say(self, level: Level, kind: str, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._probe.send(Event(time.time(), level, kind, text, self._last_step))

    def _send(self, frame: Frame) -> bool:
        """Send a frame once there is room: the ring drops what does not fit, and here nothing has to be dropped.

        False where the end was asked for meanwhile.
        """
        while self._probe.stats.queued_bytes > FULL:
            if self._closed or self._stopped():
                return False
            time.sleep(0.01)
        if not self._closed:
            self._probe.send(frame)
        return not self._closed

    def _send_state(self, status: RunStatus, detail: str) -> None:
        step = self._last_step
        self._probe.send(RunState(self._run.id, status, step, 0, -1, time.time(), detail=sanitize(detail)))

    def _refuse(self, command: Command) -> None:
        self._probe.ack(command.id, "refused", READ_ONLY)
