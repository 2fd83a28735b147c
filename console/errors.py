"""How a command line ends: exit codes for scripts, and the one-sentence failures that carry them."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""What was asked for did not happen: a command failed or was refused, a run failed."""
USAGE: Final = 2
"""Bad arguments or a bad configuration; nothing was started."""
NO_RUN: Final = 3
"""No such run, or no live one."""
TIMEOUT: Final = 4
"""`--wait` ran out of time; the command may still take effect until its deadline."""
NOT_PARITY: Final = 5
"""A run is outside the band of its reference."""
NOT_ENOUGH_DATA: Final = 6
"""Too few steps, or a metric that is missing, to say whether a run is at parity with its reference."""
ALARM: Final = 7
"""`watch --exit-code`: a sentinel has raised an alarm."""
INTERRUPTED: Final = 130
"""Ctrl-C."""


class Failure(Exception):  # noqa: N818 - an outcome, not always an error: a timeout is one too
    """Ends the command with `code`; the message is one sentence for stderr."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code
