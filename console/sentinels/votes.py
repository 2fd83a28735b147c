"""From steps that are bad or good, one after the other, to an episode: raised by votes, cleared by calm.

What makes a step bad is left to subclasses (`metric_rules`, `missing`). An update without new steps costs a comparison,
and nothing depends on how steps were batched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from console.sentinels.alarm import Transition
from console.sentinels.kinds import StepRule
from console.store.model import RunModel
from driftline.catalog.metrics import BY_NAME

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Steps = npt.NDArray[np.int64]

CHUNK: Final = 2_000
"""Steps that are judged together, so that a long history takes little memory."""
NEAR: Final = 3
"""Largest number of steps from a mark (a fix, a sync) to an alarm whose text names it."""


class Judged(msgspec.Struct, frozen=True):
    """Some steps in a row, each of shape (n,): their values, bad, good again, the limit, and what is usual (or NaN)."""

    steps: Steps
    values: Floats
    beyond: Bools
    calm: Bools
    limit: Floats
    usual: Floats

    def vote(self, i: int) -> Vote:
        """Of step i."""
        numbers = (float(column[i]) for column in (self.values, self.limit, self.usual))
        return Vote(bool(self.beyond[i]), int(self.steps[i]), *numbers)


class Vote(msgspec.Struct, frozen=True):
    """One step of those that are counted."""

    beyond: bool
    step: int
    value: float
    limit: float
    usual: float


class StepWatch(ABC):
    """One rule over the steps of one metric, and whether it is broken."""

    def __init__(self, rule: StepRule, metric: str) -> None:
        self.metric = metric
        self._votes_of = rule
        self._last: int | None = None
        """The newest step that was judged."""
        self._votes: deque[Vote] = deque(maxlen=rule.votes)
        """Of the newest steps."""
        self._raised = False
        self._calm = 0
        self.began: Vote | None = None
        """The first bad step of the alarm that was raised last."""

    @abstractmethod
    def update(self, model: RunModel) -> list[Transition]:
        """Judge the new steps; returns the transitions of the rule."""

    @abstractmethod
    def measure(self, model: RunModel, start: int, end: int) -> Judged:
        """The steps with index start to end."""

    @abstractmethod
    def raised_text(self, model: RunModel, vote: Vote, at: int) -> str:
        """What is wrong since the step of `vote`, as seen at step `at`."""

    @abstractmethod
    def cleared_text(self, vote: Vote) -> str:
        """That it is over."""

    def excused(self, model: RunModel, vote: Vote) -> bool:  # noqa: ARG002  for subclasses
        """Whether a step is no reason for an alarm though it is bad."""
        return False

    def first_new(self, steps: Steps, newest: int) -> int:
        """The index of the first step that was not judged yet; `newest` is the one that was reported last."""
        if self._last is not None and newest < self._last:
            # The run went on from a checkpoint and reports its steps again, from after `newest` on.
            self._last = newest - 1
            self._votes.clear()
            self._calm = 0
            self.rewound()
        return 0 if self._last is None else int(np.searchsorted(steps, self._last, side="right"))

    def rewound(self) -> None:  # noqa: B027  not every subclass keeps something
        """Steps will be judged again."""

    def judge(self, model: RunModel, steps: Steps, start: int, end: int) -> list[Transition]:
        """Count the steps with index start to end, in their order."""
        transitions: list[Transition] = []
        for low in range(start, end, CHUNK):
            high = min(low + CHUNK, end)
            transitions += self._count(model, self.measure(model, low, high))
            self._last = int(steps[high - 1])
        return transitions

    def _count(self, model: RunModel, judged: Judged) -> list[Transition]:
        beyond = np.flatnonzero(judged.beyond)
        transitions: list[Transition] = []
        i, n = 0, len(judged.steps)
        while i < n:
            if self._raised:
                i = self._calmed(judged.calm, i)
                if i < n:
                    self._raised = False
                    transitions.append(self._transition(model, judged.vote(i), int(judged.steps[i]), raised=False))
                i += 1
                continue
            if not any(vote.beyond for vote in self._votes):
                # Only the next step beyond the limit matters: a healthy history costs no loop.
                self._votes.clear()
                following = int(np.searchsorted(beyond, i))
                if following == len(beyond):
                    break
                i = int(beyond[following])
            vote = judged.vote(i)
            self._votes.append(vote)
            i += 1
            broken = [one for one in self._votes if one.beyond]
            if vote.beyond and len(broken) >= self._votes_of.hold and not self.excused(model, vote):
                self._raised, self._calm = True, 0
                self._votes.clear()
                self.began = broken[0]
                transitions.append(self._transition(model, broken[0], vote.step, raised=True))
        return transitions

    def _calmed(self, calm: Bools, i: int) -> int:
        """The index from `i` on at which enough steps in a row have been calm; len(calm) if there is none yet."""
        calm, need = calm[i:], self._votes_of.clear - self._calm
        wild = np.flatnonzero(~calm)
        if (wild[0] if len(wild) else len(calm)) >= need:
            self._calm = 0
            return i + need - 1
        if not len(wild):
            self._calm += len(calm)
            return i + len(calm)
        stretches = np.diff(wild, append=len(calm)) - 1
        long = np.flatnonzero(stretches >= self._votes_of.clear)
        if len(long):
            self._calm = 0
            return i + int(wild[long[0]]) + self._votes_of.clear
        self._calm = int(stretches[-1])
        return i + len(calm)

    def _transition(self, model: RunModel, vote: Vote, at: int, *, raised: bool) -> Transition:
        text = self.raised_text(model, vote, at) + _near(model, vote.step) if raised else self.cleared_text(vote)
        return Transition(raised, self.metric, vote.step, vote.value, vote.limit, text, _time(model, vote.step), at)


def title(metric: str) -> str:
    """The catalogue's title of a metric, else its name."""
    known = BY_NAME.get(metric)
    return known.title if known is not None else metric


def figure(value: float) -> str:
    """A value in a sentence."""
    # Three digits: with two, 0.102 would read as the limit 0.1 that it is above.
    return f"{value:.3g}"


def newest_reported_step(model: RunModel) -> int:
    """The newest step that the run has reported; after a return to a checkpoint less than the highest one before."""
    ruler = model.metrics.clock.ruler("time")
    return int(ruler.steps[-1]) if ruler is not None else model.metrics.last_step()


def _time(model: RunModel, step: int) -> float:
    """Unix time of a step, on the producer's clock; of the newest frame where that is not known."""
    clock = model.metrics.clock
    ruler = clock.ruler("time")
    return clock.start + ruler.place(step) if ruler is not None else model.last_time or 0.0


def _near(model: RunModel, step: int) -> str:
    for mark in reversed(model.marks):
        if 0 <= step - mark.step <= NEAR:
            return f" ({mark.text} at step {mark.step})"
        if mark.step < step - NEAR:
            break
    return ""
