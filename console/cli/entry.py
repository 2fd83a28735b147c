"""Entry point of the installed `driftline`: the command line, with ctrl-C handled already during its import."""

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
