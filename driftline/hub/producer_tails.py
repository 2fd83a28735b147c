"""Progress of each producer, by incarnation: the newest number journaled, and the drops already reported.

An incarnation is one life of a producer's process. What is remembered of it matters for as long as that process may
send something again, so that nothing is journaled or reported twice; but processes come and go for months. So each
name keeps its newest INCARNATIONS_KEPT incarnations and the table ENTRIES_KEPT in all; the oldest without a connection
go first. An incarnation that was dropped and connects again has been outlived by INCARNATIONS_KEPT restarts under its
own name while it was silent: its greeting holds the number up to which its frames were acknowledged, and it goes on
from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

INCARNATIONS_KEPT: Final = 32
ENTRIES_KEPT: Final = 4096

Key = tuple[str, int]


class Tail(msgspec.Struct, array_like=True):
    """`last` is the newest number in the journal, `dropped` how many frames were reported lost, `topics` of which."""

    last: int = 0
    dropped: int = 0
    topics: dict[str, int] = {}


class Tails:
    """The table. `busy` says whether an incarnation is connected, and so must not be forgotten."""

    def __init__(self, busy: Callable[[Key], bool], lives: int = INCARNATIONS_KEPT, most: int = ENTRIES_KEPT) -> None:
        self._busy, self._lives, self._most = busy, lives, most
        self._names: dict[str, dict[int, Tail]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: Key) -> Tail | None:
        """The entry of an incarnation, if there is one."""
        return self._names.get(key[0], {}).get(key[1])

    def others(self, key: Key) -> bool:
        """Whether other incarnations of this name are known."""
        return any(number != key[1] for number in self._names.get(key[0], ()))

    def entry(self, key: Key) -> Tail:
        """The entry of an incarnation, made if there is none; the oldest may have to go for it."""
        name, incarnation = key
        lives = self._names.setdefault(name, {})
        tail = lives.get(incarnation)
        if tail is None:
            tail = lives[incarnation] = Tail()
            self._count += 1
            if len(lives) > self._lives:
                self._forget_one(name, incarnation)
            if self._count > self._most:
                self._forget_oldest_name(name)
        return tail

    def newest(self, key: Key) -> Tail:
        """The entry of an incarnation that has just greeted, which makes it the newest of its name."""
        tail = self.entry(key)
        lives = self._names.pop(key[0])
        lives[key[1]] = lives.pop(key[1])
        self._names[key[0]] = lives
        return tail

    def save(self) -> list[tuple[str, int, Tail]]:
        """All entries, the oldest first."""
        return [(name, number, tail) for name, lives in self._names.items() for number, tail in lives.items()]

    def load(self, saved: list[tuple[str, int, Tail]]) -> None:
        """Start from what `save` gave."""
        for name, number, tail in saved:
            entry = self.entry((name, number))
            entry.last, entry.dropped, entry.topics = tail.last, tail.dropped, tail.topics

    def _forget_one(self, name: str, but: int) -> bool:
        lives = self._names[name]
        victim = next((n for n in lives if n != but and not self._busy((name, n))), None)
        if victim is None:
            return False
        del lives[victim]
        self._count -= 1
        return True

    def _forget_oldest_name(self, but: str) -> None:
        for name in list(self._names):
            if name != but and self._forget_one(name, 0):
                if not self._names[name]:
                    del self._names[name]
                return
