"""How far a fix reaches: on how many engines it has which value, and of how many that is not known. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec

from driftline.catalog.fixes import BY_ID
from driftline.frames import EngineFix, FixState

TRAINER: Final = "trainer"
"""Pseudo-engine that reports of fixes which the trainer takes part in; counted with no engine."""


class Coverage(msgspec.Struct, frozen=True):
    """A fix over `total` engines. `reached` have `value`; `unknown` say nothing of it; `others` have other values."""

    value: str
    reached: int
    total: int
    unknown: int
    others: tuple[tuple[str, int], ...] = ()

    @property
    def partial(self) -> bool:
        """Whether neither all engines have the value nor all are known to lack it, alike."""
        return self.total > 0 and self.reached < self.total and (self.unknown > 0 or self.reached > 0)

    @property
    def of_all(self) -> str:
        """`on 3/8`."""
        return f"{self.value} {self.reached}/{self.total}"

    @property
    def text(self) -> str:
        """`on 3/8, off 3, unknown on 2`."""
        others = [f"{value} {count}" for value, count in self.others]
        return ", ".join([self.of_all, *others, *([f"unknown on {self.unknown}"] if self.unknown else [])])


def engines_of(state: FixState) -> list[EngineFix]:
    """The reports of engines; those of the trainer alone where there are no others."""
    return [one for one in state.engines if one.engine != TRAINER] or list(state.engines)


def coverage(state: FixState) -> Coverage:
    """The value that an operator has asked for, else one that repairs, else the commonest one, over the engines."""
    reports = engines_of(state)
    counts = Counter(one.effective for one in reports)
    unknown = counts.pop("", 0)
    value = state.requested
    if not state.by:
        fix = BY_ID.get(state.fix)
        repairing = [one for one in counts if fix is not None and one in fix.repairs]
        value = max(repairing, key=lambda one: counts[one]) if repairing else value
    reached = counts.pop(value, 0)
    return Coverage(value, reached, len(reports), unknown, tuple(sorted(counts.items())))


def document(state: FixState) -> dict[str, Any]:
    """For programs: how many engines report each value, and of how many it is not known."""
    counts = Counter(one.effective for one in engines_of(state))
    unknown = counts.pop("", 0)
    return {"engines": sum(counts.values()) + unknown, "values": dict(sorted(counts.items())), "unknown": unknown}
