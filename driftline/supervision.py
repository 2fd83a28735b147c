"""Who looks after the processes of a run: the supervisor's lock, and the record that it leaves for others to read.

`supervisor.lock` is held for as long as a supervisor lives, however it dies; `supervisor.json` (0600) says what it
does, and goes when it ends in order. A run with this file whose lock is free has lost its supervisor.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import Final

import msgspec

from driftline import bounded_file
from driftline.rundir import RunDir, RunError, lock_refusal, write_private
from driftline.text import sanitize_struct

RECORD_BYTES: Final = 1 << 16
"""Most bytes of the record."""
DEATHS_KEPT: Final = 256
"""Most deaths of a hub in the record: its pauses allow some thirty within the window."""
# Others try the lock for a moment to see whether it is held.
_TRIES: Final = 10
_PAUSE: Final = 0.03


class HeldError(RunError):
    """Another supervisor has the run."""


class Supervision(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor does. `host` is its machine, `detached` whether the run outlives it, `steps` those asked for.

    `trainer` is True once it has started one. The hub has died `hub_deaths` times within `hub_window` seconds, the last
    time at Unix time `hub_died`, each at one of `hub_died_at` (ascending, the newest DEATHS_KEPT); it is away since
    `hub_away` (0.0: it is up), and started again at `hub_next` (0.0: no start is waited for). `takeovers` are the times
    of late at which a standby has become the supervisor.
    """

    pid: int
    host: str
    started: float
    detached: bool = False
    steps: int | None = None
    trainer: bool = False
    hub_deaths: int = 0
    hub_window: float = 0.0
    hub_died: float = 0.0
    hub_died_at: tuple[float, ...] = ()
    hub_away: float = 0.0
    hub_next: float = 0.0
    takeovers: tuple[float, ...] = ()


def read(run: RunDir) -> Supervision | None:
    """The record, None where there is none, or none that can be read."""
    try:
        data = bounded_file.read(run.supervisor_file, RECORD_BYTES)
        return sanitize_struct(msgspec.json.decode(data, type=Supervision))
    except (OSError, ValueError):
        return None


def write(run: RunDir, record: Supervision) -> None:
    """Write the record, complete or not at all. Raises OSError."""
    write_private(run.supervisor_file, msgspec.json.format(msgspec.json.encode(record)))


def lost(run: RunDir) -> bool:
    """True for a run that had a supervisor, did not end in order, and has none now. Raises RunError without locks."""
    return run.supervisor_file.exists() and not run.supervised()


def take(run: RunDir) -> int:
    """Take the lock for as long as the returned descriptor is open. Raises HeldError, RunError."""
    try:
        fd = os.open(run.supervisor_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RunError(f"{run.path}: cannot be used as a run directory: {error.strerror}") from error
    try:
        for at in range(_TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except BlockingIOError:
                if at + 1 < _TRIES:
                    time.sleep(_PAUSE)
    except OSError as error:
        os.close(fd)
        raise RunError(lock_refusal(run.supervisor_lock, error)) from error
    os.close(fd)
    record = read(run)
    holder = f"process {record.pid}" if record is not None else "another process"
    raise HeldError(f"run {run.id} has a supervisor already ({holder})")
