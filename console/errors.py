"""Exit codes of the command line, and the error that carries one of them with a message of one sentence."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""A command failed or was refused, or a run failed."""
USAGE: Final = 2
"""Bad arguments or a bad configuration; nothing was started."""
NO_RUN: Final = 3
"""No such run, or no live one."""
TIMEOUT: Final = 4
"""`--wait` ran out of time; the command may still take effect until its deadline."""
NOT_PARITY: Final = 5
"""A run is outside the band of its reference."""
NOT_ENOUGH_DATA: Final = 6
"""Too few steps, or a metric that is missing, to say whether a run is at parity with its reference; too few token pairs
for a diagnosis."""
ALARM: Final = 7
"""`watch --exit-code`: a sentinel has raised an alarm."""
CAUSE: Final = 8
"""`diagnose`: a cause of the mismatch was named."""
UNEXPLAINED: Final = 9
"""`diagnose`: something is wrong that no known cause explains."""
INTERRUPTED: Final = 130
"""Ctrl-C. Like every signal's: 128 and its number, as a shell reports it (`console.process.ending`)."""


class CommandError(Exception):
    """Ends the command with `exit_code`; the message is one sentence for stderr."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
