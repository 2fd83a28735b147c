"""One alarm: which rule, where, which value, and whether it still stands."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from console.formatting import short

State = Literal["raised", "cleared"]


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """One episode of one rule: raised once, cleared once. Replaced, never changed.

    `subject` is the metric or the engine ("" for the feed and for the steps). `step` is where it began, `value` what
    was seen there (of the metric, or seconds, or syncs, as `text` says) and `limit` its limit. `time` is
    Unix time of the hub's or producer's clock. `cleared_step` is -1 while it stands.
    """

    number: int
    rule: str
    level: Literal["warn", "error"]
    subject: str
    step: int
    value: float
    limit: float
    text: str
    time: float
    cleared_step: int = -1
    cleared_time: float = 0.0
    cleared_text: str = ""
    acknowledged: bool = False

    @property
    def state(self) -> State:
        return "cleared" if self.cleared_time else "raised"

    @property
    def line(self) -> str:
        """The whole alarm as one sentence for people."""
        at = f" at step {self.step}" if self.step >= 0 else ""
        text = f"{self.rule}{at}: {self.text}"
        return f"{text}; {self.cleared_text}" if self.cleared_time else text

    def document(self) -> dict[str, Any]:
        """The alarm as plain values for JSON."""
        return {**msgspec.to_builtins(self), "state": self.state}


class Transition(msgspec.Struct, frozen=True):
    """A rule begins or ceases to be broken; `Sentinels` makes alarms of these.

    `step` is where it began (or was over), `at` the step at which that was clear.
    """

    raised: bool
    subject: str
    step: int
    value: float
    limit: float
    text: str
    time: float
    at: int = -1


def seconds(value: float) -> str:
    """A duration as people say it: 8 s, 3 min, 2.5 h."""
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{short(value / 3600)} h"
