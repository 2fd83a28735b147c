"""Ending a run of this machine from outside: whose it is, where it runs, what is left of it, and by force."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from typing import Final

import psutil

from console.errors import FAILED, CommandError
from console.launch import children
from console.process import tree as processes
from driftline import supervision
from driftline.processes import kill, wait
from driftline.rundir import RunDir

GRACE: Final = 5.0
"""Seconds from SIGTERM to SIGKILL."""
GUARD_GRACE: Final = 15.0
"""Seconds for the trainer's guard to end what it guards, and to remove the shared memory."""
_GUARD: Final = "engine.cluster.guard"


def check_ours(run: RunDir) -> None:
    """Raise CommandError for a run of another user, or whose processes are on another machine."""
    owner, me = run.path.stat().st_uid, os.geteuid()
    if me not in (owner, 0):
        raise CommandError(
            f"run {run.id} belongs to user {_user(owner)}, not to you: only who has its operator's key may end it; its "
            f"owner can make you one: driftline keys new NAME --role operator",
            FAILED,
        )
    record = supervision.read(run)
    here = socket.gethostname()
    if record is not None and record.host != here:
        raise CommandError(
            f"run {run.id} is on machine {record.host}, this one is {here}: stop it there, or from here with "
            f"driftline stop --run ssh://{record.host}{run.path}",
            FAILED,
        )


def ended(run: RunDir) -> bool:
    """True once neither hub nor supervisor nor trainer of the run lives. Raises RunError."""
    return not run.live() and not run.supervised() and children.find(run, "trainer") is None


def ask_without_hub(run: RunDir) -> str:
    """Ask the run to end by a signal, where no hub can carry a command; returns which process, "" without one."""
    if (trainer := children.find(run, "trainer")) is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            trainer.terminate()
            return f"its trainer, process {trainer.pid}"
    if (supervisor := _supervisor(run)) is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.terminate()
            return f"its supervisor, process {supervisor.pid}"
    return ""


def sweep(run: RunDir) -> int:
    """End what is left of a run that has ended and has no supervisor which would do so; returns how many there were."""
    if run.supervised() or children.find(run, "trainer") is not None:
        return 0
    count = _end_family(run)
    if not run.supervised():
        with contextlib.suppress(OSError):
            run.supervisor_file.unlink(missing_ok=True)
    return count


def force(run: RunDir) -> int:
    """Kill every process of the run, the hub last, which writes what it has; returns how many there were."""
    supervisor, count = _supervisor(run), 0
    if supervisor is not None:
        # Held still while its record goes: a standby that finds none does not take over.
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.suspend()
    with contextlib.suppress(OSError):
        run.supervisor_file.unlink(missing_ok=True)
    if supervisor is not None:
        count += len(kill([supervisor]))
    return count + _end_family(run)


def _end_family(run: RunDir) -> int:
    family = children.of_run(run)
    hub = children.find(run, "hub")
    guards = [process for process in family if _is_guard(process)]
    others = [process for process in family if process not in guards and (hub is None or process.pid != hub.pid)]
    processes.end(others, GRACE)
    # The guard sees that its trainer has gone, and removes the shared memory that no other process knows of.
    wait(guards, GUARD_GRACE)
    processes.end([*guards, *children.of_run(run)], GRACE)
    return len(family)


def _supervisor(run: RunDir) -> psutil.Process | None:
    record = supervision.read(run)
    if record is None or not record.pid or not run.supervised():
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(record.pid)
        # Not a later process of the same number.
        if process.create_time() <= record.started + 1.0:
            return process
    return None


def _is_guard(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return _GUARD in process.cmdline()
    return False


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
