"""Made-up steps whose sequences are alike within a prompt and within a step, with a known mean. Pure numpy, seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.measure import cells
from trainer.measure.cells import Rows

PROMPTS = 16
SAMPLES = 8


@dataclass(frozen=True)
class Made:
    """What sequences are like.

    `prompt`: correlation of the sequences of a prompt; `step`: coefficient of variation that all sequences of a step
    share; `neighbours`: correlation of that between neighbouring steps; `spread`: the same of a single sequence, of a
    skewed (lognormal) distribution; `trend`: relative growth of the mean a step.
    """

    prompt: float = 0.0
    step: float = 0.0
    neighbours: float = 0.0
    spread: float = 0.6
    trend: float = 0.0
    length: int = 8


def steps(
    rng: np.random.Generator, made: Made, levels: npt.ArrayLike, *, prompts: int = PROMPTS, samples: int = SAMPLES
) -> list[Rows]:
    """Rows of one step for each of `levels` [N]: means of |d| by token, of which clip fraction and k3 are half."""
    level = np.asarray(levels, np.float64)
    count = len(level)
    shape = (count, prompts, samples)
    group, own = rng.standard_normal((count, prompts, 1)), rng.standard_normal(shape)
    sigma = np.sqrt(np.log1p(made.spread**2))
    factor = np.exp(sigma * (np.sqrt(made.prompt) * group + np.sqrt(1 - made.prompt) * own) - sigma**2 / 2)
    shared = np.sqrt(np.log1p(made.step**2))
    noise = _autoregressive(rng, count, made.neighbours)
    level = level * np.exp(shared * noise - shared**2 / 2) * (1 + made.trend) ** (np.arange(count) - (count - 1) / 2)
    tokens = rng.integers(1, 2 * made.length, shape).astype(np.float64)
    mean = level[:, None, None] * factor
    numbers = np.zeros((*shape, cells.COLUMNS))
    numbers[..., cells.TOKENS] = numbers[..., cells.WHOLE_TOKENS] = numbers[..., cells.COUNTED] = tokens
    numbers[..., cells.ABS_DIFF] = tokens * mean
    numbers[..., cells.CLIPPED] = rng.binomial(tokens.astype(int), np.minimum(mean / 2, 1.0))
    numbers[..., cells.KL] = tokens * mean / 2
    groups = np.repeat(np.arange(prompts), samples)
    version = np.zeros(prompts * samples, np.int64)
    return [Rows(one.reshape(-1, cells.COLUMNS), version + at, version + at, groups) for at, one in enumerate(numbers)]


def _autoregressive(rng: np.random.Generator, count: int, correlation: float) -> npt.NDArray[np.float64]:
    noise = rng.standard_normal(count)
    for at in range(1, count):
        noise[at] = correlation * noise[at - 1] + np.sqrt(1 - correlation**2) * noise[at]
    return noise


def side(rows: list[Rows], first: int = 0) -> cells.Side:
    """Steps numbered from `first` as one side."""
    return cells.side((first + at, cells.cells(one)) for at, one in enumerate(rows))
