"""One run that the console watches: its source, what has come of it, and the thread that takes it in.

A console may watch several runs; each has a watch of its own and goes on whether it is on screen or not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from console.store.model import RunModel
from console.tui.guard import Guard
from console.tui.source import Source
from driftline.rundir import RunDir

if TYPE_CHECKING:
    from console.replay.source import Position

BATCH: Final = 500
"""Frames applied before the screens may have the model."""


class Watch:
    """A run and the model of it. The reader thread changes the model, everything else is the app's thread."""

    def __init__(self, source: Source, run: RunDir | None = None, guard: Guard | None = None) -> None:
        """`run` is the run's directory where that is on this machine; the source is the watch's to close.

        `guard` holds the sentinels of the run, where there are any.
        """
        self.source = source
        self.run_dir = run
        self.model = RunModel()
        self.lock = threading.Lock()
        """Held by whoever reads or changes the model."""
        self.guard = guard
        self.generation = 0
        """Counts how often another model has taken the place of this one: a replay that has jumped."""

    def read(self, fps: float, news: Callable[[], None], cancelled: Callable[[], bool]) -> None:
        """Drain the source into the model until cancelled; calls `news` at most `fps` times a second."""
        pause = 1.0 / fps
        told = 0.0
        while not cancelled():
            self.source.wait(max(told + pause - time.monotonic(), 0.01))
            count = self.take()
            now = time.monotonic()
            if now >= told + pause:
                told = now
                if self.guard is not None:
                    link = self.source.link()
                    with self.lock:
                        self.guard.look(self.model, now, link, settled=count < BATCH)
                news()
            if count == BATCH:
                time.sleep(0.001)  # lets the screens have the lock while a long history comes in

    def take(self) -> int:
        """Apply what has come, at most BATCH frames; returns how many."""
        frames = self.source.drain(BATCH)
        with self.lock:
            for stamped in frames:
                if stamped.seq <= self.model.head:
                    # A source gives each number once; again means that the hub's journal lost its newest frames.
                    self.model.rewind(stamped.seq - 1)
                self.model.apply(stamped)
        return len(frames)

    def position(self) -> Position | None:
        """Where a replay stands; None for a live run."""
        return None

    def replay(self, what: str) -> None:
        """Play, stop, hasten or step a recording; nothing for a live run."""

    def close(self) -> None:
        """Let go of the source."""
        self.source.close()
        if self.guard is not None:
            self.guard.close()
