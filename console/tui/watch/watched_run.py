"""One run that the console watches: its source, what has come of it, and the thread that takes it in.

A console may watch several runs; each has a watch of its own and goes on whether it is on screen or not.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from console.connect.source import Source
from console.store.model import RunModel
from console.store.tokens.frames import LeanTokens, decode_lean
from console.tui.watch.diagnosing import Diagnosing
from console.tui.watch.fair_lock import FairLock
from console.tui.watch.judging import Judging
from driftline.frames import FrameError, Stamped
from driftline.rundir import RunDir

if TYPE_CHECKING:
    from console.replay.source import Position
    from console.store.tokens.ring import TokenStore
    from console.tui.watch.guard import Guard

T = TypeVar("T")

BATCH: Final = 500
"""Frames applied before the screens may have the model."""
TOKENS_BATCH: Final = 64
"""The same for frames of tokens, of which each is some thousand rows."""
TOKENS_AT_ONCE: Final = 32
"""Batches of those that are taken before the other frames have their turn again."""
HELD: Final = 0.004
"""Seconds after which the reader lets go of the lock, for a key that waits to be answered."""
SWITCH: Final = 0.001
"""Seconds that a thread may keep the interpreter from another one that wants it. The app's thread wants it anew after
each look at the terminal, several times for a key, and three threads are before it in a flood: of Python's own 5 ms
every key would wait for a dozen."""


class Watch:
    """A run and the model of it. The reader thread changes the model, everything else is the app's thread."""

    def __init__(self, source: Source, run: RunDir | None = None, guard: Guard | None = None) -> None:
        """`run` is the run's directory where that is on this machine; the source is the watch's to close.

        `guard` holds the sentinels of the run, where there are any.
        """
        self.source = source
        self.run_dir = run
        self.model = RunModel()
        self.lock = FairLock()
        """Held while the model or the tokens are read or changed, by any thread."""
        self._tokens: TokenStore | None = None
        self._making = threading.Lock()
        self.tokens_asked = False
        """True once the source was asked for tokens, whatever it said."""
        self.tokens_refused = ""
        """Why there are none, as the source said."""
        self.guard = guard
        self.judging = Judging(run)
        """The reference that the run is held against, and the verdict."""
        self.diagnosing = Diagnosing()
        """What a mismatch of the run comes from, by the tokens that have come."""
        self.generation = 0
        """Counts how often another model has taken the place of this one: a replay that has jumped."""

    @property
    def tokens(self) -> TokenStore:
        """The tokens that have come; nothing of a store is even imported before a screen shows some."""
        with self._making:
            if self._tokens is None:
                from console.store.tokens.ring import TokenStore

                self._tokens = TokenStore()
            return self._tokens

    def read(self, fps: float, news: Callable[[], None], cancelled: Callable[[], bool]) -> None:
        """Drain the source into the model until cancelled; calls `news` at most `fps` times a second."""
        sys.setswitchinterval(min(SWITCH, sys.getswitchinterval()))
        pause = 1.0 / fps
        drawn = 0.0
        while not cancelled():
            self.source.wait(max(drawn + pause - time.monotonic(), 0.01))
            count = self.take_frames()
            for _ in range(TOKENS_AT_ONCE):
                if self.take_tokens() < TOKENS_BATCH:
                    break
            now = time.monotonic()
            if now >= drawn + pause:
                drawn = now
                self.check_alarms(now, settled=count < BATCH)
                news()
            if count == BATCH:
                time.sleep(0.001)  # lets the screens have the lock while a long history comes in

    def check_alarms(self, now: float, *, settled: bool) -> None:
        """Let the sentinels see what is new, at monotonic time `now`; `settled`: no more frames are waiting."""
        if self.guard is not None:
            link = self.source.link()
            with self.lock:
                self.guard.check(self.model, now, link, settled=settled)

    def take_frames(self) -> int:
        """Apply what has come, at most BATCH frames; returns how many."""
        frames = self.source.drain(BATCH)
        self._in_turns(frames, self._apply)
        return len(frames)

    def _apply(self, stamped: Stamped) -> None:
        if stamped.seq <= self.model.head:
            # A source gives each number once; again means that the hub's journal lost its newest frames.
            self.model.rewind(stamped.seq - 1)
        self.model.apply(stamped)

    def _in_turns(self, frames: Sequence[T], put: Callable[[T], None]) -> None:
        """Put in each, and let waiting threads have the lock now and then."""
        at = 0
        while at < len(frames):
            with self.lock:
                until = time.monotonic() + HELD
                while at < len(frames):
                    put(frames[at])
                    at += 1
                    if time.monotonic() > until:
                        break

    def position(self) -> Position | None:
        """The position of a replay; None for a live run."""
        return None

    def replay(self, what: str) -> None:
        """Play, stop, hasten or step a recording; nothing for a live run."""

    def go(self, step: int) -> bool:  # noqa: ARG002  for those that can be taken there
        """Take a recording to a step; False for a live run, which is where it is."""
        return False

    def ask_tokens(self) -> None:
        """Have tokens followed from now on, for the screens that show them. May take as long as a request."""
        self.tokens_refused = self.source.tokens(True)
        self.tokens_asked = True

    def take_tokens(self) -> int:
        """Take in tokens that have come, at most TOKENS_BATCH frames; returns how many."""
        stamped = self.source.drain_tokens(TOKENS_BATCH)
        frames: list[tuple[int, LeanTokens | None]] = []
        for one in stamped:
            try:
                frames.append((one.seq, decode_lean(one.body)))
            except FrameError:
                frames.append((one.seq, None))
        for seq, frame in frames:  # first, so that what the store has, the diagnosis has as well
            if frame is not None:
                self.diagnosing.feed(seq, frame)
        self._in_turns(frames, lambda one: self.tokens.apply(*one))
        return len(stamped)

    def close(self) -> None:
        """Let go of the source."""
        self.source.close()
        if self.guard is not None:
            self.guard.close()
