"""Where a console's frames come from and where its commands go.

A live hub, a replay and the tests stand behind the same protocol, so no screen knows which it looks at.
"""

from __future__ import annotations

from typing import Protocol

from console.trouble import LOST_AFTER, STALE_AFTER, Link, LinkState
from driftline.frames import Stamped, Verb

__all__ = ["LOST_AFTER", "STALE_AFTER", "Link", "LinkState", "Source", "SourceError"]


class SourceError(RuntimeError):
    """A source that cannot be opened, or a command that was not taken; a whole sentence for the operator."""


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

    def command(self, verb: Verb, args: dict[str, str], generation: int) -> str:
        """Send a command and return its id. Raises SourceError."""
        ...

    def close(self) -> None: ...
