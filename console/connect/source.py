"""The source protocol: frames of a run to a console, and commands to the run.

A live hub, a replay and the tests implement the same protocol, so no screen depends on which it shows.
"""

from __future__ import annotations

from typing import Protocol

from console.status.link_health import LOST_AFTER, STALE_AFTER, Link, LinkState
from driftline.frames import Stamped, Verb

__all__ = ["LOST_AFTER", "STALE_AFTER", "LeaseHeldError", "Link", "LinkState", "Source", "SourceError"]


class SourceError(RuntimeError):
    """A source that cannot be opened, or a command that was not accepted; a whole sentence for the operator."""


class LeaseHeldError(SourceError):
    """Another session has the lease; the message names it. `Source.take_lease` takes it over."""


class Source(Protocol):
    """The frames of a run. All methods may be called from any thread; `drain` and `wait` from one only."""

    @property
    def run(self) -> str: ...

    @property
    def operator(self) -> bool:
        """Whether commands are accepted."""
        ...

    def wait(self, timeout: float) -> bool:
        """Block until there is something to drain, at most `timeout` seconds."""
        ...

    def drain(self, limit: int) -> list[Stamped]:
        """The next frames in order, at most `limit`."""
        ...

    def link(self) -> Link: ...

    def tokens(self, on: bool) -> str:
        """Follow token logprobs too, from the recent past on, or stop; returns "" on success, else a sentence why not.

        They come apart from the other frames, through `drain_tokens`, because few need them and they are many. The
        amount of past frames is bounded. May take as long as a request to the hub; calling again changes nothing.
        """
        ...

    def drain_tokens(self, limit: int) -> list[Stamped]:
        """The next Tokens frames in order, at most `limit`; none unless `tokens` was asked for. Never blocks.

        A number at or below the last one means that the source has gone back: frames from there on are void.
        """
        ...

    @property
    def tokens_behind(self) -> int:
        """Frames still to be searched for tokens; 0 when all that were asked for have come."""
        ...

    @property
    def session(self) -> str:
        """Name of this console among others with the same key: `frames.Lease.session` while it has the lease.

        "" where no commands are accepted.
        """
        ...

    def command(self, verb: Verb, args: dict[str, str], generation: int) -> str:
        """Send a command and return its id. Raises LeaseHeldError, SourceError."""
        ...

    def take_lease(self) -> str:
        """Take the lease at once; return the former session, in words ("" if it was free). Raises SourceError."""
        ...

    def release_lease(self) -> None:
        """Release the lease, if this console has it. Raises SourceError."""
        ...

    def close(self) -> None: ...
