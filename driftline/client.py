"""The consumer's interface: `attach` finds a run, `Client` sends requests and commands, `Feed` follows the frames."""

from __future__ import annotations

from typing import Literal

from driftline.consumer.feed import Feed, FeedStatus, next_beacon
from driftline.consumer.lease_keeper import LeaseKeeper
from driftline.consumer.rpc import Client, ClientError, HubSilentError, LeaseHeldError, Page, RefusedError, Snapshot
from driftline.keys import Keys, load
from driftline.rundir import Connection, RunDir

__all__ = [
    "Client",
    "ClientError",
    "Feed",
    "FeedStatus",
    "HubSilentError",
    "LeaseHeldError",
    "LeaseKeeper",
    "Page",
    "RefusedError",
    "Snapshot",
    "attach",
    "next_beacon",
]


def attach(run: RunDir, role: Literal["viewer", "operator"] = "operator") -> tuple[Connection, Keys]:
    """Connection and keys for a live run. Raises RunError for files that cannot be read, ClientError if it is over."""
    if not run.live():
        raise ClientError(f"no live hub at {run.path}: the run has ended, or was never started")
    return run.connection(), load(run, role)
