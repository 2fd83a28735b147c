"""Fix states as small numbers: which value every fix had when a token was sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from driftline.catalog.fixes import BY_ID, ON
from engine import Group

Vector = tuple[str, ...]
"""The value of every fix, in the catalogue's order; "" where it is not known."""

UNKNOWN: Final = -1
"""Number of no state: the token was sampled while a fix was being switched, or its engine did not say."""

HEAD: Final = "fp32-lm-head"
_HEAD_AT: Final = list(BY_ID).index(HEAD)


def vector(values: Mapping[str, str]) -> Vector:
    """The values of all fixes as a vector."""
    return tuple(values.get(fix_id, "") for fix_id in BY_ID)


class States:
    """Numbers the vectors that occur in a run, from 0; there are at most as many as combinations of values."""

    def __init__(self) -> None:
        self._numbers: dict[Vector, int] = {}
        self._vectors: list[Vector] = []

    def number(self, values: Mapping[str, str]) -> int:
        """The number of a state, a new one where it has not been seen."""
        key = vector(values)
        if key not in self._numbers:
            self._numbers[key] = len(self._vectors)
            self._vectors.append(key)
        return self._numbers[key]

    def group_numbers(self, group: Group) -> dict[int, int]:
        """The number of each fix epoch of a group; epochs that the engine did not explain are not in it."""
        return {epoch: self.number(values) for epoch, values in group.states.items() if epoch >= 0}

    def __getitem__(self, number: int) -> Vector:
        return self._vectors[number]

    def float32_head(self, number: int, otherwise: bool) -> bool:
        """Whether the last projection multiplied in float32 in a state; `otherwise` where that is not known."""
        value = self._vectors[number][_HEAD_AT] if number != UNKNOWN else ""
        return value == ON if value else otherwise
