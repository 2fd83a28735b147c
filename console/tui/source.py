"""Where a console's frames come from and where its commands go.

A live hub, a replay and the tests stand behind the same protocol, so no screen knows which it looks at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from driftline.frames import Stamped, Verb

STALE_AFTER: Final = 3.0
"""Seconds without a beacon after which what is on screen may no longer be so."""

LOST_AFTER: Final = 15.0
"""Seconds of silence after which nobody should wait for the next beacon any more."""

LinkState = Literal["connecting", "live", "stale", "lost"]


class SourceError(RuntimeError):
    """A source that cannot be opened, or a command that was not taken; a whole sentence for the operator."""


@dataclass(frozen=True)
class Link:
    """How well the console hears the run.

    `heard` is False until the first sign of life, `age` the seconds since the last one, `behind` the frames that the
    hub has and the console has not; `trouble` is a sentence about what is wrong with the link or the journal.
    """

    heard: bool
    age: float
    behind: int = 0
    trouble: str = ""

    @property
    def state(self) -> LinkState:
        if self.age <= STALE_AFTER:
            return "live" if self.heard else "connecting"
        return "stale" if self.age <= LOST_AFTER else "lost"


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
