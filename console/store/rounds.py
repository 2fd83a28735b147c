"""The active rounds of a run: the newest that was asked for, and the newest whose figures have come. Pure.

A round is asked for by a command (`diagnose`), whose answer has its figures, or made by the run's trainer by itself at
an alarm, which reports an event. Both stand in the journal, so that every console knows the figures of each round.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from driftline.catalog.rounds import FAILED, MADE
from driftline.frames import TERMINAL, Ack, AckState, Command, Data, Event

OPEN_KEPT: Final = 16


class Round(msgspec.Struct, frozen=True):
    """`id` is that of its command and `by` who sent it, "" for one that the run has made by itself, for a `reason`.

    `cost` is what it was to cost, as a clause; `detail` what was said of it last. `figures` are those of an applied
    one, `step` the run's newest step when they came. `changed` names what was switched in the run since, "" for
    nothing.
    """

    id: str
    by: str
    state: AckState
    cost: str = ""
    detail: str = ""
    figures: Data = {}
    step: int = -1
    changed: str = ""
    reason: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will be said of it."""
        return self.state in TERMINAL


class Rounds:
    """`made` is the last that has figures, None before the first."""

    def __init__(self) -> None:
        self.made: Round | None = None
        self._open: dict[str, Round] = {}
        self._ended: Round | None = None
        self.revision = 0
        """Grows with everything that is heard of rounds."""

    @property
    def newest(self) -> Round | None:
        """The newest that waits or is under way, else the last that ended."""
        return next(reversed(self._open.values())) if self._open else self._ended

    def command(self, command: Command) -> None:
        """One was asked for; a command that cancels one is none."""
        if "cancel" in command.args:
            return
        self._open[command.id] = Round(command.id, command.issuer, "queued")
        while len(self._open) > OPEN_KEPT:
            del self._open[next(iter(self._open))]
        self.revision += 1

    def ack(self, ack: Ack, step: int) -> None:
        """Something was acknowledged of a command that asks for one."""
        one = self._open.get(ack.id)
        if one is None:
            return
        # The cost is said once: another acknowledgement comes when it begins.
        cost = one.cost or (ack.detail if ack.state == "accepted" else "")
        one = replace(one, state=ack.state, detail=ack.detail, cost=cost)
        if ack.state == "applied":
            one = self.made = replace(one, figures=ack.data, step=step)
        if one.over:
            del self._open[ack.id]
            self._ended = one
        else:
            self._open[ack.id] = one
        self.revision += 1

    def event(self, event: Event, step: int) -> None:
        """The run has made one by itself, or could not."""
        if event.kind not in (MADE, FAILED):
            return
        reason = str(event.data.get("reason", ""))
        if event.kind == MADE:
            figures = {name: value for name, value in event.data.items() if name != "reason"}
            self._ended = self.made = Round("", "", "applied", figures=figures, step=step, reason=reason)
        else:
            self._ended = Round("", "", "failed", detail=event.text, step=step, reason=reason)
        self.revision += 1

    def changed(self, what: str) -> None:
        """Something was switched in the run: what a round has measured was so before it."""
        if self.made is not None and not self.made.changed:
            self.made = replace(self.made, changed=what)
            self.revision += 1
