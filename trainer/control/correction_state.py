"""The requested and the effective correction of the run, in one place, and their publication.

Wanted changes at once, effective between two steps only: a step is trained with one objective from its first pass to
its last. The command is answered when it is effective, never before.
"""

from __future__ import annotations

import threading
from collections import deque

from driftline.catalog.corrections import UnknownCorrectionError, check
from driftline.frames import Command, Level
from trainer.control.command_queue import ENDED, execute
from trainer.control.deadline import check_deadline
from trainer.errors import ExpiredError, RefusedError
from trainer.measure.sync_spans import Data
from trainer.report import Reporter


class CorrectionState:
    """Thread-safe: the control thread requests, the loop takes over at its boundary."""

    def __init__(self, report: Reporter, value: str) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._waiting: deque[Command] = deque()
        self._effective = value
        self._generation = 0

    @property
    def effective(self) -> str:
        """The correction that the loop trains with."""
        return self._effective

    @property
    def waiting(self) -> bool:
        """Whether a change waits for the loop."""
        return bool(self._waiting)

    def request(self, command: Command) -> None:
        """A command requests `args["value"]`; `args["despite"]` is the verdict of the parity gate, for the record.

        The answer comes from `at_boundary` or `close`. Raises RefusedError, ExpiredError.
        """
        value, by = command.args.get("value", ""), command.issuer or "?"
        try:
            check(value)
        except UnknownCorrectionError as error:
            raise RefusedError(str(error)) from error
        with self._lock:
            check_deadline(command)
            if command.generation not in (-1, self._generation):
                raise RefusedError(
                    f"the correction has changed since you looked (generation {self._generation}, you saw "
                    f"{command.generation}); look again"
                )
            self._generation += 1
            self._waiting.append(command)
            self._report.state(correction_requested=value, correction_generation=self._generation, correction_by=by)

    def at_boundary(self) -> None:
        """Between two steps, on the loop's thread: train with what is wanted from the next step on."""
        while self._waiting:
            execute(self._report, self._waiting.popleft(), self._take_over)

    def close(self) -> None:
        """The run ends: answer what waits."""
        while self._waiting:
            self._report.ack(self._waiting.popleft().id, "failed", ENDED)

    def _take_over(self, command: Command) -> Data:
        value, by, since = command.args["value"], command.issuer or "?", self._report.run.step + 1
        with self._lock:
            try:
                check_deadline(command)
            except ExpiredError:
                if not self._waiting:
                    # No other request is left: the effective correction is the requested one again.
                    self._report.state(correction_requested=self._effective)
                raise
            before, self._effective = self._effective, value
            self._report.state(correction=value, correction_since=since)
        despite = command.args.get("despite", "")
        text = f"{before} -> {value} from step {since} on, by {by}" + (f", despite: {despite}" if despite else "")
        level: Level = "warn" if despite else "info"
        self._report.event("correction.applied", text, level=level, step=since - 1, value=value, before=before, by=by)
        return {"effective": value, "since_step": since}
