"""What the installed `driftline` starts: the command line, and ctrl-C already while it is read in."""

from __future__ import annotations

from console.errors import INTERRUPTED
from console.process.interrupt import deferred_interrupt


def main() -> int:
    """Run one verb and return its exit code."""
    try:
        with deferred_interrupt():
            from console.cli import main as command
    except KeyboardInterrupt:
        return INTERRUPTED
    return command.main()
