"""Synthetic runs for the rates of the parity verdict: seeds, noise, jumps and holes of chosen sizes. Seeded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from console.parity.rules import Rule, Rules
from console.parity.runs import Run, Series

Floats = npt.NDArray[np.float64]

LEVEL: Final = {
    "policy/clip_fraction": 0.1, "policy/kl_new_old": 0.01, "policy/entropy": 0.8, "reward/mean": 0.5,
    "mismatch/abs_diff_mean": 0.004,
}  # fmt: skip
"""Values around which the metrics vary, in units."""
NOISE: Final = {
    "policy/clip_fraction": 0.28, "policy/kl_new_old": 0.55, "policy/entropy": 0.09, "reward/mean": 0.022,
    "mismatch/abs_diff_mean": 0.002,
}  # fmt: skip
"""Noise of one step on the rule's scale, as in recorded runs of this project (tests/unit/parity_curves.py)."""
JUMP: Final = {"policy/clip_fraction": -0.8, "policy/kl_new_old": 0.8, "policy/entropy": -1.0, "reward/mean": 0.4}
"""What learning changes in a jump, on the rule's scale."""


@dataclass(frozen=True)
class Case:
    """One kind of healthy run.

    `apart`: spread over seeds in units of the rule's; half of its variance is there from the first step to the last if
    `wander` is set, the other half changes with a correlation of `wander` from step to step. `rho`: correlation of the
    noise. `early`: steps by which a jump of the learning comes earlier or later, uniform. `missing`: share of values
    that are not there, each metric and run by itself.
    """

    steps: int = 90
    references: int = 1
    apart: float = 1.0
    wander: float = 0.0
    rho: float = 0.3
    early: int = 0
    missing: float = 0.0


def correlated(random: np.random.Generator, shape: tuple[int, ...], rho: float) -> Floats:
    """Stationary AR(1) series of unit variance along the last axis, of any length; exact, by doubling the reach."""
    shocks: Floats = random.normal(size=shape)
    if rho == 0:
        return shocks
    values: Floats = shocks * np.sqrt(1 - rho**2)
    values[..., 0] = shocks[..., 0]
    # x_t = sum of rho^j e_(t-j): after each pass the sum reaches twice as far.
    reach, factor = 1, rho
    while reach < shape[-1] and factor > 1e-12:
        values[..., reach:] += factor * values[..., :-reach].copy()
        reach, factor = 2 * reach, factor * factor
    return values


def healthy(
    random: np.random.Generator,
    case: Case,
    rules: Rules,
    shift: Mapping[str, float] | None = None,
    since: int | None = None,
) -> list[Run]:
    """The references and then the run, all of them seeds of one configuration.

    `shift`: what is added to the run from the step with index `since` on (None: the middle), on the scale of the rule.
    """
    count, n = case.references + 1, case.steps
    at = np.arange(1, n + 1)
    series: list[dict[str, Series]] = [{} for _ in range(count)]
    # A jump belongs to a run, not to a metric.
    jumps = n // 3 + (random.integers(-case.early, case.early + 1, count) if case.early else np.zeros(count, np.int64))
    for name, rule in rules.metrics.items():
        seeds = random.normal(size=(count, 1)) * np.ones(n)
        if case.wander:
            seeds = np.sqrt(0.5) * (seeds + correlated(random, (count, n), case.wander))
        values = _centre(name, rule, n) + case.apart * rule.spread * seeds
        values += NOISE[name] * correlated(random, (count, n), case.rho)
        if case.early and name in JUMP:
            values += JUMP[name] * (at >= jumps[:, None])
        if shift is not None:
            values[-1, n // 2 if since is None else since :] += shift.get(name, 0.0)
        units = np.exp(values) - (rule.floor or 0.0) if rule.scale == "log" else values
        units = np.maximum(units, 0.0)
        there = random.random((count, n)) >= case.missing
        for one, own, known in zip(series, units, there, strict=True):
            one[name] = Series(at[known], own[known])
    return [Run(f"r{i}", one) for i, one in enumerate(series)]


def _centre(name: str, rule: Rule, n: int) -> Floats:
    """A curve that falls to its level in the first third of the run, by a third of it."""
    level = float(np.log(LEVEL[name] + (rule.floor or 0.0))) if rule.scale == "log" else LEVEL[name]
    learning = np.exp(-9 * np.arange(n) / n) if name in JUMP else np.zeros(n)
    return level - 0.4 * JUMP.get(name, 0.0) * learning
