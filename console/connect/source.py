"""Where a console's frames come from and where its commands go.

A live hub, a replay and the tests stand behind the same protocol, so no screen knows which it looks at.
"""

from __future__ import annotations

from typing import Protocol

from console.status.link_health import LOST_AFTER, STALE_AFTER, Link, LinkState
from driftline.frames import Stamped, Verb

__all__ = ["LOST_AFTER", "STALE_AFTER", "LeaseHeldError", "Link", "LinkState", "Source", "SourceError"]


class SourceError(RuntimeError):
    """A source that cannot be opened, or a command that was not taken; a whole sentence for the operator."""


class LeaseHeldError(SourceError):
    """Another session is at the controls; the message names it. `Source.take_lease` takes over."""


class Source(Protocol):
    """A run to look at. All methods may be called from any thread; `drain` and `wait` from one only."""

    @property
    def run(self) -> str: ...

    @property
    def operator(self) -> bool:
        """Whether commands are taken."""
        ...

    def wait(self, timeout: float) -> bool:
        """Block until there is something to drain, at most `timeout` seconds."""
        ...

    def drain(self, limit: int) -> list[Stamped]:
        """The next frames in order, at most `limit`."""
        ...

    def link(self) -> Link: ...

    def tokens(self, on: bool) -> str:
        """Follow token logprobs too, from the recent past on, or stop; "" if that is so now, else why not, for people.

        They come apart from the other frames, through `drain_tokens`, because few need them and they are many. How much
        of the past is told is bounded. May take as long as a request to the hub; asking again changes nothing.
        """
        ...

    def drain_tokens(self, limit: int) -> list[Stamped]:
        """The next Tokens frames in order, at most `limit`; none unless `tokens` was asked for. Never blocks.

        A number at or below the last one means that the source has gone back: what was told from there on is void.
        """
        ...

    @property
    def tokens_behind(self) -> int:
        """Frames that are still looked through for tokens; 0 when all that was asked for is here."""
        ...

    @property
    def session(self) -> str:
        """What this console calls itself beside others of the same key: `frames.Lease.session` where it holds the run.

        "" where nothing can be commanded.
        """
        ...

    def command(self, verb: Verb, args: dict[str, str], generation: int) -> str:
        """Send a command and return its id. Raises LeaseHeldError, SourceError."""
        ...

    def take_lease(self) -> str:
        """Take the controls, at once; return from whom, in words ("" from nobody else). Raises SourceError."""
        ...

    def release_lease(self) -> None:
        """Give the controls back, if this console has them. Raises SourceError."""
        ...

    def close(self) -> None: ...
