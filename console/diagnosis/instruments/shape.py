"""What the difference is a function of: whose distribution was sampled, repeatability, shifts, ids, grids. Pure.

Source of the formula: for y ~ q and any distribution p with the same support, E[p(y) / q(y)] = 1 (importance sampling).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from console.diagnosis.columns import Columns, Floats
from console.diagnosis.instruments.contexts import groups
from console.diagnosis.instruments.view import FEW, View, mean, number, reading, unsure
from console.diagnosis.model import Reading

CLIP: Final = 6.0
"""Nats at which a ratio is cut: e^6."""


def sampler(view: View) -> Reading:
    """Both importance ratios: the mean of exp(-d) is 1 if tokens were drawn from what the engine reports, that of
    exp(d) if they were drawn from the trainer's distribution. Standard errors over sequences."""
    columns = view.columns
    if len(columns) < 4 * FEW or not view.mean > view.floor / 3:
        return reading("sampler", "either's", float("nan"), "the two distributions are too near to tell them apart")
    forth, back = np.exp(np.clip(-columns.d, -CLIP, CLIP)) - 1, np.exp(np.clip(columns.d, -CLIP, CLIP)) - 1
    (a, sa), (b, sb) = _of_sequences(columns, forth), _of_sequences(columns, back)
    sa, sb = max(sa, _unseen(columns.rollout, columns.trainer)), max(sb, _unseen(columns.trainer, columns.rollout))
    own, theirs = abs(a) < 4 * sa or abs(a) < 0.003, abs(b) < 4 * sb or abs(b) < 0.003
    if own and theirs:
        # Both fit: the one whose deviation is far smaller than the other's, against what the size allows.
        spread = float(np.square(columns.d).mean()) / 2
        own, theirs = abs(a) < spread / 4 or abs(a) < 2.5 * sa, abs(b) < spread / 4 or abs(b) < 2.5 * sb
        if own == theirs:
            return reading("sampler", "either's", a, "the two distributions are too near to tell them apart")
    outcome = "engine's" if own and not theirs else "trainer's" if theirs and not own else "neither's"
    text = f"mean trainer/engine ratio {1 + a:.3f}, engine/trainer {1 + b:.3f}: 1 marks the distribution drawn from"
    return reading("sampler", outcome, 1 + a, text)


def _unseen(drawn: Floats, other: Floats) -> float:
    """Standard error of the mean ratio if tokens were drawn from the first of two, each token against all others as
    one: of a policy that is nearly certain the rare tokens that make the mean 1 are mostly not among those drawn."""
    q, p = np.exp(np.minimum(drawn, 0)), np.exp(np.minimum(other, 0))
    rest = np.where(1 - q > 1e-6, np.minimum((1 - p) ** 2 / np.maximum(1 - q, 1e-6), np.exp(CLIP)), 0.0)
    variance = np.minimum(p**2 / np.maximum(q, 1e-7), np.exp(CLIP)) + rest - 1
    return float(np.sqrt(np.maximum(variance, 0).sum())) / drawn.size


def _of_sequences(columns: Columns, values: Floats) -> tuple[float, float]:
    """Mean over tokens and its standard error, sequences counting as independent."""
    begins = columns.begins
    sums = np.add.reduceat(values, begins)
    counts = np.diff(np.append(begins, len(columns)))
    average = float(sums.sum() / counts.sum())
    residual = sums - average * counts
    return average, float(np.sqrt(np.square(residual).sum())) / float(counts.sum())


