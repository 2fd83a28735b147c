"""Curves for the statistics of the parity verdict, in the sizes of real runs of this project. Nothing here is measured.

Trend, noise of the step and spread over seeds follow recorded reference runs (reverse-digits, tiny model, 90 steps):
noise of 0.28 (log clip rate), 0.55 (log KL), 0.09 (log entropy), 0.022 (reward); mismatch with many exact zeros. A seed
differs by its pace of learning, a constant and a slow wander; `stretch` multiplies all three.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from console.parity.runs import Run, Series

Floats = npt.NDArray[np.float64]


def ar1(random: np.random.Generator, n: int, rho: float) -> Floats:
    """A stationary AR(1) series of unit variance."""
    shocks = random.normal(size=n) * np.sqrt(1 - rho**2)
    series = np.empty(n)
    now = random.normal()
    for i in range(n):
        now = rho * now + shocks[i]
        series[i] = now
    return series


def healthy(seed: int, *, steps: int = 90, rho: float = 0.3, stretch: float = 1.0) -> dict[str, Floats]:
    """One seed of a healthy run; `rho` is the correlation of the noise from step to step."""
    random = np.random.default_rng(seed)
    at = np.arange(steps) / 90 * np.exp(random.normal(0, 0.05 * stretch))
    learnt = 1 - np.exp(-2.5 * at)

    def noisy(size: float, spread: float) -> Floats:
        slow = 0.7 * random.normal() + 0.7 * ar1(random, steps, 0.95)
        return size * ar1(random, steps, rho) + spread * stretch * slow

    # Of the backend, not of the learning: neither slower nor smoother where the learning is.
    bursts = 0.75 * ar1(random, steps, 0.3) + 0.2 * random.normal()
    return {
        "policy/clip_fraction": np.exp(np.log(0.2) - 1.1 * at + noisy(0.28, 0.15)),
        "policy/kl_new_old": np.exp(np.log(0.013) + 0.8 * at + noisy(0.55, 0.3)),
        "policy/entropy": np.exp(np.log(1.25) - 2.4 * learnt + noisy(0.09, 0.1)),
        "reward/mean": 0.43 + 0.44 * learnt + noisy(0.022, 0.012),
        "mismatch/abs_diff_mean": np.maximum(0.0045 * np.exp(bursts) - 0.0015, 0.0),
    }


def as_run(name: str, curves: dict[str, Floats], first: int = 1) -> Run:
    """Curves as a run whose steps count from `first`."""
    n = len(next(iter(curves.values())))
    return Run(name, {key: Series(np.arange(first, first + n), values) for key, values in curves.items()})
