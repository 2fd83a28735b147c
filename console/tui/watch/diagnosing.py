"""What a run's mismatch comes from, while it goes on: token pairs as they come, and the newest diagnosis.

One `Diagnosing` belongs to one watch. The reader's thread feeds it with the frames that the token store takes as well,
in constant memory; the app's thread says when a diagnosis is due, gathers the run's facts (under the model's lock) and
reads the answer; making it takes some hundredths of a second and is done on a worker's thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from console.store.model import RunModel

if TYPE_CHECKING:
    from console.diagnosis.facts import Facts
    from console.diagnosis.model import Diagnosis
    from console.diagnosis.rounds import Standing
    from console.diagnosis.watch import Watch as TokenWatch
    from console.store.rounds import Round
    from console.store.tokens.frames import LeanTokens

PAUSE: Final = 1.0
"""Seconds between two diagnoses, at least."""
SHARE: Final = 10
"""A diagnosis is made anew after so many times as long as the last one took."""


class Diagnosing:
    """The diagnosis of one run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        """Held while tokens are taken in, and while a diagnosis is made of them."""
        self._watch: TokenWatch | None = None
        self._head = 0
        self._revision = 0
        self.tokens = 0
        """Token pairs taken in since the beginning, or since a recording has jumped."""
        self.found: Diagnosis | None = None
        """The newest answer, None before the first."""
        self.by_round: Round | None = None
        """The active round that the newest answer is by, None where it is by token pairs alone."""
        self._round: Round | None = None
        """The newest round when an answer was asked for last."""
        self.error = ""
        """Why there is none, where making one has failed."""
        self._busy = False
        self._next = 0.0
        self._seen: tuple[object, ...] | None = None

    # -- the reader's thread

    def feed(self, seq: int, frame: LeanTokens) -> None:
        """Take in frame number `seq`; a number at or below the last one means that the source has gone back."""
        from console.diagnosis.watch import Watch as TokenWatch

        with self._lock:
            if self._watch is None or seq <= self._head:
                self._watch = TokenWatch()
            self._head = seq
            self._revision += 1
            try:
                self._watch.feed(frame)
                self.tokens = self._watch.tokens
            except Exception as error:  # noqa: BLE001  the reader must outlive what any producer sends
                self._watch, self.error = None, f"no diagnosis: {type(error).__name__}: {error}"

    def restart(self) -> None:
        """Another model takes the run's place, where a recording has jumped: what was found is of another time."""
        with self._lock:
            self._watch, self.found, self._seen, self._next, self.tokens = None, None, None, 0.0, 0
            self.by_round = self._round = None

    # -- the app's thread

    def due(self, model: RunModel) -> bool:
        """Whether a new diagnosis should be made now."""
        made = model.rounds.made
        if self._busy or (self._watch is None and made is None):
            return False
        # A round that has just come is what the operator waits for.
        if made is self._round and self._clock() < self._next:
            return False
        return self._seen != self._state(model)

    def gather(self, model: RunModel) -> tuple[Facts, Standing]:
        """What a diagnosis reads beside tokens; the model's lock is held."""
        from console.diagnosis.facts import facts_of
        from console.diagnosis.rounds import standing

        self._busy, self._seen, self._round = True, self._state(model), model.rounds.made
        return facts_of(model), standing(model)

    def _state(self, model: RunModel) -> tuple[object, ...]:
        # Of a round the age counts as well, which grows with the steps.
        aged = model.step if model.rounds.made is not None else -1
        return self._revision, len(model.fix_changes), len(model.engines), model.rounds.revision, aged

    # -- a worker's thread

    def diagnose(self, facts: Facts, stands: Standing) -> None:
        """Make a diagnosis of what has been taken in."""
        from console.diagnosis.looks import by_now
        from console.diagnosis.watch import Watch as TokenWatch

        started = self._clock()
        try:
            with self._lock:
                self.found = by_now(self._watch or TokenWatch(), facts, stands)
                self.by_round = stands.made if stands.counts else None
            self.error = ""
        except Exception as error:  # noqa: BLE001  the screen must outlive any run's numbers, and say what went wrong
            self.found, self.error = None, f"no diagnosis: {type(error).__name__}: {error}"
        finally:
            now = self._clock()
            self._next = now + max(PAUSE, SHARE * (now - started))
            self._busy = False