def repeatable(view: View, size: float | None = None) -> Reading:
    """Spread of each side's logprob over the same token after the same tokens, under the same weights and engine,
    against `size`: the root mean square of d over these tokens, where it is not given."""
    columns = view.columns
    keys = groups(columns)
    ok = (keys >= 0) & (columns.seam == 0) & ~columns.zero
    if int(ok.sum()) < FEW or not view.mean > view.floor / 3:
        return reading("repeatable", "few", float("nan"), "no token was drawn twice after the same tokens")
    pair = keys[ok] ^ (columns.ids[ok].astype(np.int64) * 0x9E3779B1) ^ (columns.engine[ok].astype(np.int64) + 2)
    _, inverse, counts = np.unique(pair, return_inverse=True, return_counts=True)
    several = (counts >= 2)[inverse] & (columns.trainer[ok] < -1e-4)
    if int(several.sum()) < 24:
        return reading("repeatable", "few", float("nan"), "too few tokens were drawn twice after the same tokens")
    _, inverse = np.unique(inverse[several], return_inverse=True)
    counts = np.bincount(inverse)

    def spread(values: Floats) -> float:
        away = values - (np.bincount(inverse, weights=values) / counts)[inverse]
        return float(np.sqrt(np.square(away).sum() / max(inverse.size - counts.size, 1)))

    size = float(np.sqrt(np.square(columns.d[ok][several]).mean())) if size is None else size
    engine, trainer = spread(columns.rollout[ok][several]), spread(columns.trainer[ok][several])
    limit = max(0.25 * size, 2e-5)
    outcome = (
        "neither" if engine > limit and trainer > limit
        else "engine differs" if engine > limit else "trainer differs" if trainer > limit else "both do"
    )  # fmt: skip
    text = f"the same token after the same tokens spreads by {number(engine)} nats in the engine"
    text += f", {number(trainer)} in the trainer"
    return reading("repeatable", outcome, max(engine, trainer), text, unit="nats")


_STEP: Final = 2.0**-9
"""Nats. Logits of 1/4 and more that were rounded to bfloat16 (8 bits) are multiples of it."""
_NEAR: Final = 1.2e-5
"""Nats within which a float32 logprob's difference counts as a multiple: chance alone gives 1.2 %."""
_PAIRS: Final = 8


def grid(view: View) -> Reading:
    """Which side's logits lie on the grid of bfloat16: after the same tokens, the difference of two tokens' logprobs
    times the temperature is that of their logits, without the normalising sum."""
    columns = view.columns
    found = _steps(columns)
    if found is None:
        return reading("grid", "few", float("nan"), "too few different tokens were drawn after the same tokens")
    run = view.facts.temperature
    scales = {1.0, run} if np.isfinite(run) and run > 0 else {1.0}
    engine, trainer = (max(_on_grid(one * scale) for scale in scales) for one in found)
    outcome = (
        "both" if engine > 0.5 and trainer > 0.5
        else "engine" if engine > 0.5 else "trainer" if trainer > 0.5 else "neither"
    )  # fmt: skip
    text = (
        f"{engine:.0%} of the engine's and {trainer:.0%} of the trainer's logit differences lie on the grid of bfloat16"
    )
    return reading("grid", outcome, max(engine, trainer), text, unit="share")


def _steps(columns: Columns) -> tuple[Floats, Floats] | None:
    """Differences of the logprobs of two tokens drawn after the same tokens: the engine's, the trainer's."""
    keys = groups(columns)
    keep = (keys >= 0) & ~columns.zero & (columns.rollout > -20) & (columns.trainer > -20)
    order = np.flatnonzero(keep)[np.lexsort((columns.ids[keep], columns.engine[keep], keys[keep]))]
    same = (keys[order][1:] == keys[order][:-1]) & (columns.engine[order][1:] == columns.engine[order][:-1])
    same &= columns.ids[order][1:] != columns.ids[order][:-1]
    if int(same.sum()) < _PAIRS:
        return None
    r, t = columns.rollout[order], columns.trainer[order]
    return (r[1:] - r[:-1])[same], (t[1:] - t[:-1])[same]


def _on_grid(differences: Floats) -> float:
    away = np.abs(differences - np.round(differences / _STEP) * _STEP)
    return float((away < _NEAR).mean())


