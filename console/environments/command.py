"""Running one command with its output in a file, so that it can be followed meanwhile and read afterwards."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from console.errors import CommandError
from console.process.signals import Signals

_POLL_S: Final = 0.2
_END_S: Final = 10.0


class EndedBySignalError(CommandError):
    """A signal came while the command ran; it has been ended."""


def run(
    command: Sequence[str], environ: Mapping[str, str], log: Path, each: Callable[[str], None], signals: Signals,
    limit: float = float("inf"),
) -> int | None:  # fmt: skip
    """Run a command; `each` gets every line of its output as it comes, and "" five times a second.

    Returns its exit code, None when it took longer than `limit` seconds. Raises EndedBySignalError.
    """
    ends = time.monotonic() + limit
    with log.open("w") as out, log.open(errors="replace") as written:
        process = subprocess.Popen(
            command, env=dict(environ), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        rest = ""
        try:
            while True:
                code = process.poll()
                rest += written.read()
                *whole, rest = rest.split("\n")
                for line in whole:
                    each(line)
                if code is not None:
                    if rest:
                        each(rest)
                    return code
                if signals:
                    raise EndedBySignalError("", signals.exit_code)
                if time.monotonic() > ends:
                    return None
                each("")
                signals.pause(_POLL_S)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
