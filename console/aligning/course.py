"""How far an alignment has come: which commands are due, what came of each, and when its effect can be read. Pure.

    course = Course(made, step)
    for order in course.due(): course.sent(order, send(order))
    course.heard(command_id, state, detail)      # each acknowledgement
    course.look(step)                            # the newest step, now and then

What was not accepted ends it: commands that are under way are waited for, and no other one is sent. What has been set
by then stays, is named, and is set back by undoing.
"""

from __future__ import annotations

from typing import Final, Literal

from console.aligning.effect import SETTLE, WINDOW
from console.aligning.plan import Alignment, Order, batches
from driftline.frames import TERMINAL, AckState

Progress = Literal["waiting", "sending", "queued", "sent", "accepted", "applied", "failed", "refused", "expired"]

BAD: Final[frozenset[str]] = frozenset({"failed", "refused", "expired"})


class Course:
    """One alignment under way."""

    def __init__(self, made: Alignment, step: int) -> None:
        """`step`: the newest step of the run as it is asked for."""
        self.made = made
        self.begun = step
        self.ended: int | None = None
        """The newest step when the last command was applied, None before."""
        self.newest = step
        self._batches = batches(made)
        self.orders = [order for batch in self._batches for order in batch]
        self._states: dict[str, Progress] = {}
        self._details: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        """Commands by id, as they are called."""
        self.error = ""
        """Why it ended before all was applied, as a sentence."""

    def state(self, order: Order) -> Progress:
        """How far one command has come."""
        return self._states.get(order.what, "waiting")

    def detail(self, order: Order) -> str:
        """What was said of it last."""
        return self._details.get(order.what, "")

    @property
    def ids(self) -> list[str]:
        """Commands that are not over."""
        return [number for number, what in self._ids.items() if self._states[what] not in TERMINAL]

    @property
    def sent_ids(self) -> frozenset[str]:
        """All commands that were sent."""
        return frozenset(self._ids)

    @property
    def over(self) -> bool:
        """Whether no command will be sent any more and none is under way."""
        return not self._under_way() and (bool(self.error) or self.applied)

    @property
    def applied(self) -> bool:
        """Whether every command was applied."""
        return all(self.state(order) == "applied" for order in self.orders)

    @property
    def watched(self) -> bool:
        """Whether as many steps have come since as its effect is read over."""
        return self.ended is not None and self.newest >= self.ended + SETTLE + WINDOW

    def _under_way(self) -> bool:
        return any(state not in (*TERMINAL, "waiting") for state in self._states.values())

    def due(self) -> list[Order]:
        """The commands to send now, in order; none while those before them are not over."""
        if self.error or self._under_way():
            return []
        for batch in self._batches:
            if any(self.state(order) != "applied" for order in batch):
                found = [order for order in batch if self.state(order) == "waiting"]
                self._states |= dict.fromkeys((order.what for order in found), "sending")
                return found
        return []

    def sent(self, order: Order, command_id: str) -> None:
        """The hub has taken a command under this id."""
        self._ids[command_id] = order.what
        if self.state(order) == "sending":
            self._states[order.what] = "queued"

    def refused(self, order: Order, why: str) -> None:
        """The hub has not taken it; those of its batch that were to follow are not sent."""
        self._states[order.what], self._details[order.what] = "refused", why
        for what, state in list(self._states.items()):
            if state == "sending":
                self._states[what] = "waiting"
        self.error = self.error or why

    def heard(self, command_id: str, state: AckState, detail: str = "") -> None:
        """An acknowledgement of one of its commands."""
        what = self._ids.get(command_id)
        if what is None or self._states[what] in TERMINAL:
            return
        self._states[what], self._details[what] = state, detail
        if state in BAD:
            self.error = self.error or f"{what}: {state}{f': {detail}' if detail else ''}"

    def look(self, step: int) -> None:
        """The newest step of the run."""
        self.newest = max(self.newest, step)
        if self.ended is None and self.applied:
            self.ended = self.newest

    @property
    def standing(self) -> str:
        """Where it stands, as a clause for people."""
        done = sum(self.state(order) == "applied" for order in self.orders)
        if self.error:
            return f"{done} of {len(self.orders)} applied; {self.error}"
        if not self.applied:
            return f"{done} of {len(self.orders)} applied"
        return "all applied"
