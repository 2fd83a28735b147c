"""From the name of a run to something to talk to: what every headless verb starts with."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from console.outcome import FAILED, NO_RUN, Failure
from console.place import Place, Role, place
from driftline.rundir import RunDir, runs_root

if TYPE_CHECKING:
    from driftline.client import Client


def live_run(name: str | None, *, key: str | None = None, connection: str | None = None) -> Place:
    """The run named, which must be live. Raises RunError or Failure."""
    run = place(name, key=key, connection=connection)
    if not run.live():
        run.close()
        if run.directory is None:
            why = "no hub answers at the address of its connection"
            raise Failure(f"run {run.id} is not live ({why}); see: driftline list", NO_RUN)
        look = f"look at what it has recorded: driftline replay {named(run.directory)}"
        raise Failure(f"run {run.id} is not live (its hub has ended); {look}", NO_RUN)
    return run


def named(run: RunDir) -> str:
    """How a run of this machine is named on a command line: by its id where that is enough, else by its path."""
    return run.id if run.path.parent == runs_root().resolve() else str(run.path)


@contextmanager
def reached(args: argparse.Namespace) -> Iterator[Place]:
    """The run that a verb's `--run` (and `--key`, where it has one) names; let go of at the end."""
    run = place(args.run, key=getattr(args, "key", None), connection=getattr(args, "connection", None))
    try:
        yield run
    finally:
        run.close()


@contextmanager
def connected(run: Place, role: Role) -> Iterator[Client]:
    """A client of a live run, closed at the end. A ClientError inside becomes a Failure."""
    from driftline.client import Client, ClientError  # not for who only looks whether a run is live

    try:
        client = Client(run.connection(), run.credentials(role))
        try:
            yield client
        finally:
            client.close()
    except ClientError as error:
        # A run that ends while it is asked something is a missing run, not a broken wire.
        raise Failure(str(error), FAILED if run.live() else NO_RUN) from error
