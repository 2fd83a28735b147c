"""What the instruments look at: some tokens, the floor of the stack, and the means of every version so far. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from console.diagnosis.columns import Columns, Floats, Mask
from console.diagnosis.facts import NOTHING, Facts
from console.diagnosis.instruments.catalogue import BY_NAME
from console.diagnosis.model import Reading

FEW = 40
"""Tokens below which an instrument says nothing of a part."""
UNSURE = 0.02
"""Nats below 0 from which on a token was one of several that could have been drawn."""
UNITS = 8
"""Fewest prompts of a group that is compared with another one; sequences, where prompts are not known."""


@dataclass(frozen=True)
class View:
    """`columns` are tokens in which the cause acts, as far as that is known; `whole` all that are at hand."""

    columns: Columns
    whole: Columns
    facts: Facts = NOTHING
    history: tuple[tuple[int, float, float], ...] = field(default=())
    """(version, tokens, sum of |d|) of versions before those in `whole`."""

    @cached_property
    def floor(self) -> float:
        return self.facts.floor[0]

    @cached_property
    def mean(self) -> float:
        """Mean |d|, each at most 5 nats so that one token does not decide it; NaN without tokens."""
        size = self.columns.size
        return float(np.minimum(size, 5.0).mean()) if size.size else float("nan")

    @cached_property
    def noise(self) -> float:
        """|d| below this is rounding: a fiftieth of the mean, and a float32 logprob's own grid at least."""
        return max(self.mean / 50, 5e-6)


def reading(instrument: str, outcome: str, value: float, text: str, *, unit: str = "", where: str = "") -> Reading:
    """A reading of a passive instrument; its outcome must be one that the instrument has."""
    if outcome not in BY_NAME[instrument].outcomes:
        raise ValueError(
            f"{instrument}: '{outcome}' is no outcome; there are {', '.join(BY_NAME[instrument].outcomes)}"
        )
    return Reading(instrument, outcome, value, text, unit, where)


def number(value: float) -> str:
    """Two digits: .038, 1.2, 3e-06."""
    if not np.isfinite(value):
        return "no number"
    if value and abs(value) < 1e-3:
        return f"{value:.0e}"
    text = f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def mean(values: Floats) -> float:
    """The mean, NaN of nothing."""
    return float(values.mean()) if values.size else float("nan")


def separation(columns: Columns, chosen: Mask, *, by_version: bool = False) -> float:
    """By how many standard errors log mean |d| is higher in the tokens that are chosen than in the others. Those of one
    prompt in a step count as one: its samples are alike. Few tokens with large |d| make a mean, but no separation.

    Certain tokens say nothing, where there are enough others. `by_version`: less the mean of the tokens' version. NaN
    where fewer than UNITS prompts have such tokens."""
    open_ = unsure(columns)
    found = _separation(columns.take(open_), chosen[open_], by_version)
    return found if np.isfinite(found) else _separation(columns, chosen, by_version)


def _separation(columns: Columns, chosen: Mask, by_version: bool) -> float:
    if not len(columns):
        return float("nan")
    unit = np.where(columns.prompt >= 0, columns.prompt * 4096 + columns.step % 4096, -columns.seq - 1)
    unit = (unit * 2 + chosen) * 65536 + (columns.version % 65535 + 1 if by_version else 0)
    _, first, at, counts = np.unique(unit, return_index=True, return_inverse=True, return_counts=True)
    logs = np.log(np.bincount(at, weights=np.minimum(columns.size, 5.0)) / counts + 1e-7)
    if by_version:
        _, at = np.unique(columns.version[first], return_inverse=True)
        logs -= (np.bincount(at, weights=logs) / np.bincount(at))[at]
    a, b = logs[chosen[first]], logs[~chosen[first]]
    if min(a.size, b.size) < UNITS:
        return float("nan")
    return float((a.mean() - b.mean()) / max(np.sqrt(a.var() / a.size + b.var() / b.size), 1e-9))


def unsure(columns: Columns) -> Mask:
    """Tokens that were one of several by either side: where both are nearly certain hardly any cause shows."""
    found: Mask = np.minimum(columns.rollout, columns.trainer) < -UNSURE
    return found


def relative_size(columns: Columns) -> float:
    """Sum of |d|, each at most 5 nats, over that of 1 - p, the trainer's probability of another token: what a change of
    logits makes of a logprob is in proportion to it, so that a policy's certainty falls out. NaN without tokens."""
    if not len(columns):
        return float("nan")
    away = -np.expm1(np.minimum(columns.trainer, 0))
    return float(np.minimum(columns.size, 5.0).sum() / max(away.sum(), 1e-6 * away.size))
