"""What a diagnosis asks for, as an alignment takes it. Pure.

A large cause hides smaller ones: a fix of the reference set whose cause the evidence has not ruled out goes along, and
is said to. Where no cause was named the whole reference set is meant; where nothing is wrong, nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from console.aligning.plan import REFERENCE, REFERENCE_FIXES, Gain, Wanted
from console.diagnosis.model import Attribution, Diagnosis, Layer

LAYERS: Final[Mapping[str, Layer]] = {
    "semantics": "semantics",
    "inference path": "inference path",
    "weight-update path": "weight update",
    "numerics": "numerics",
}
"""The catalogue of fixes has its own word for the weight update."""


SURE: Final = 0.5
"""A cause that is less probable than this is a guess: it is shown as one, and nothing is set on its word alone."""


def sure(found: Diagnosis) -> bool:
    """Whether the answer is more likely right than wrong."""
    return found.certainty >= SURE


def wanted(found: Diagnosis | None) -> Wanted:
    """The fixes and syncs that a diagnosis asks for; the reference set where it names no cause, or there is none."""
    if found is None:
        return REFERENCE
    if found.verdict in ("unknown", "not enough data") or not sure(found):
        return Wanted(REFERENCE_FIXES, why=_no_cause(found))
    if found.verdict == "normal":
        return Wanted({}, why=found.sentence)
    named = {action.fix: action.value for action in found.actions if action.kind == "fix"}
    possible = {
        one.cause.action.fix: one.cause.action.value
        for one in found.ranked
        if one.cause is not None and one.cause.action.kind == "fix"
    }
    hidden = {fix: value for fix, value in REFERENCE_FIXES.items() if fix in possible and fix not in named}
    return Wanted(
        named | hidden,
        sync=any(action.kind in ("sync", "reset") for action in found.actions),
        why=found.sentence,
        shares=shares(found.attribution),
        named=frozenset(named),
    )


def _no_cause(found: Diagnosis) -> str:
    said = found.sentence.rstrip(".")
    if found.verdict in ("cause", "normal"):
        said = f"only {found.certainty * 100:.0f} % sure that {said}"
    return f"{said}; so every fix of the reference set that is not in force"


def shares(attribution: Attribution | None) -> dict[str, Gain]:
    """By layer of the catalogue what an attribution gives it."""
    if attribution is None:
        return {}
    by_layer = {share.layer: share for share in attribution.shares}
    return {
        name: Gain(share.nats, share.low, share.high, "attribution")
        for name, layer in LAYERS.items()
        if (share := by_layer.get(layer)) is not None
    }


def other_actions(found: Diagnosis | None) -> list[str]:
    """What the diagnosis asks for that Driftline cannot do by itself."""
    if found is None or not sure(found):
        return []
    return [one.text for one in found.actions if one.kind in ("setting", "text")]
