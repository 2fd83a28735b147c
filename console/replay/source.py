"""A recorded run as a source of frames, for the screens that show live ones (`console.connect.source.Source`)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from console.recorded.frames import frames
from console.replay.clock import Player
from console.replay.timeline import Ints, Timeline, timeline
from console.status.link_health import Link
from console.store.load import apply_portion, portions
from console.store.model import RunModel
from driftline.frames import FrameError, RunState, Stamped, Verb
from driftline.journal.holes import lacks
from driftline.journal.records import Damage, kind
from driftline.rundir import RunDir
from driftline.text import sanitize

NEAR: Final = 2_000
"""Frames ahead up to which a seek plays them at once instead of loading the run anew."""
TOKEN_STEPS: Final = 20
"""Past steps whose tokens are delivered first when tokens are turned on."""
TOKEN_FRAMES: Final = 10_000
_NAP: Final = 0.05


@dataclass(frozen=True)
class Position:
    """The position of a replay, for the bar below the screens."""

    playing: bool
    speed: float
    step: int
    time: float
    timeline: Timeline | None
    """None while the run is being opened."""


class Recording:
    """Plays a run directory. `drain` and `wait` belong to one thread, which also serves requests of the others."""

    operator = False
    session = ""

    def __init__(
        self,
        run: RunDir,
        *,
        start: int | None = None,
        speed: float = 1.0,
        playing: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at step `start` (the end, where it is None)."""
        self.directory = run
        self.run = sanitize(run.id)
        self.damage = Damage()
        self.timeline: Timeline | None = None
        self.trouble = ""
        self._missing = ""
        self._clock = clock
        self._player = Player(speed, playing=playing)
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._target: int | None = start
        """The step that another thread has requested, None without a request."""
        self._begin = start
        self._step = -1
        self._stream: Iterator[Stamped] = iter(())
        self._next: Stamped | None = None
        self._tokens: deque[Stamped] = deque(maxlen=TOKEN_FRAMES)
        self._tokens_wanted = self._past = False
        """`_past`: the tokens before the position after a seek are still to be found."""
        self._due_until = 0
        """Frames up to this number are due at once."""

    # -- the reader's thread

    def open(self) -> RunModel:
        """Read the run: its timeline, and the model at the first step to show. Raises OSError."""
        self._missing = "; ".join(lacks(self.directory))
        model = RunModel()
        known = []
        begin, head, end = 0.0, 0, 0.0
        for portion in portions(self.directory, self.damage):
            if self._begin is None:
                apply_portion(model, portion)
            known += [(stretch.places, stretch.steps) for stretch in portion.stretches]
            known += _states(portion.others)
            begin = begin or portion.first[1]
            head, end = portion.last
        self.timeline = timeline(known, head, begin, end)
        self._target = None
        if self._begin is not None:
            return self.at(self._begin)
        self._place(model)
        return model

    def take_target(self) -> int | None:
        """Take the step that another thread has requested; None without a request."""
        with self._lock:
            target, self._target = self._target, None
        return target

    def seek(self, step: int, model: RunModel) -> RunModel:
        """The model as of a step: the same model if the step is a few frames ahead, which are then due at once."""
        assert self.timeline is not None
        until = self.timeline.until(step)
        if model.head <= until <= model.head + NEAR:
            self._due_until = until
            self._changed.set()
            return model
        return self.at(step)

    def at(self, step: int) -> RunModel:
        """The model as of a step, made from the run's beginning; what follows it is played next."""
        assert self.timeline is not None
        until = self.timeline.until(step)
        model = RunModel()
        for portion in portions(self.directory, Damage(), until):
            apply_portion(model, portion)
        self._place(model)
        return model

    def _place(self, model: RunModel) -> None:
        self._stream = frames(self.directory, model.head + 1)
        self._next = next(self._stream, None)
        self._due_until = 0
        self._step = model.step
        self._past = self._tokens_wanted
        with self._lock:
            self._player.set_position(model.last_time or 0.0, self._clock())

    def drain(self, limit: int) -> list[Stamped]:
        """The frames that are due."""
        found: list[Stamped] = []
        now = self._clock()
        with self._lock:
            while (stamped := self._next) is not None and len(found) < limit:
                if stamped.seq <= self._due_until:
                    self._player.set_position(stamped.time, now)
                elif self._player.seconds_until(stamped.time, now) > 0:
                    break
                else:
                    self._player.advance(stamped.time)
                found.append(stamped)
                self._next = next(self._stream, None)
            if self._next is None:
                self._player.play(False, now)
        if self._past:
            self._past = False
            self._find_past_tokens()
        kept = []
        for one in found:
            if kind(one.body) != b"t":
                kept.append(one)
            elif self._tokens_wanted:
                self._tokens.append(one)
        return kept

    def _find_past_tokens(self) -> None:
        """Find the tokens of the newest steps before what is played next."""
        if self.timeline is None:
            self._past = True
            return
        head = self._next.seq - 1 if self._next is not None else self.timeline.last
        begin = self.timeline.until(self.timeline.neighbour(self._step, -TOKEN_STEPS)) + 1
        self._tokens.clear()
        for one in frames(self.directory, begin):
            if one.seq > head:
                break
            if kind(one.body) == b"t":
                self._tokens.append(one)

    def drain_tokens(self, limit: int) -> list[Stamped]:
        """The next Tokens frames; a jump begins anew with the steps before it."""
        return [self._tokens.popleft() for _ in range(min(limit, len(self._tokens)))]

    def wait(self, timeout: float) -> bool:
        """Block until a frame is due or a request has come, at most `timeout` seconds."""
        left = float("inf")
        with self._lock:
            if self._next is not None:
                overdue = self._next.seq <= self._due_until
                left = 0.0 if overdue else self._player.seconds_until(self._next.time, self._clock())
        if left <= 0:
            time.sleep(min(timeout, _NAP))  # the screens draw a few times a second: frames come in bunches
            return True
        self._changed.wait(min(timeout, left))
        self._changed.clear()
        return True

    def stop_with_error(self, why: str) -> None:
        """Stop after an error of reading; the frames read so far stay."""
        with self._lock:
            self.trouble = f"cannot be read: {why}"
            self._player.play(False, self._clock())
            self._next = None
            if self.timeline is None:
                self.timeline = timeline([], 0, 0.0, 0.0)

    # -- any thread

    def position(self, step: int, at: float) -> Position:
        """The position of the replay, with a model's step and time."""
        with self._lock:
            return Position(self._player.playing, self._player.speed, step, at, self.timeline)

    def play(self, playing: bool) -> None:
        """Play or pause. At the end, playing begins anew."""
        with self._lock:
            if playing and self._next is None and self.timeline is not None:
                self._target = self.timeline.first_step
            self._player.play(playing, self._clock())
        self._changed.set()

    @property
    def playing(self) -> bool:
        """Whether it plays."""
        with self._lock:
            return self._player.playing

    def change_speed(self, steps: int) -> float:
        """Change the speed; returns the new one."""
        with self._lock:
            self._player.change_speed(steps, self._clock())
            return self._player.speed

    def request_step(self, step: int) -> None:
        """Request the run as of a step."""
        with self._lock:
            self._target = step
        self._changed.set()

    def link(self) -> Link:
        with self._lock:
            word = f"REPLAY x{self._player.speed:g}" if self._player.playing else "REPLAY"
        opening = "OPENING" if self.timeline is None else word
        return Link(heard=True, age=0.0, trouble=self.trouble, replay=opening, missing=self._missing)

    def tokens(self, on: bool) -> str:
        """Follow token logprobs too."""
        if on and not self._tokens_wanted:
            self._past = True
        self._tokens_wanted = on
        self._changed.set()
        return ""

    @property
    def tokens_behind(self) -> int:
        """Always 0: tokens are not searched in the background."""
        return 0

    def command(self, verb: Verb, args: dict[str, str], generation: int) -> str:  # noqa: ARG002  a source's
        from console.connect.source import SourceError

        raise SourceError("this is a recording: nothing can be done to it")

    def take_lease(self) -> str:
        """A recording has no lease."""
        return ""

    def release_lease(self) -> None:
        """A recording has no lease."""

    def close(self) -> None:
        """Wake the reading thread, so that it can end."""
        self._changed.set()


def _states(frames_: Iterable[Stamped]) -> Iterator[tuple[Ints, Ints]]:
    """Sequence numbers and steps of the RunState frames: they may name a step before its metrics come."""
    for stamped in frames_:
        if kind(stamped.body) == b"r":
            with contextlib.suppress(FrameError):
                frame = stamped.frame()
                if isinstance(frame, RunState) and frame.step >= 0:
                    yield np.array([stamped.seq]), np.array([frame.step])
