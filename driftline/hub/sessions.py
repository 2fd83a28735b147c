"""A connection of a producer, as the hub knows it."""

from __future__ import annotations

from typing import Final

from driftline.hub.effects import Now
from driftline.hub.producer_tails import Key

SESSION_SECONDS: Final = 10.0
"""How long a producer that is not heard counts as connected."""


class Session:
    """One connection of a producer that has greeted, with the key whose public half is `public`."""

    def __init__(self, peer: bytes, producer: str, incarnation: int, public: str, now: Now) -> None:
        self.peer, self.producer, self.incarnation, self.public = peer, producer, incarnation, public
        self.seen = self.greeted = now.mono
        self.unacked = 0
        self.due = False
        self.dropped = 0
        self.topics: dict[str, int] = {}
        self.reported = 0.0
        self.commands_from = 0.0
        """Monotonic seconds from which on it may be given commands; 0 is at once."""
        self.back = False
        """Whether it has taken the name of an engine that had joined before."""
        self.leaving = False
        """Whether a joined engine has said that it ends."""

    @property
    def key(self) -> Key:
        return self.producer, self.incarnation
