"""The live hub as a source of frames."""

from __future__ import annotations

from typing import Final

from console.tui.source import Link, SourceError
from driftline.client import Client, ClientError, Feed, attach
from driftline.frames import Stamped, Verb
from driftline.rundir import RunDir, RunError

COMMAND_TIMEOUT: Final = 30.0
"""Seconds after which a command that was not applied must not take effect any more."""


class LiveSource:
    """A live run, through its hub."""

    def __init__(self, run: RunDir, *, operate: bool) -> None:
        """Connect with the local viewer's or operator's key. Raises SourceError."""
        try:
            connection, keys = attach(run, "operator" if operate else "viewer")
            self._client = Client(connection, keys)
            self._feed = Feed(connection, keys, refresh=run.connection)
        except (ClientError, RunError) as error:
            raise SourceError(str(error)) from error
        self.run = run.id
        self.operator = operate

    def wait(self, timeout: float) -> bool:
        return self._feed.wait(timeout)

    def drain(self, limit: int) -> list[Stamped]:
        return self._feed.drain(limit)

    def link(self) -> Link:
        status = self._feed.status
        heard = status.connected or status.head > 0
        return Link(heard, status.age, status.behind, status.error or status.degraded)

    def command(self, verb: Verb, args: dict[str, str], generation: int) -> str:
        try:
            return self._client.command(verb, args, generation=generation, timeout=COMMAND_TIMEOUT)
        except ClientError as error:
            raise SourceError(str(error)) from error

    def close(self) -> None:
        self._feed.close()
        self._client.close()
