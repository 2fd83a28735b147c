"""What a producer's key covers: which frames of which kind of producer, and about whom. Pure.

    frame                 trainer      supervisor   engine            metrics
    RunState              as trainer   yes          -                 -
    Effect                as trainer   -            -                 -
    FixState              as trainer   -            its own report    -
    Ack                   as trainer   -            [3]               -
    EngineState           yes [1]      -            of its own name   -
    Span                  yes          -            of its own name   -
    Metrics, Tokens       yes          -            -                 yes
    Event                 [2]          [2]          [2]               [2]
    Command, Lease        -            -            -                 -

"as trainer": only from the producer named `trainer`, of which a run has one. [1] of an engine that does not report
itself under a key of its own. [2] by the first word of the event's kind: that of an event which says what the hub, the
supervisor or the trainer did is for that one alone (`OWNERS`); every other word is free. [3] of a command that the hub
has handed to it, which the table of commands knows. A key of several kinds covers what any of them does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from driftline.frames import (
    Ack,
    Command,
    Effect,
    EngineState,
    Event,
    FixState,
    Frame,
    Lease,
    Metrics,
    RunState,
    Span,
    Tokens,
)
from driftline.keys import HUB, TRAINER, Grant, Kind

REFUSED: Final = "hub.refused"
"""Kind of the event that a frame was refused because its key does not cover it."""

_OF_TRAINER: Final = (
    "checkpoint", "command", "correction", "engine", "fix", "rollouts", "run", "sync", "tokens", "train",
)  # fmt: skip
OWNERS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("probe", "journal", "writer", "names"), (HUB,)),
    **dict.fromkeys(("hub", "compact"), ("supervisor",)),
    **dict.fromkeys(_OF_TRAINER, ("trainer",)),
    "run": ("trainer", "supervisor"),
}
"""First word of an event's kind: the kinds of producer that may send it, beside the hub."""
_ONLY_HUB: Final = frozenset({REFUSED, "hub.bad_frame"})

_KINDS: Final[dict[type, tuple[Kind, ...]]] = {
    RunState: ("trainer", "supervisor"),
    FixState: ("trainer", "engine"),
    Effect: ("trainer",),
    Ack: ("trainer", "engine"),
    EngineState: ("trainer", "engine"),
    Span: ("trainer", "engine"),
    Metrics: ("trainer", "metrics"),
    Tokens: ("trainer", "metrics"),
    Event: ("trainer", "supervisor", "engine", "metrics"),
    Command: (),
    Lease: (),
}
"""The kinds of producer that a frame may come from at all."""
_OF_THE_RUN: Final = (RunState, FixState, Effect, Ack)


def refusal(grant: Grant, producer: str, frame: Frame, reports_itself: Callable[[str], bool]) -> str:
    """Why a key does not cover a frame sent under the name `producer`, as a clause; "" if it does.

    `reports_itself` says whether a producer of that name is connected with another key.
    """
    what = type(frame).__name__
    kinds = _fitting(grant.sends, type(frame))
    if not kinds:
        allowed = " or ".join(_KINDS[type(frame)]) or "no producer"
        return f"{what} is for {allowed}, this key is for {', '.join(grant.sends) or 'nothing'}"
    if isinstance(frame, _OF_THE_RUN) and kinds == ("trainer",) and producer != TRAINER:
        return f"{what} is about the run: only the producer '{TRAINER}' sends it, this one is '{producer}'"
    if isinstance(frame, FixState) and producer != TRAINER and [one.engine for one in frame.engines] != [producer]:
        return f"{what} of a pool: an engine that has joined sends its own report alone, this engine is '{producer}'"
    if isinstance(frame, EngineState | Span) and frame.engine != producer:
        if kinds == ("engine",):
            return f"{what} of '{frame.engine[:64]}': this engine is '{producer}'"
        if isinstance(frame, EngineState) and reports_itself(frame.engine):
            return f"{what} of '{frame.engine[:64]}', which reports itself under a key of its own"
    if isinstance(frame, Event):
        return _event_refusal(frame, kinds)
    return ""


@functools.lru_cache(maxsize=1024)
def _fitting(sends: tuple[Kind, ...], frame: type) -> tuple[Kind, ...]:
    """Those of a key's kinds that such a frame may come from; kept, because it is asked for every frame."""
    return tuple(kind for kind in sends if kind in _KINDS[frame])


def _event_refusal(event: Event, kinds: tuple[Kind, ...]) -> str:
    word = event.kind.partition(".")[0]
    owners = (HUB,) if event.kind in _ONLY_HUB else OWNERS.get(word, ())
    if not owners or not set(owners).isdisjoint(kinds):
        return ""
    return f"Event of kind '{event.kind[:64]}' is for {' or '.join(owners)}, this key is for {', '.join(kinds)}"
