"""A connection of a producer, as the hub knows it."""

from __future__ import annotations

from typing import Final

from driftline.hub.effects import Now
from driftline.hub.producer_tails import Key

SESSION_SECONDS: Final = 10.0
"""How long a producer that is not heard counts as connected."""


class Session:
    """One connection of a producer that has greeted."""

    def __init__(self, peer: bytes, producer: str, incarnation: int, now: Now) -> None:
        self.peer, self.producer, self.incarnation = peer, producer, incarnation
        self.seen = self.greeted = now.mono
        self.unacked = 0
        self.due = False
        self.dropped = 0
        self.topics: dict[str, int] = {}
        self.reported = 0.0
        self.back = False
        """Whether it has taken the name of an engine that had joined before."""
        self.leaving = False
        """Whether a joined engine has said that it ends."""

    @property
    def key(self) -> Key:
        return self.producer, self.incarnation
