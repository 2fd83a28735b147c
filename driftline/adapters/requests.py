"""What operators ask of a trainer, kept until its own step boundary.

Commands come on the probe's thread and are only sorted there: what can be answered at once is, the others wait. The
trainer's thread takes them at its boundary, where its weights belong to it alone. Until then they are not accepted, so
that the hub lets them expire by their deadlines as those of any trainer that does not come to them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from driftline import clocks
from driftline.frames import AckState, Command, Data

WAITS: Final = "waits for the trainer's step boundary"
ENDED: Final = "the run has ended"
SLICE_S: Final = 0.1
"""How long a paused trainer's thread waits at a time: between two waits Python runs its signal handlers."""

Answer = Callable[[str, AckState, str, Data], None]
"""Sends an acknowledgement: command id, state, detail, data."""


class Pause(NamedTuple):
    """A pause that is on. `ends` is by the monotonic clock, `until` the same as a wall time."""

    by: str
    ends: float
    until: float


class Requests:
    """Requests of operators to one trainer. `lease` is how many seconds a pause lasts at most."""

    def __init__(self, framework: str, lease: float, answer: Answer) -> None:
        self._lease, self._answer = lease, answer
        self._changed = threading.Condition()
        self._waiting: deque[Command] = deque()
        self._pause: Pause | None = None
        self.ended_by = ""
        """How the last pause ended."""
        self._ended = False
        engines = (
            "is the engines' to do, and none has joined this run: start them with DRIFTLINE_RUN in their environment"
        )
        self._refusals: Final = {
            "fix.set": f"a fix {engines}",
            "cache.reset": f"a cache reset {engines}",
            "digest": f"a digest {engines}",
            "correction.set": f"the objective is {framework}'s own: set it in its configuration",
            "diagnose": f"an active round takes driftline's own trainer, and this run's is {framework}",
        }

    @property
    def pause(self) -> Pause | None:
        """The pause that is on."""
        return self._pause

    # -- the probe's thread -------------------------------------------------------------------------------------------

    def take(self, command: Command) -> None:
        """Sort a command that has just come; answers it where it needs no boundary."""
        own = msgspec.structs.replace(command, deadline=clocks.by_monotonic(command.deadline))
        with self._changed:
            if self._ended:
                self._answer(own.id, "failed", ENDED, {})
            elif own.verb in self._refusals:
                self._answer(own.id, "refused", self._refusals[own.verb], {})
            elif own.verb == "resume":
                self._resume(own)
            elif own.verb == "pause" and self._pause is not None:
                self._hold(own)
            else:
                self._waiting.append(own)
                self._answer(own.id, "sent", WAITS, {})
            self._changed.notify_all()

    def _resume(self, command: Command) -> None:
        waiting = [one for one in self._waiting if one.verb == "pause"]
        if self._pause is None and not waiting:
            self._answer(command.id, "refused", "the run is not paused", {})
            return
        for one in waiting:
            self._waiting.remove(one)
            self._answer(one.id, "failed", f"resumed by {command.issuer or '?'} before the step's end", {})
        self._pause, self.ended_by = None, f"by {command.issuer or '?'}"
        self._answer(command.id, "applied", "", {})

    # -- the trainer's thread -----------------------------------------------------------------------------------------

    def next(self) -> Command | None:
        """The next command to carry out now, or None; one whose time is over is answered with that."""
        with self._changed:
            while self._waiting:
                command = self._waiting.popleft()
                if not clocks.passed(command.deadline):
                    return command
                self._answer(command.id, "expired", "its deadline passed before the trainer's step ended", {})
        return None

    def hold(self, command: Command) -> Pause:
        """Pause from now on, or renew the pause that is on."""
        with self._changed:
            return self._hold(command)

    def _hold(self, command: Command) -> Pause:
        renewed = self._pause is not None
        until = time.time() + self._lease
        self._pause = made = Pause(command.issuer or "?", time.monotonic() + self._lease, until)
        self._answer(command.id, "applied", "", {"lease_until": until, "renewed": renewed})
        return made

    def wait(self) -> None:
        """Wait a moment while the trainer is paused, and end a pause whose lease is over."""
        with self._changed:
            if self._pause is not None and not self._waiting:
                self._changed.wait(SLICE_S)
            if self._pause is not None and clocks.passed(self._pause.ends):
                self._pause, self.ended_by = None, "its lease ran out"

    def release(self, why: str) -> None:
        """End the pause: the trainer is asked to end, or is interrupted."""
        with self._changed:
            if self._pause is not None:
                self._pause, self.ended_by = None, why

    def close(self) -> None:
        """The trainer ends: what waits has failed."""
        with self._changed:
            self._ended, self._pause = True, None
            while self._waiting:
                self._answer(self._waiting.popleft().id, "failed", ENDED, {})
