"""Tokens that were drawn after the same tokens: what d is a function of there, and what is left of it. Pure.

Within one context d = log q(y) - log p(y) for the same two distributions, whatever y was drawn: a temperature makes the
engine's logprobs a multiple of the trainer's plus a constant, a mask or a truncation a constant alone. What neither
explains is another cause; it is found by subtracting, however small it is beside the first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from console.diagnosis.columns import Columns, Floats, Longs
from console.diagnosis.instruments.view import FEW, View, number, reading
from console.diagnosis.model import Reading

_FEWEST: Final = 16
_ROUNDS: Final = 12
_LEAST: Final = 1e-7
EVERY: Final = 0.93
"""Share of ids from which on it counts as all."""
LEAST_EQUAL: Final = 0.03
"""Share of pairs. Penalties of 1.2 gave .08 to .17 in recorded runs, masks all, all other causes at most .014."""
_FEWEST_PAIRS: Final = 4


class Within(NamedTuple):
    """Over contexts with two different tokens, and how many `tokens` these have. `slope` of the engine's logprob on the
    trainer's: least absolute deviations, so that a second cause on fewer than half of the tokens does not move it.
    `spread` of d within contexts and `left`, what the slope leaves of it: 1.48 times the median; `between` contexts:
    root mean square of their means.
    """

    slope: float
    spread: float
    between: float
    left: float
    tokens: int


def groups(columns: Columns) -> Longs:
    """A number for context, version and engine together; -1 where the context is not known."""
    known = columns.context >= 0
    mixed = columns.context ^ ((columns.version.astype(np.int64) + 2) << 40) ^ (columns.engine.astype(np.int64) + 2)
    return np.where(known, np.abs(mixed), -1)


def several(columns: Columns) -> tuple[Longs, Longs]:
    """Places of tokens in contexts with two different tokens or more, each token once, and the context of each,
    numbered from 0."""
    keys = groups(columns)
    ok = np.flatnonzero((keys >= 0) & ~columns.zero & (columns.rollout > -40) & (columns.trainer > -40))
    if not ok.size:
        return ok, ok
    _, inverse = np.unique(keys[ok], return_inverse=True)
    _, first = np.unique(inverse * np.int64(1 << 32) + columns.ids[ok], return_index=True)
    counts = np.bincount(inverse[first])
    chosen = first[counts[inverse[first]] >= 2]
    _, at = np.unique(inverse[chosen], return_inverse=True)
    return ok[chosen], at.astype(np.int64)


def centred(values: Floats, at: Longs) -> tuple[Floats, Floats, Longs]:
    """Values less the mean of their context, these means, and how many tokens each context has."""
    counts = np.bincount(at)
    centres = np.bincount(at, weights=values) / counts
    return values - centres[at], centres, counts


def within(columns: Columns) -> Within | None:
    """None where too few contexts have two different tokens."""
    places, at = several(columns)
    if places.size < _FEWEST:
        return None
    dr, _, counts = centred(columns.rollout[places], at)
    dt, _, _ = centred(columns.trainer[places], at)
    _, centres, _ = centred(columns.d[places], at)
    slope, weights = 1.0, np.ones(dt.size)
    for _ in range(_ROUNDS):
        slope = float((weights * dr * dt).sum() / max(float((weights * dt * dt).sum()), 1e-12))
        weights = 1 / np.maximum(np.abs(dr - slope * dt), _LEAST)
    scale = 1.48 * float(np.sqrt(at.size / max(at.size - counts.size, 1)))
    spread, left = (scale * float(np.median(np.abs(dr - one * dt))) for one in (1.0, slope))
    return Within(slope, spread, float(np.sqrt(np.square(centres).mean())), left, int(at.size))


def context(view: View) -> Reading:
    """Whether d, after the same tokens, depends on the token drawn, and if so as a temperature."""
    found = within(view.columns) if view.mean > view.floor / 10 else None
    if found is None:
        return reading("context", "few", float("nan"), "too few tokens were drawn after the same tokens")
    noise = max(view.floor / 3, 1e-4)
    share = _equal(view.columns, noise / 3)
    if LEAST_EQUAL < share < 1 - LEAST_EQUAL:
        text = (
            f"after the same tokens d is equal for {share:.0%} of the pairs of different tokens, and far apart for the "
            "others: some ids are treated alike, others not"
        )
        return reading("context", "some ids", share, text, unit="share")
    # What rounding makes of a bfloat16 body is no dependence on the token; far from each other two distributions differ
    # by some nats everywhere, and a truncation explains d within a context exactly.
    if found.spread < max(min(0.1 * found.between, 0.05), noise / 2) and found.between > max(
        noise / 3, 2 * found.spread
    ):
        text = f"after the same tokens d is the same whatever token was drawn: {number(found.spread)} nats"
        return reading("context", "position only", found.spread, text, unit="nats")
    explained = found.left < 0.2 * found.spread or found.left < noise / 10
    if explained and abs(found.slope - 1) > 0.02:
        run = view.facts.temperature
        own = np.isfinite(run) and min(abs(found.slope - run), abs(found.slope - 1 / max(run, 1e-3))) < 0.012
        text = f"after the same tokens the engine's logprobs are {found.slope:.3f} times the trainer's"
        text += f", as by the run's temperature of {run:g}" if own else ", as by a temperature"
        return reading(
            "context", "run's temperature" if own else "another temperature", found.slope, text, unit="slope"
        )
    text = f"after the same tokens d differs by {number(found.spread)} nats between the tokens drawn"
    return reading("context", "token", found.spread, text, unit="nats")


def _equal(columns: Columns, noise: float) -> float:
    """Share of pairs of different tokens after the same tokens, neighbours by d, whose d is the same but for noise; in
    contexts where d is above it, and where the others differ by far more. NaN where that cannot be said.

    A penalty changes the logits of some ids and leaves the others theirs: d of two of the latter is one constant, the
    normaliser's. Other weights, dropout or a temperature leave no two logits as they were.
    """
    places, at = several(columns)
    d = columns.d[places]
    off = np.zeros(int(at.max()) + 1, dtype=bool)
    off[at[np.abs(d) > noise]] = True
    order = np.lexsort((d, at))
    order = order[off[at[order]]]
    at, d = at[order], d[order]
    gaps = np.diff(d)[at[1:] == at[:-1]]
    equal = gaps <= noise
    if min(int(equal.sum()), int((~equal).sum())) < _FEWEST_PAIRS:
        return float("nan")
    # Gaps of neighbours are about exponential: so many of those that differ are within the noise by chance.
    chance = noise / float(np.median(gaps[~equal]))
    share = float(equal.mean())
    return share if share > 4 * chance else float("nan")


def remainder(columns: Columns) -> Columns | None:
    """What a temperature, a mask or a truncation leaves of d, over tokens whose context has another one: columns whose
    trainer's logprobs are as they were and whose d is the remainder. None where too few contexts have two tokens.

    Sequences, contexts and seams stay those of the whole.
    """
    found = within(columns)
    places, at = several(columns)
    if found is None or places.size < 2 * FEW:
        return None
    left, _, counts = centred(columns.rollout[places] - found.slope * columns.trainer[places], at)
    left = left * np.sqrt(counts / (counts - 1))[at]
    order = np.argsort(places)
    chosen = np.zeros(len(columns), dtype=bool)
    chosen[places] = True
    part = columns.take(chosen)
    made = replace(part, rollout=part.trainer + left[order])
    for name in ("context", "seam", "repeated"):
        made.__dict__[name] = getattr(part, name)
    return made


def _one_way(view: View) -> bool:
    """Whether all ids that occurred before are lowered, or all new ones raised, as a penalty does: the former where few
    of the likely ids are repeated (or the prompt's ids count too), the latter where most are. Other weights do neither.
    """
    columns = view.columns
    plain = (columns.size > view.noise) & ~columns.zero
    old, new = columns.d[plain & columns.repeated], columns.d[plain & ~columns.repeated]
    return bool(old.size and ((old < 0).mean() > EVERY or (new.size and (new > 0).mean() > EVERY)))


def repeats(view: View) -> Reading:
    """d of ids that the sequence has had before against new ones: a penalty lowers the former alone. After the same
    tokens where there are enough, else over all tokens."""
    columns = view.columns
    if not view.mean > view.floor / 10:
        return reading("repeats", "few", float("nan"), "nothing differs between repeated and new ids")
    places, at = several(columns)
    d = centred(columns.d[places], at)[0] if places.size else columns.d[places]
    old, within_ = columns.repeated[places], "after the same tokens, "
    if min(int(old.sum()), int((~old).sum())) < FEW // 2:
        d, old, within_ = columns.d, columns.repeated, ""
    if min(int(old.sum()), int((~old).sum())) < FEW // 2:
        return reading("repeats", "few", float("nan"), "too few ids occur twice in a sequence")
    low, high = float(d[old].mean()), float(d[~old].mean())
    usual = float(np.abs(d).mean())
    contrast = (high - low) / max(usual, 1e-9)
    lowered = contrast > 0.7 and low < 0 < high + 0.2 * abs(low) and _one_way(view)
    text = f"{within_}d is {number(low)} nats on ids that occurred before, {number(high)} on new ones"
    return reading("repeats", "lowered" if lowered else "no", contrast, text, unit="of mean |d|")
