"""Which key a producer's name is in use by. Two keys may be granted one name; only one of them uses it at a time.

The key that greets first has the name for as long as it is heard of, and HOLD_SECONDS more, in which a producer that
fell over comes back. After a restart of the hub, which forgets who had a name, the producer that the journal knows goes
before one that it does not. A key that is revoked has no names any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from driftline.hub.effects import Now
from driftline.keys import Grant

HOLD_SECONDS: Final = 10.0
NAMES_KEPT: Final = 4096


class Hold:
    """A name in use: the key's public half and grant, when it was last heard of (monotonic seconds), and whether its
    producer was there before this hub."""

    __slots__ = ("grant", "returned", "seen")

    def __init__(self, grant: Grant, returned: bool, seen: float) -> None:
        self.grant, self.returned, self.seen = grant, returned, seen


class ProducerNames:
    """The names in use, by the key that uses them: at most NAMES_KEPT, the longest unheard ones go first."""

    def __init__(self) -> None:
        self._holds: dict[str, Hold] = {}

    def claim(self, name: str, grant: Grant, returning: bool, now: Now) -> str:
        """Take a name for a key, `returning` where the journal knows the producer; why not, "" if it is the key's."""
        held = self._live(name, now)
        if held is not None and held.grant.public == grant.public:
            returning = held.returned  # what it has sent to this hub since does not make it one of before
        elif held is not None and (held.returned or not returning):
            return f"the name '{name}' is in use by another key ({held.grant.identity})"
        self._holds.pop(name, None)  # the newest stand last
        self._holds[name] = Hold(grant, returning, now.mono)
        if len(self._holds) > NAMES_KEPT:
            del self._holds[next(iter(self._holds))]
        return ""

    def seen(self, name: str, now: Now) -> None:
        """The producer of that name was heard of."""
        if (held := self._holds.get(name)) is not None:
            held.seen = now.mono

    def used_by_other(self, name: str, public: str, now: Now) -> bool:
        """Whether another key than this uses the name."""
        held = self._live(name, now)
        return held is not None and held.grant.public != public

    def release(self, name: str, public: str) -> None:
        """Give a name up that a key had."""
        if (held := self._holds.get(name)) is not None and held.grant.public == public:
            del self._holds[name]

    def on_grants(self, grants: Mapping[str, Grant]) -> None:
        """Names of keys that may not use them any more are free."""
        for name, held in list(self._holds.items()):
            grant = grants.get(held.grant.public)
            if grant is None or not grant.may_produce(name):
                del self._holds[name]

    def on_tick(self, now: Now) -> None:
        """Free the names of producers that were not heard of for HOLD_SECONDS."""
        for name in [name for name in self._holds if self._live(name, now) is None]:
            del self._holds[name]

    def _live(self, name: str, now: Now) -> Hold | None:
        held = self._holds.get(name)
        return held if held is not None and now.mono - held.seen <= HOLD_SECONDS else None
