"""The live hub as a source of frames."""

from __future__ import annotations

from typing import Final

from console.outcome import Failure
from console.place import Place
from console.tui.source import STALE_AFTER, HeldError, Link, SourceError
from driftline import client as hub
from driftline.client import Client, ClientError, Feed, Keeper
from driftline.frames import Stamped, Verb
from driftline.rundir import RunError

COMMAND_TIMEOUT: Final = 30.0
"""Seconds after which a command that was not applied must not take effect any more."""


class LiveSource:
    """A live run, through its hub, wherever that is."""

    def __init__(self, run: Place, *, operate: bool) -> None:
        """Connect with the viewer's or operator's key of the place. Raises SourceError."""
        try:
            connection, keys = run.connection(), run.credentials("operator" if operate else "viewer")
            self._client = Client(connection, keys)
            self._keeper = Keeper(self._client)
            self._feed = Feed(connection, keys, refresh=run.connection)
        except (ClientError, RunError, Failure) as error:
            raise SourceError(str(error)) from error
        self._place = run
        self.run = run.id
        self.operator = operate

    def wait(self, timeout: float) -> bool:
        return self._feed.wait(timeout)

    def drain(self, limit: int) -> list[Stamped]:
        return self._feed.drain(limit)

    def link(self) -> Link:
        status = self._feed.status
        # Only a hub on this machine can be seen to have ended; its lock is looked at once it is silent.
        gone = status.age > STALE_AFTER and self._place.directory is not None and not self._place.live()
        return Link(
            heard=status.connected or status.head > 0,
            age=status.age,
            behind=status.behind,
            trouble=status.error,
            degraded=status.degraded,
            way=self._place.note(),
            gone=gone,
        )

    def command(self, verb: Verb, args: dict[str, str], generation: int) -> str:
        try:
            return self._client.command(verb, args, generation=generation, timeout=COMMAND_TIMEOUT)
        except hub.HeldError as error:
            raise HeldError(str(error)) from error
        except ClientError as error:
            raise SourceError(str(error)) from error

    @property
    def session(self) -> str:
        return self._client.session if self.operator else ""

    def take_lease(self) -> str:
        try:
            return self._client.take()
        except ClientError as error:
            raise SourceError(str(error)) from error

    def release_lease(self) -> None:
        try:
            self._client.release()
        except ClientError as error:
            raise SourceError(str(error)) from error

    def close(self) -> None:
        self._keeper.close()
        self._feed.close()
        self._client.close()
