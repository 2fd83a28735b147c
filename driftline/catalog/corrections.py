"""Catalogue of the objective-side corrections: what the field does to a loss whose engine and trainer disagree.

Static knowledge, as `driftline.catalog.fixes` is of the backend. What a run *is doing* is in
`driftline.frames.RunState`; how a correction is computed is in `trainer.learn.correction`. A correction reweighs or
drops what a wrong backend has sampled, it does not make the backend right: first the fixes, then, if anything is left,
one of these.

Notation: roll is the engine's logprob of a token, prox the trainer's own under the weights at the start of the step
(verl's `old_log_prob`), d = prox - roll, w = exp(d). With a correction on, the objective's ratio is new against prox
and the surrogate is multiplied by a weight made of w, a constant to the gradient; with none it is new against roll.
"""

from __future__ import annotations

from typing import Final

import msgspec

OFF: Final = "off"
TIS: Final = "tis"
SEQUENCE_MASK: Final = "sequence-mask"
ICEPOP: Final = "icepop"


class Correction(msgspec.Struct, frozen=True):
    """One correction. `formula` is the weight of a token; `source` names who published it."""

    id: str
    title: str
    formula: str
    summary: str
    source: str


CORRECTIONS: Final[tuple[Correction, ...]] = (
    Correction(
        id=OFF,
        title="no correction",
        formula="1, ratio new / roll",
        summary="the objective divides by the engine's own logprobs: whatever the backend gets wrong enters the ratio",
        source="PipelineRL; verl's bypass mode",
    ),
    Correction(
        id=TIS,
        title="truncated importance sampling",
        formula="min(w, cap)",
        summary="every token counts by how much likelier the trainer finds it than the engine did, up to a cap",
        source="Yao et al. 2025, 'Your efficient RL framework secretly brings you off-policy RL training'; "
        "verl rollout_is = token, threshold 2",
    ),
    Correction(
        id=SEQUENCE_MASK,
        title="sequence mask",
        formula="w, or 0 for a whole sequence whose exp(mean d) leaves [low, high] or whose max |d| exceeds a limit",
        summary="a sequence that the two backends see too differently does not count at all",
        source="Liu et al. 2025, 'When speed kills stability' (MIS, geometric mean); NeMo-RL seq-mask-tis; "
        "SkyRL geometric sequence mask",
    ),
    Correction(
        id=ICEPOP,
        title="IcePop band",
        formula="w where alpha <= w <= beta, else 0",
        summary="a token outside the band does not count at all, the others by their weight",
        source="Ling team 2025, IcePop (Ring-1T report, discrepancy clipping and masking); band of NeMo-RL and verl: "
        "0.5 to 5",
    ),
)

BY_ID: Final[dict[str, Correction]] = {correction.id: correction for correction in CORRECTIONS}


class UnknownCorrectionError(ValueError):
    """A correction outside the catalogue."""


def check(value: str) -> Correction:
    """Return the correction, or raise UnknownCorrectionError naming what is allowed."""
    correction = BY_ID.get(value)
    if correction is None:
        raise UnknownCorrectionError(f"unknown correction '{value}'; allowed: {', '.join(BY_ID)}")
    return correction
