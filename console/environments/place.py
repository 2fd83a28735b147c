"""Where environments lie, and what is there: made, half made, or not. The record of one is written last."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from console.environments.plan import interpreter
from driftline import bounded_file
from driftline.environments import RECORD as RECORD
from driftline.environments import VARIABLE as VARIABLE
from driftline.environments import root as root

INSTALLED: Final = "driftline-installed"
"""A file that says that every package is installed: its text is the digest of the pins. The check comes after it."""
_RECORD_BYTES: Final = 1 << 20


class Record(msgspec.Struct, frozen=True):
    """What is known of a made environment, for those who start vLLM in it.

    `pins` is the SHA-256 of the constraints that it was made from, `bytes` its size on the disk, `seconds` how long it
    took; `variables` have to stand in the environment of every process of this vLLM, `arguments` in its arguments.
    """

    name: str
    vllm: str
    torch: str
    python: str
    build: str
    pins: str
    made: float
    seconds: float
    bytes: int
    variables: dict[str, str] = {}
    arguments: dict[str, Any] = {}


def record(folder: Path) -> Record | None:
    """The record of a made environment; None for one that is not there, half made, or whose Python has gone."""
    try:
        found = msgspec.json.decode(bounded_file.read(folder / RECORD, _RECORD_BYTES), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if interpreter(folder).exists() else None


def installed(folder: Path, pins: str) -> bool:
    """Whether all packages of these pins are there, so that only the check is left to be done."""
    try:
        return bounded_file.read(folder / INSTALLED, _RECORD_BYTES).decode(errors="replace") == pins
    except OSError:
        return False


def write_installed(folder: Path, pins: str) -> None:
    """Say that every package is installed."""
    (folder / INSTALLED).write_text(pins)


def write_record(folder: Path, made: Record) -> None:
    """Say that the environment is whole."""
    draft = folder / f"{RECORD}.new"
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=2))
    draft.replace(folder / RECORD)


def size(folder: Path) -> int:
    """Bytes that a folder takes on the disk."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Hold the right to make or remove an environment; false where another process has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise
            yield False
        else:
            yield True
    finally:
        os.close(lock)


def users(folder: Path) -> list[int]:
    """Processes that run on this environment's Python."""
    own = str(folder) + os.sep
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = process.info["cmdline"] or [""]
        if command[0].startswith(own):
            found.append(int(process.info["pid"]))
    return found


def remove(folder: Path) -> None:
    """Delete an environment, first what says that it is whole: what an interruption leaves counts as half made."""
    for name in (RECORD, INSTALLED):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder)
