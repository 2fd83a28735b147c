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
from console.diagnosis.judging import Judged
from console.diagnosis.model import LAYERS, UNKNOWN, Attribution, Layer, Share
from console.diagnosis.parts import Part

_DRAWS: Final = 200


def attribute(columns: Columns, judged: Sequence[Judged], facts: Facts) -> Attribution | None:
    """Shares of the mean |d| over all tokens; None without tokens."""
    if not len(columns):
        return None
    notes: list[str] = []
    by_layer = {layer: np.zeros(len(columns)) for layer in LAYERS}
    parts = [one for one in judged if not one.beneath]
    rest = next((one.part for one in parts if one.part.name == "rest"), parts[-1].part)
    usual = float(rest.view.whole.size.mean()) if len(rest.view.whole) else 0.0
    below = [(name, one.weight) for one in judged if one.beneath for name in one.best if name in BY_NAME]
    for one in parts:
        own = np.where(one.part.mask, columns.size, 0.0)
        known = [name for name in one.best if name in BY_NAME]
        if not known:
            by_layer["numerics"] += own
            notes += ["what no cause explains is counted with numerics"] if UNKNOWN in one.best else []
            continue
        apart = one.part is not rest and one.part.name != "before"
        base = np.minimum(own, usual if apart else _noise(one.part, facts.floor[0]))
        by_layer["numerics"] += np.minimum(base, facts.floor[0])
        beyond = own - np.minimum(base, facts.floor[0])
        shares = {name: 1 / len(known) for name in known}
        if below and one.part.name != "last":
            other = sum(weight for _, weight in below) / len(below)
            shares = {name: (1 - other) * share for name, share in shares.items()}
            for name, _ in below:
                shares[name] = shares.get(name, 0.0) + other / len(below)
            notes.append(f"{' and '.join(shares)} act on the same tokens: parted by what the first leaves of d")
        elif len(known) > 1:
            notes.append(f"{' and '.join(known)} act on the same tokens: halves, until an active round parts them")
        for name, share in shares.items():
            by_layer[BY_NAME[name].layer] += share * beyond
    return _summed(columns, by_layer, "; ".join(dict.fromkeys(notes)))


def _noise(part: Part, floor: float) -> float:
    """Numeric share of |d| in a part with another cause: what its smallest differences have, at most the floor."""
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
