"""Deadlines of commands, judged by the trainer's monotonic clock (`driftline.clocks`)."""

from __future__ import annotations

import msgspec

from driftline import clocks
from driftline.frames import Command
from trainer.errors import ExpiredError


def by_monotonic(command: Command) -> Command:
    """A command that has just arrived, with its deadline as a time of the monotonic clock; 0 is none."""
    return msgspec.structs.replace(command, deadline=clocks.by_monotonic(command.deadline))


def check_deadline(command: Command) -> None:
    """Raise ExpiredError when the deadline of a command from `by_monotonic` has passed."""
    if clocks.passed(command.deadline):
        raise ExpiredError("its deadline passed before the trainer came to it")
