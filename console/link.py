"""From the name of a run to something to talk to: what every headless verb starts with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from console.outcome import FAILED, NO_RUN, Failure
from driftline.client import Client, ClientError, attach
from driftline.rundir import RunDir, find

Role = Literal["viewer", "operator"]


def live_run(name: str | None) -> RunDir:
    """The run named, which must be live. Raises RunError or Failure."""
    run = find(name)
    if not run.live():
        raise Failure(f"run {run.id} is not live (its hub has ended); see: driftline list", NO_RUN)
    return run


@contextmanager
def connected(run: RunDir, role: Role) -> Iterator[Client]:
    """A client of a live run, closed at the end. A ClientError inside becomes a Failure."""
    try:
        client = Client(*attach(run, role))
        try:
            yield client
        finally:
            client.close()
    except ClientError as error:
        # A run that ends while it is asked something is a missing run, not a broken wire.
        raise Failure(str(error), FAILED if run.live() else NO_RUN) from error
