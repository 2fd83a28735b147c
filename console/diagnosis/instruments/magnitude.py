"""How large, of which sign, how far the tails: instruments over d alone. Pure."""

from __future__ import annotations

import numpy as np

from console.diagnosis.instruments.view import FEW, View, number, reading, relative_size
from console.diagnosis.model import Reading

STEP = 10.0
"""Factor between the outcomes of `size`."""


def size(view: View) -> Reading:
    """Mean |d| against the floor of the stack: at it, up to ten times, a hundred times, or more."""
    seen, floor = view.mean, view.floor
    ratio = seen / floor
    outcome = "floor" if not ratio > 1 else "above" if ratio <= STEP else "far" if ratio <= STEP**2 else "beyond"
    text = f"mean |d| is {number(seen)} nats, {number(floor)} is normal for this stack"
    return reading("size", outcome, seen, text, unit="nats")


def relative(view: View) -> Reading:
    """|d| for each uncertainty: some .01 by rounding of logits, a tenth by another temperature, more by weights."""
    value = relative_size(view.columns)
    if not view.mean > view.floor:
        return reading("relative", "few", value, "mean |d| is within the floor")
    outcome = "slight" if value < 0.03 else "some" if value < 0.1 else "plain" if value < 0.5 else "far"
    text = f"|d| is {number(value)} nats for each 1 - p, the probability of another token"
    return reading("relative", outcome, value, text)


def sign(view: View) -> Reading:
    """Share of the sum of |d| in which the engine is higher; |d| within the noise does not count."""
    d = view.columns.d[view.columns.size > view.noise]
    if d.size < FEW or view.mean <= view.floor / STEP:
        return reading("sign", "both", float("nan"), "too few tokens differ to say whether d has one sign")
    up = float(np.maximum(d, 0).sum() / np.abs(d).sum())
    outcome = (
        "engine higher" if up > 0.97 else "engine lower" if up < 0.03
        else "mostly higher" if up > 0.7 else "mostly lower" if up < 0.3 else "both"
    )  # fmt: skip
    text = f"the engine is higher in {up:.0%} of the sum of |d|"
    return reading("sign", outcome, up, text, unit="share")


def tails(view: View) -> Reading:
    """The 99th percentile of |d| against its median; "few far": less than 1 % of the tokens make half of the sum."""
    size = view.columns.size
    if size.size < FEW:
        return reading("tails", "usual", float("nan"), "too few tokens for a tail")
    middle, far = (float(one) for one in np.quantile(size, (0.5, 0.99)))
    ratio = far / max(middle, 1e-6)
    total = float(size.sum())
    top = float(np.sort(size)[-max(size.size // 100, 1) :].sum())
    outcome = "few far" if total and top > 0.5 * total else "heavy" if ratio > 60 else "usual"
    text = f"the 99th percentile of |d| is {number(ratio)} times the median"
    return reading("tails", outcome, ratio, text, unit="times")


def bound(view: View) -> Reading:
    """Whether d > 0 has a largest value that many tokens come near: log(top_p) bounds what top-p renormalises."""
    d = view.columns.d[~(view.columns.last & view.columns.zero)]
    d = d[d > view.noise]
    if d.size < FEW or view.mean <= view.floor / STEP:
        return reading("bound", "no", float("nan"), "too few tokens to look for a bound")
    most = float(d.max())
    # With top-p most positions have little more than top_p: the top tenth lies within a fifth of the bound.
    near = float(np.quantile(d, 0.9)) / most
    outcome = "no" if most > 0.6 or near < 0.55 else "sharp" if near > 0.8 else "bounded"
    text = f"no d is above {number(most)} nats, a tenth lies above {number(near * most)}"
    # A token with top_p of the mass or more is kept alone by top-p: the engine is then certain of it, exactly.
    alone = view.columns.trainer > -most / 2
    if outcome == "sharp" and int(alone.sum()) >= FEW and float((view.columns.rollout[alone] == 0.0).mean()) < 0.5:
        text += ", but the engine is not certain of tokens that are likelier than that"
        outcome = "bounded"
    return reading("bound", outcome, most, text, unit="nats")
