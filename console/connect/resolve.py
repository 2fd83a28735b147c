"""Resolves the name of a run to a target, a directory or a client; every headless verb starts with this."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from console.connect.target import Role, Target, find_target
from console.errors import FAILED, NO_RUN, USAGE, CommandError
from console.status import supervision
from driftline.rundir import RUN_VARIABLE, RunDir, find, list_runs, runs_root
from driftline.text import sanitize

if TYPE_CHECKING:
    from driftline.client import Client

HUB_BACK: Final = 15.0
"""Seconds for which a verb waits for a hub that is started again: under one, on a machine that has little to do."""
_POLL: Final = 0.05


def live_run(name: str | None, *, key: str | None = None, connection: str | None = None) -> Target:
    """The run named, which must be live, or be so soon. Raises RunError or CommandError."""
    run = find_target(name, key=key, connection=connection)
    try:
        if live(run):
            return run
    except BaseException:
        run.close()
        raise
    run.close()
    if run.directory is None:
        raise CommandError(
            f"run {run.id} is not live (no hub answers at the address of its connection); see: driftline list", NO_RUN
        )
    hint = f"look at what it has recorded: driftline replay {run_argument(run.directory)}"
    raise CommandError(f"run {run.id} is not live (its hub has ended); {hint}", NO_RUN)


def live(run: Target) -> bool:
    """True while the run's hub runs; on this machine one that its supervisor starts again is waited for.

    Raises CommandError where that hub is not back in time, or will be later than HUB_BACK; RunError as `RunDir.live`.
    """
    deadline = time.time() + HUB_BACK
    while not run.live():
        care = supervision.look(run.directory)
        if care is None or not care.alive:
            # It may have ended in order between the two looks, or come back under another supervisor.
            return run.live()
        if max(time.time(), care.record.hub_next) >= deadline:
            raise CommandError(f"run {run.id} has no hub now; its supervisor starts it again: driftline status", NO_RUN)
        time.sleep(_POLL)
    return True


def run_argument(run: RunDir) -> str:
    """A run of this machine as a shell argument: its id if it is in the default folder of runs, else its path."""
    return shlex.quote(run.id if run.path.parent == runs_root().resolve() else str(run.path))


def local_run_dir(name: str | None, what: str) -> RunDir:
    """The run named, which must be on this machine: `what` works on its files. Raises RunError or CommandError."""
    if (name or os.environ.get(RUN_VARIABLE) or "").startswith("ssh://"):
        raise CommandError(f"{what} works where the run is: ssh there, and call it with the run's path", USAGE)
    return find(name)


def newest_ended(name: str | None) -> RunDir | None:
    """The newest recorded run if no run was named and none goes on, else None."""
    if name or os.environ.get(RUN_VARIABLE):
        return None
    runs = list_runs()
    return runs[0] if runs and not any(run.live() or run.supervised() for run in runs) else None


@contextmanager
def open_target(args: argparse.Namespace, *, ended: bool = False) -> Iterator[Target]:
    """The run that a verb's `--run` (and `--key`, where it has one) names; closed at the end.

    With `ended` and no name, the newest recorded run is taken if none is live: stderr says which one that is.
    """
    name, connection = args.run, getattr(args, "connection", None)
    run_dir = newest_ended(name) if ended and connection is None else None
    if run_dir is not None:
        print(
            f"driftline: no run is live; {sanitize(run_argument(run_dir))} is the newest that has ended",
            file=sys.stderr,
        )
        name = str(run_dir.path)
    run = find_target(name, key=getattr(args, "key", None), connection=connection)
    try:
        yield run
    finally:
        run.close()


@contextmanager
def connect_client(run: Target, role: Role) -> Iterator[Client]:
    """A client of a live run, closed at the end. A ClientError inside becomes a CommandError."""
    from driftline.client import Client, ClientError  # imported here: `Target.live` of a local run needs no client

    try:
        client = Client(run.connection(), run.credentials(role))
        try:
            yield client
        finally:
            client.close()
    except ClientError as error:
        # A run that ends during a request counts as a missing run, not as a failed connection.
        raise CommandError(str(error), FAILED if run.live() else NO_RUN) from error
