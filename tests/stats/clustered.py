"""Made-up steps whose sequences are alike within a prompt and within a step, with a known mean. Pure numpy, seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.measure import cells
from trainer.measure.cells import Rows, Side

Array = npt.NDArray[np.float64]

PROMPTS = 16
SAMPLES = 8
LENGTH = 8
"""Mean tokens of a sequence."""


@dataclass(frozen=True)
class Made:
    """What sequences are like.

    `prompt`: correlation of the sequences of a prompt; `step`: coefficient of variation that all sequences of a step
    share; `neighbours`: correlation of that between neighbouring steps; `spread`: the same of a single sequence, of a
    skewed (lognormal) distribution.
    """

    prompt: float = 0.0
    step: float = 0.0
    neighbours: float = 0.0
    spread: float = 0.6


def numbers(rng: np.random.Generator, made: Made, levels: npt.ArrayLike) -> Array:
    """[steps, PROMPTS, SAMPLES, COLUMNS] for steps with means of |d| by token of `levels` [steps].

    The clip fraction and k3 have means of half of that; what is clipped is drawn token by token.
    """
    level = np.asarray(levels, np.float64)
    shape = (len(level), PROMPTS, SAMPLES)
    group, own = rng.standard_normal((*shape[:2], 1)), rng.standard_normal(shape)
    sigma, shared = np.sqrt(np.log1p(made.spread**2)), np.sqrt(np.log1p(made.step**2))
    factor = np.exp(sigma * (np.sqrt(made.prompt) * group + np.sqrt(1 - made.prompt) * own) - sigma**2 / 2)
    noise = _autoregressive(rng, len(level), made.neighbours)
    mean = (level * np.exp(shared * noise - shared**2 / 2))[:, None, None] * factor
    tokens = rng.integers(1, 2 * LENGTH, shape)
    made_up = np.zeros((*shape, cells.COLUMNS))
    made_up[..., (cells.TOKENS, cells.WHOLE_TOKENS, cells.COUNTED)] = tokens[..., None]
    made_up[..., cells.ABS_DIFF] = tokens * mean
    made_up[..., cells.CLIPPED] = rng.binomial(tokens, np.minimum(mean / 2, 1.0))
    made_up[..., cells.KL] = tokens * mean / 2
    return made_up


def rows(one: Array, version: int = 0) -> Rows:
    """One step of `numbers`, [PROMPTS, SAMPLES, COLUMNS], sampled under one version."""
    flat = one.reshape(-1, cells.COLUMNS)
    versions = np.full(len(flat), version, np.int64)
    return Rows(flat, versions, versions, np.repeat(np.arange(one.shape[0]), one.shape[1]))


def side(by_prompt: Array, first: int) -> Side:
    """Steps numbered from `first` as a side, from sums by prompt, [steps, prompts, COLUMNS]."""
    steps = first + np.arange(len(by_prompt))
    return Side(
        steps, by_prompt.sum(axis=1), by_prompt.reshape(-1, cells.COLUMNS), np.repeat(steps, by_prompt.shape[1])
    )


def _autoregressive(rng: np.random.Generator, count: int, correlation: float) -> Array:
    noise = rng.standard_normal(count)
    for at in range(1, count):
        noise[at] = correlation * noise[at - 1] + np.sqrt(1 - correlation**2) * noise[at]
    return noise
