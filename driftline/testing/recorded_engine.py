"""A recording of an engine, played to a hub over a real probe."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from driftline.frames import Command
from driftline.keys import Keys
from driftline.producer.probe import Probe
from driftline.rundir import RunDir
from driftline.testing.recording import Recording, as_of
from driftline.testing.waiting import PATIENCE


class RecordedEngine:
    """Says to a hub again what an engine has said in another run.

    It is a recording, no engine: nothing samples here, and a fix that it reports as switched changes no logprob. What
    it is good for is all that lies between an engine and its console: names, keys, states of fixes, commands and
    answers.

    `play` sends the states and fixes of the recording, by `clock`'s time (Unix seconds). A command is answered as one
    of its verb was in the recording, a fix as one of the same value; where the recording has none, it is refused with
    that sentence. `taken` are the commands that came. `name` and `keys` are as for a `Probe`; the name is the
    recording's where none is given.
    """

    def __init__(
        self,
        recording: Recording,
        run: RunDir | str | Path | None,
        *,
        name: str = "",
        keys: str | Keys = "engine",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name or recording.engine
        self.recording = recording
        self.taken: list[Command] = []
        self._clock, self._next = clock, 0
        self.probe = Probe(self.name, run, keys=keys, on_command=self._answer)

    def play(self, seconds: float = float("inf")) -> int:
        """Send what comes up to `seconds` after the first frame of the recording; return how many frames that were.

        It does not wait: the time between two frames is that between two calls.
        """
        moments, before = self.recording.moments, self._next
        while self._next < len(moments) and moments[self._next].at <= seconds:
            self.probe.send(as_of(moments[self._next].frame, self.name, self._clock()))
            self._next += 1
        return self._next - before

    def again(self) -> None:
        """Begin the recording anew with the next `play`."""
        self._next = 0

    def close(self, timeout: float = 2.0) -> None:
        """Leave, as an engine does whose process has ended."""
        self.probe.close(timeout)

    def _answer(self, command: Command) -> None:
        """On the probe's thread."""
        self.taken.append(command)
        answer = self.recording.answer(command.verb, command.args)
        if answer is None:
            asked = " ".join((command.verb, *(f"{key}={value}" for key, value in command.args.items())))
            self.probe.ack(command.id, "refused", f"this recording has no answer to {asked}")
            return
        for frame in answer.frames:
            self.probe.send(as_of(frame, self.name, self._clock(), command.id))

    def __enter__(self) -> Self:
        self.play()
        self.probe.flush(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
