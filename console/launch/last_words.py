"""Why a process of the run has ended, as far as its exit code and its log say."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Final

UNKNOWN: Final = 256
"""In place of the exit code of a process that another supervisor had started: only its parent gets to know it."""

OF_SUPERVISOR: Final = " INFO supervisor: "
"""Within a line of the supervisor in another process's log: not that one's last words."""

_LIFE: Final = "process.start: "
"""After OF_SUPERVISOR: a process of the run begins to write here. What stands before is of an earlier one."""

_ERROR_LINE: Final = re.compile(
    r"driftline(?: \w+)?: .+|trainer: .+|[\w.]*(?:Error|Exception)\b.*|.*\b(?:ERROR|FATAL|CRITICAL)\b.*"
)
_DEBUG_OR_INFO: Final = re.compile(r"\b(?:DEBUG|INFO)\b")
_PREFIX: Final = re.compile(r"^(?:driftline(?: \w+)?|trainer): ")


def opening(name: str) -> str:
    """The line of a process's log with which one of its lives begins."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')}{OF_SUPERVISOR}{_LIFE}{name}\n"


def last_words(code: int | None, log: Path) -> str:
    """A clause on the end of a process: signal or exit code, the error it wrote in this life, its log."""
    if code is not None and code < 0:
        # Killed from outside it could not write why: an error that it had reported may have nothing to do with it.
        error = last_error(log, errors_alone=True)
        reported = f"; the last error that it had reported: {error}" if error else ""
        return f"killed by {_signal_name(-code)} (signal {-code}){reported}; log: {log}"
    error = last_error(log)
    where = f"exit code {code if code != UNKNOWN else 'not known'}; log: {log}"
    return f"{error} ({where})" if error else where


def last_error(log: Path, reach: int = 65_536, *, errors_alone: bool = False) -> str:
    """The last line of a log that looks like an error, else its last one that is not a DEBUG or INFO line, else "".

    Of the last `reach` bytes, and of the process that wrote last alone. `errors_alone`: "" where none looks like an
    error. At most 300 characters.
    """
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - reach))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    begin = max((at for at, line in enumerate(lines) if f"{OF_SUPERVISOR}{_LIFE}" in line), default=-1)
    lines = [line for line in lines[begin + 1 :] if OF_SUPERVISOR not in line]
    errors = [line for line in lines if _ERROR_LINE.fullmatch(line)]
    others = [line for line in lines if not errors_alone and not _DEBUG_OR_INFO.search(line)]
    return _PREFIX.sub("", (errors or others or [""])[-1])[:300]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