def surprise(view: View) -> Reading:
    """Regression of d on the engine's logprob. A flatter or sharper distribution has a slope there; noise and other
    weights, from which the engine has drawn, have none."""
    columns = view.columns
    r = np.maximum(columns.rollout, -20.0)
    if len(columns) < 4 * FEW or not view.mean > view.floor / 3 or not r.std():
        return reading("surprise", "few", float("nan"), "too few tokens, or nothing to follow")
    d = np.clip(columns.d, -5, 5)
    slope = float(np.cov(r, d)[0, 1] / r.var())
    share = _correlation(r, d) ** 2
    outcome = "no" if abs(slope) < 0.03 or share < 0.15 else "flattened" if slope < 0 else "sharpened"
    text = f"d changes by {number(slope)} nats with each nat of the engine's logprob ({share:.0%} of its variance)"
    return reading("surprise", outcome, slope, text, unit="slope")


def shift(view: View) -> Reading:
    """Correlation of the engine's logprobs with the trainer's one token to either side, over tokens whose own differ
    most: a shift may begin within a sequence, and tokens before it would hide it."""
    columns = view.columns
    if len(columns) < 4 * FEW or not view.mean > view.floor:
        return reading("shift", "few", float("nan"), "too few tokens, or nothing to shift")
    r, t = np.maximum(columns.rollout, -20.0), np.maximum(columns.trainer, -20.0)
    same = columns.seq[1:] == columns.seq[:-1]
    # Where either side is nearly certain its neighbour mostly is too, which says nothing.
    far = (columns.size > view.mean) & unsure(columns)
    if int(far.sum()) < FEW // 2:
        return reading("shift", "few", float("nan"), "too few tokens differ to say whether they are shifted")
    here = _correlation(r, t)
    ahead = _correlation(r[:-1][same & far[:-1]], t[1:][same & far[:-1]])
    behind = _correlation(r[1:][same & far[1:]], t[:-1][same & far[1:]])
    best = max(ahead, behind)
    text = f"where they differ most, the logprobs of neighbouring tokens correlate by {best:.2f}; in place {here:.2f}"
    return reading("shift", "shifted" if best > 0.5 and here < 0.9 else "in place", best, text)


def _correlation(a: Floats, b: Floats) -> float:
    if a.size < FEW // 2 or not a.std() or not b.std():
        return 0.0
    # Of few tokens a correlation is less sure: the lower end of its 90 % interval (Fisher's transformation).
    least = float(np.corrcoef(a, b)[0, 1])
    return float(np.tanh(np.arctanh(min(least, 1 - 1e-12)) - 1.3 / np.sqrt(a.size - 3))) if a.size < FEW else least


def ids(view: View) -> Reading:
    """Share of the variance of d that lies between ids, beyond what chance gives (adjusted eta squared)."""
    columns = view.columns
    if len(columns) < 4 * FEW or not view.mean > view.floor / 3:
        return reading("ids", "few", float("nan"), "too few tokens, or nothing to split by id")
    _, inverse = np.unique(columns.ids, return_inverse=True)
    counts = np.bincount(inverse)
    usual = (counts >= 5)[inverse]
    if int(usual.sum()) < 2 * FEW:
        return reading("ids", "few", float("nan"), "no id occurs often enough")
    d = np.clip(columns.d[usual], -5, 5)
    _, inverse = np.unique(inverse[usual], return_inverse=True)
    counts = np.bincount(inverse)
    centres = np.bincount(inverse, weights=d) / counts
    inner, total = float(np.square(d - centres[inverse]).sum()), float(np.square(d - d.mean()).sum())
    n, k = d.size, counts.size
    share = 1 - (inner / max(n - k, 1)) / max(total / (n - 1), 1e-30)
    outcome = "by id" if share > 0.5 else "some" if share > 0.15 else "no"
    return reading(
        "ids", outcome, share, f"{max(share, 0):.0%} of the variance of d lies between token ids", unit="share"
    )


def surprise_means(columns: Columns) -> tuple[list[str], list[float]]:
    """Mean |d| by the trainer's probability of the token, from certain to rare."""
    edges = (0.0, 0.01, 0.1, 0.3, 0.7, 0.9, 1.01)
    p = np.exp(np.minimum(columns.trainer, 0))
    pairs = [(a, b, (p >= a) & (p < b)) for a, b in pairwise(edges)]
    return [f"{a:g}-{min(b, 1):g}" for a, b, _ in pairs], [mean(np.minimum(columns.size[m], 5)) for _, _, m in pairs]
