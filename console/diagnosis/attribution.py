"""How much of the mean |d| each layer accounts for, from passive readings alone. Pure.

A part's |d| beyond that of the rest is its cause's; of the rest, what is beyond the floor is the rest's cause's and
what is below is numerics. Shares sum to the whole by construction. Where two causes act on the same tokens passive
readings cannot part them: both get half, and the note says so. Intervals: bootstrap over sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from console.diagnosis.causes import BY_NAME
from console.diagnosis.columns import Columns, Floats
from console.diagnosis.facts import Facts
from console.diagnosis.model import LAYERS, NONE, UNKNOWN, Attribution, Layer, Share
from console.diagnosis.parts import Part

_DRAWS: Final = 200


def attribute(columns: Columns, judged: Sequence[tuple[Part, tuple[str, ...]]], facts: Facts) -> Attribution | None:
    """Shares of the mean |d| over all tokens; None without tokens, or where nothing is known of a part."""
    if not len(columns):
        return None
    shared: list[str] = []
    unknown = 0.0
    by_layer = {layer: np.zeros(len(columns)) for layer in LAYERS}
    rest_part = judged[-1][0]
    rest = float(rest_part.view.whole.size.mean()) if len(rest_part.view.whole) else 0.0
    floor = facts.floor[0]
    for part, names in judged:
        own = np.where(part.mask, columns.size, 0.0)
        base = np.minimum(own, rest if part is not rest_part and part.name != "before" else 0.0)
        numeric = np.minimum(own, _noise(part, floor, names))
        if part is rest_part or part.name == "before":
            base = numeric
        known = [name for name in names if name in BY_NAME]
        if UNKNOWN in names or not known:
            by_layer["numerics"] += own
            unknown += float(own.sum()) if UNKNOWN in names else 0.0
            continue
        by_layer["numerics"] += np.minimum(base, floor)
        beyond = own - np.minimum(base, floor)
        if len(known) > 1:
            shared.append(" and ".join(known))
        for name in known:
            by_layer[BY_NAME[name].layer] += beyond / len(known)
    note = f"{'; '.join(shared)} act on the same tokens: halves, until an active round parts them" if shared else ""
    if unknown:
        note = "what no cause explains is counted with numerics" + (f"; {note}" if note else "")
    return _summed(columns, by_layer, note)


def _noise(part: Part, floor: float, names: tuple[str, ...]) -> float:
    """Numeric share of |d| in a part with another cause: the least that half of its small differences have, at most
    the floor."""
    if names == (NONE,):
        return float("inf")
    size = part.view.whole.size
    return min(floor, float(np.quantile(size, 0.1))) if size.size else 0.0


def _summed(columns: Columns, by_layer: dict[Layer, Floats], note: str) -> Attribution:
    begins = columns.begins
    counts = np.diff(np.append(begins, len(columns))).astype(np.float64)
    sums = {layer: np.add.reduceat(values, begins) for layer, values in by_layer.items()}
    random = np.random.default_rng(0)
    weights = random.multinomial(begins.size, np.full(begins.size, 1 / begins.size), _DRAWS).astype(np.float64)
    tokens = weights @ counts
    shares = []
    for layer in LAYERS:
        nats = float(sums[layer].sum() / counts.sum())
        if not nats:
            continue
        low, high = (float(one) for one in np.quantile(weights @ sums[layer] / tokens, (0.025, 0.975)))
        shares.append(Share(layer, nats, min(low, nats), max(high, nats)))
    total = float(sum(share.nats for share in shares))
    return Attribution(total, tuple(shares), "passive", len(columns), note)
