"""Entry point of the installed `driftline`: the command line, with signals handled already during its import."""

from __future__ import annotations

import contextlib
import sys

from console.process import ending


def main() -> int:
    """Run one verb and return its exit code."""
    ending.install()
    try:
        with ending.deferred():
            from console.cli import main as command
        return command.main()
    except ending.SignalledError as signalled:
        return signalled.exit_code
    finally:
        if ending.exit_code() is not None:
            # Python flushes it after the last moment at which a thread could still end the process: here, a reader of
            # the pipe that reads no more cannot hold it up.
            with contextlib.suppress(OSError):
                sys.stdout.flush()
