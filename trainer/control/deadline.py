"""Deadlines of commands, judged by the trainer's monotonic clock.

The wire carries a wall time, of a clock that may jump. It is looked at once, when a command arrives; what is left then
is what the command has.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec

from driftline.frames import Command
from trainer.errors import ExpiredError

_PASSED: Final = 1e-9
"""A time of the monotonic clock, which begins near 0 with the machine, that has passed; 0 would be no deadline."""


def by_monotonic(command: Command) -> Command:
    """A command that has just arrived, with its deadline as a time of the monotonic clock; 0 is none."""
    if command.deadline <= 0:
        return command
    ends = time.monotonic() + command.deadline - time.time()
    return msgspec.structs.replace(command, deadline=max(ends, _PASSED))


def passed(deadline: float) -> bool:
    """Whether a deadline that `by_monotonic` gave has passed."""
    return 0 < deadline < time.monotonic()


def check_deadline(command: Command) -> None:
    """Raise ExpiredError when the deadline of a command from `by_monotonic` has passed."""
    if passed(command.deadline):
        raise ExpiredError("its deadline passed before the trainer came to it")
