"""Which rules share an alarm: a fault that breaks several rules of one episode is one alarm, not one for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import msgspec

from console.sentinels.alarm import Transition
from console.sentinels.kinds import Level

_RANK: Final[dict[Level, int]] = {"error": 0, "warn": 1}
SHOWN: Final = 2
"""Further metrics that an alarm's text names."""


class Member(msgspec.Struct, frozen=True):
    """One rule over one metric, in the episode that it belongs to."""

    rule: str
    episode: str
    level: Level


class Change(msgspec.Struct, frozen=True):
    """An alarm of `owner` is to be raised or cleared."""

    owner: Member
    transition: Transition


class _Open(msgspec.Struct):
    """A standing alarm: the rule that raised it, its subject, and the members (by number) that are broken."""

    owner: Member
    subject: str
    broken: set[int]


class Episodes:
    """The standing alarms of all members, which are known by their place in `members`."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._open: list[_Open] = []

    def apply(self, found: Sequence[tuple[int, Transition]]) -> Iterator[Change]:
        """The changes of alarms by transitions of members, in the order of the steps, however they were batched.

        What is raised at a step comes before what is over there, and of that errors first.
        """

        def order(one: tuple[int, Transition]) -> tuple[int, bool, int, int]:
            number, transition = one
            return transition.at, not transition.raised, _RANK[self._members[number].level], number

        for (_, over), together in groupby(sorted(found, key=order), key=lambda one: order(one)[:2]):
            if over:
                for number, transition in together:
                    yield from self._cleared(number, transition)
            else:
                yield from self._raised(list(together))

    def _raised(self, together: list[tuple[int, Transition]]) -> Iterator[Change]:
        new: list[tuple[_Open, list[Transition]]] = []
        for number, transition in together:
            member = self._members[number]
            standing = self._standing(member)
            if standing is None:
                standing = _Open(member, transition.subject, set())
                self._open.append(standing)
                new.append((standing, []))
            standing.broken.add(number)
            for one, transitions in new:
                if one is standing:
                    transitions.append(transition)
        for one, (first, *others) in new:
            yield Change(one.owner, msgspec.structs.replace(first, text=first.text + _also(first, others)))

    def _standing(self, member: Member) -> _Open | None:
        for one in self._open:
            if one.owner.episode == member.episode and _RANK[one.owner.level] <= _RANK[member.level]:
                return one
        return None

    def _cleared(self, number: int, transition: Transition) -> Iterator[Change]:
        for one in self._open:
            if number not in one.broken:
                continue
            one.broken.remove(number)
            if not one.broken:
                self._open.remove(one)
                member = self._members[number]
                own = (member.rule, transition.subject) == (one.owner.rule, one.subject)
                text = transition.text if own else f"{member.rule} {transition.subject}: {transition.text}"
                yield Change(one.owner, msgspec.structs.replace(transition, subject=one.subject, text=text))
            return


def _also(first: Transition, others: Sequence[Transition]) -> str:
    """What is broken since the same step, of other metrics."""
    seen, texts = {first.subject}, list[str]()
    for one in others:
        if one.subject not in seen:
            seen.add(one.subject)
            texts.append(one.text.partition(";")[0])
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return f"; also {', '.join(texts[:SHOWN])}{more}" if texts else ""
