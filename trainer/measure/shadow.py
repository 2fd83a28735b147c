"""The numbers of a step's shadow scoring, over all pairs of engines and for each of them. Pure."""

from __future__ import annotations

import numpy as np

from driftline.pairs.formulas import shadow
from engine.types import ShadowStep


def values(step: ShadowStep) -> tuple[dict[str, float], dict[str, str]]:
    """`shadow/*` and the labels that say which engines are compared; nothing while no share is wanted.

    With several pairs each has names of its own as well, `shadow/SAMPLER-SCORER/...`.
    """
    if not step.wanted and not step.pairs and not step.skipped:
        return {}, {}
    pairs = [f"{pair.sampled} by {pair.scored}" for pair in step.pairs]
    found = shadow(np.concatenate([pair.differences for pair in step.pairs])) if step.pairs else shadow([])
    named = {f"shadow/{name}": value for name, value in found.items()}
    labels = dict.fromkeys(("shadow/abs_diff_mean", "shadow/abs_diff_p99"), ", ".join(pairs)) if pairs else {}
    if len(step.pairs) > 1:
        for pair in step.pairs:
            own = shadow(pair.differences)
            named |= {f"shadow/{pair.sampled}-{pair.scored}/{name}": value for name, value in own.items()}
    return {**named, "shadow/skipped": float(step.skipped), "shadow/share": step.share}, labels
