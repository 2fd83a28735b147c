"""A trainer's own names for its numbers, as the catalogue's. The same table serves imported logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from driftline.catalog.naming import Target, mapping


class OwnNames:
    """Finds where each name goes, from all names that were logged so far: one name may say what another means.

    `given` are names of the catalogue that the adapter sends itself: a framework's number for the same keeps its own
    name, so that one series never mixes two rules.
    """

    def __init__(self, given: Iterable[str] = ()) -> None:
        self._given = set(given)
        self._seen: set[str] = set()
        self._targets: dict[str, Target] = {}

    def give(self, names: Iterable[str]) -> None:
        """The adapter sends these itself from now on."""
        if not self._given.issuperset(new := set(names)):
            self._given |= new
            self._targets = {}

    def numbers(self, values: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
        """Numbers and labels by the names they are sent under; what is no number is left out."""
        found = {str(name): number for name, value in values.items() if (number := _number(value)) is not None}
        if not self._targets or not self._targets.keys() >= found.keys():
            self._seen |= found.keys()
            self._targets = mapping(self._seen | self._given)
        sent: dict[str, float] = {}
        labels: dict[str, str] = {}
        for name, number in found.items():
            target = self._targets[name]
            if name in self._given:  # the framework's own, under the very name that the adapter sends
                target = Target(f"log/{name}")
            sent[target.name] = number * target.factor
            if target.label:
                labels[target.name] = target.label
        return sent, labels


def _number(value: Any) -> float | None:
    if isinstance(value, str | bytes | bool) or value is None:
        return None
    try:
        return float(value)
    except Exception:  # noqa: BLE001  float() of a framework's object may raise anything
        return None
