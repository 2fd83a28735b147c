"""The live hub as a source of frames."""

from __future__ import annotations

import threading
import time
from typing import Final

from console.connect.source import STALE_AFTER, LeaseHeldError, Link, SourceError
from console.connect.target import Target
from console.errors import CommandError
from console.status import supervision
from console.store.tokens.frames import is_tokens
from driftline import client as hub
from driftline.client import Client, ClientError, Feed, LeaseKeeper
from driftline.frames import Stamped, Verb
from driftline.journal.holes import lacks
from driftline.rundir import RunError

COMMAND_TIMEOUT: Final = 30.0
"""Seconds after which a command that was not applied must not take effect any more."""
ROUND_TIMEOUT: Final = 600.0
"""The same of an active round, which waits for the trainer's next step; one that waits can be cancelled."""

TOKENS_BACK: Final = 8192
"""Sequence numbers of the journal that are searched for past tokens: some hundred steps of a small run."""
TOKENS_BYTES: Final = 8 * 1024 * 1024
"""About how many bytes of past frames are fetched at most: some 300,000 tokens, a few seconds over a slow line."""
_PROBED: Final = 256
CARE_SECONDS: Final = 1.0
"""Seconds between two looks at the supervisor's record."""


class LiveSource:
    """A live run, through its hub, wherever that is."""

    def __init__(self, run: Target, *, operate: bool) -> None:
        """Connect with the viewer's or operator's key of the target. Raises SourceError."""
        try:
            connection, keys = run.connection(), run.credentials("operator" if operate else "viewer")
            self._client = Client(connection, keys)
            self._feed = Feed(connection, keys, refresh=run.connection)
        except (ClientError, RunError, CommandError) as error:
            raise SourceError(str(error)) from error
        self._keeper = LeaseKeeper(self._client)
        self._target = run
        self._keys = keys
        self._tokens: Feed | None = None
        self._care: supervision.Care | None = None
        self._next_look = 0.0
        self._tokens_lock = threading.Lock()
        self.run = run.id
        self.operator = operate
        # Until the hub says it, which looks again when the journal's folder changes, wherever that is.
        self._missing = "; ".join(lacks(run.directory)) if run.directory is not None else ""

    def wait(self, timeout: float) -> bool:
        return self._feed.wait(timeout)

    def drain(self, limit: int) -> list[Stamped]:
        return self._feed.drain(limit)

    def tokens(self, on: bool) -> str:
        with self._tokens_lock:
            if not on:
                self._drop_tokens()
            elif self._tokens is None:
                try:
                    since = first_token_seq(self._client, self._feed.status.head)
                    self._tokens = Feed(
                        self._target.connection(), self._keys, since, tokens=True, refresh=self._target.connection
                    )
                except (ClientError, RunError) as error:
                    return str(error)
        return ""

    def drain_tokens(self, limit: int) -> list[Stamped]:
        feed = self._tokens
        return [] if feed is None else [stamped for stamped in feed.drain(limit) if is_tokens(stamped.body)]

    @property
    def tokens_behind(self) -> int:
        feed = self._tokens
        if feed is None:
            return 0
        status = feed.status
        return status.behind or int(not status.head)  # unknown until the first frame of the hub; at least one

    def _drop_tokens(self) -> None:
        if self._tokens is not None:
            self._tokens.close()
            self._tokens = None

    def _ended(self) -> bool:
        try:
            return not self._target.live()
        except RunError:  # a filesystem that gives no locks any more: it cannot be known
            return False

    def link(self) -> Link:
        status = self._feed.status
        # Only a hub on this machine can be seen to have ended; its lock is checked once it is silent.
        gone = status.age > STALE_AFTER and self._target.directory is not None and self._ended()
        care = self._look_for_supervisor()
        return Link(
            heard=status.connected or status.head > 0,
            age=status.age,
            behind=status.behind,
            trouble=status.error,
            degraded=status.degraded,
            way=self._target.note(),
            gone=gone,
            care=supervision.hub_text(care, time.time()) if care is not None and gone else "",
            unsupervised=care is not None and not care.alive,
            missing=self._missing if status.missing is None else status.missing,
        )

    def _look_for_supervisor(self) -> supervision.Care | None:
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + CARE_SECONDS
            self._care = supervision.look(self._target.directory)
        return self._care

    def command(self, verb: Verb, args: dict[str, str], generation: int) -> str:
        try:
            timeout = ROUND_TIMEOUT if verb == "diagnose" else COMMAND_TIMEOUT
            return self._client.command(verb, args, generation=generation, timeout=timeout)
        except hub.LeaseHeldError as error:
            raise LeaseHeldError(str(error)) from error
        except ClientError as error:
            raise SourceError(str(error)) from error

    @property
    def session(self) -> str:
        return self._client.session if self.operator else ""

    def take_lease(self) -> str:
        try:
            return self._client.take_lease()
        except ClientError as error:
            raise SourceError(str(error)) from error

    def release_lease(self) -> None:
        try:
            self._client.release_lease()
        except ClientError as error:
            raise SourceError(str(error)) from error

    def close(self) -> None:
        self._keeper.close()
        self._feed.close()
        self._client.close()
        self.tokens(False)  # last: a request for past tokens that still waits ends with the client


def first_token_seq(client: Client, head: int) -> int:
    """The sequence number from which to follow tokens, so that about TOKENS_BYTES come at first. Raises ClientError.

    The bytes per sequence number are estimated from the journal's newest page; nothing else is fetched for it.
    """
    head = head or client.snapshot().head
    start = max(head - _PROBED + 1, 1)
    page = client.page(start, _PROBED, tokens=True)
    taken = sum(len(stamped.body) for stamped in page.frames)
    numbers = max(page.next - start, 1)
    back = min(TOKENS_BACK, TOKENS_BYTES * numbers // max(taken, 1))
    return max(max(head, page.head) - back + 1, page.first, 1)
