"""The intervals of effects: coverage on made-up clustered steps, and false alarms on two recorded runs.

The recorded runs, `tests/unit/data/effects-*.npz`, are 100 steps each of `configs/reference.toml` and
`configs/demo.toml` on the real engine and trainer, without a change of a fix: the sums of `trainer.measure.cells`
by prompt, [steps, prompts, COLUMNS].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from driftline.t_quantile import upper_quantile
from tests.stats import clustered
from tests.stats.clustered import Array, Made
from trainer.measure import cells, intervals
from trainer.measure.cells import RATIOS, Ratio

SEED = 13
REPEATS = 1000
LEVEL = 0.2
EFFECT = 0.8
"""The true ratio of after to before in the tables of coverage."""
SIDES = ((8, 8), (10, 10), (20, 20), (40, 40), (8, 40), (20, 3))
MADE = tuple(Made(prompt=prompt, step=step) for step in (0.0, 0.1, 0.2) for prompt in (0.0, 0.3, 0.5))
DATA = Path(__file__).parents[1] / "unit" / "data"
RUNS = {"reference": "every fix on", "defaults": "vLLM's defaults"}
WARM = 2
"""First steps of a recorded run that are left out: their rollouts were all sampled under one version."""


def tables() -> Iterable[str]:
    """Every table, one string each."""
    yield _coverage(RATIOS[0])
    yield _coverage(RATIOS[1])
    yield _correlated()
    yield _drift()
    yield _split()
    yield _unchanged()


def coverage(made: Made, before: int, after: int, ratio: Ratio, *, repeats: int, growth: float = 0.0) -> Array:
    """Shares of repeats whose intervals hold the true difference and the true ratio, at the change, [2].

    `growth`: relative growth of the mean with each step, the same before and after.
    """
    rng = np.random.default_rng([SEED, before, after])
    held = np.zeros(2)
    at = np.arange(before + after) - (before - 0.5)
    level = LEVEL * (1 + growth) ** at * np.where(at < 0, 1.0, EFFECT)
    true = LEVEL * (EFFECT - 1) * (1.0 if ratio.over == cells.ABS_DIFF else 0.5)
    for _ in range(repeats):
        by_prompt = clustered.numbers(rng, made, level).sum(axis=2)
        found = intervals.compare(
            clustered.side(by_prompt[:before], 0), clustered.side(by_prompt[before:], before), ratio
        )
        held += (found.low <= true <= found.high, found.ratio_low <= EFFECT <= found.ratio_high)
    return held / repeats


def recorded(name: str) -> Array:
    """A recorded run, [steps, prompts, COLUMNS], without its first steps."""
    with np.load(DATA / f"effects-{name}.npz") as file:
        return np.asarray(file["numbers"], np.float64)[WARM:]


def split_alarms(run: Array, ratio: Ratio, steps: int, *, repeats: int) -> float:
    """How often zero lies outside: the prompts of each of `steps` steps split at random into two halves."""
    rng = np.random.default_rng([SEED, steps])
    alarms = 0
    for _ in range(repeats):
        first = int(rng.integers(0, len(run) - steps + 1))
        order = rng.permuted(np.tile(np.arange(run.shape[1]), (steps, 1)), axis=1)
        window = np.take_along_axis(run[first : first + steps], order[..., None], axis=1)
        half = run.shape[1] // 2
        alarms += _alarm(window[:, :half], window[:, half:], first, first, ratio)
    return alarms / repeats


def unchanged_alarms(run: Array, ratio: Ratio, before: int, after: int) -> tuple[float, float, int]:
    """How often zero lies outside, at every step of a run without a change: against the trend, and of plain means by
    step (Welch); and at how many steps."""
    at = range(before, len(run) - after + 1)
    sides = [(run[step - before : step], run[step : step + after], step) for step in at]
    against_trend = [_alarm(was, now, step - before, step, ratio) for was, now, step in sides]
    plain = [_plain_alarm(was, now, ratio) for was, now, _ in sides]
    return float(np.mean(against_trend)), float(np.mean(plain)), len(sides)


def _alarm(before: Array, after: Array, first: int, second: int, ratio: Ratio) -> bool:
    found = intervals.compare(clustered.side(before, first), clustered.side(after, second), ratio)
    return not found.low <= 0 <= found.high


def _plain_alarm(before: Array, after: Array, ratio: Ratio) -> bool:
    means = [part.sum(axis=1)[:, ratio.over] / part.sum(axis=1)[:, ratio.under] for part in (before, after)]
    variances = [float(one.var(ddof=1)) / len(one) for one in means]
    freedom = sum(variances) ** 2 / sum(v**2 / (len(m) - 1) for v, m in zip(variances, means, strict=True))
    half = upper_quantile(0.025, math.floor(4 * freedom) / 4) * math.sqrt(sum(variances))
    return bool(abs(means[1].mean() - means[0].mean()) > half)


def _coverage(ratio: Ratio) -> str:
    def row(made: Made) -> Iterator[str]:
        yield f"{made.prompt:g}"
        yield f"{made.step:.0%}"
        for before, after in SIDES:
            difference, relative = coverage(made, before, after, ratio, repeats=REPEATS)
            yield f"{difference:.3f} / {relative:.3f}"

    head = ["correlation in a prompt", "step effect", *(f"{before} and {after} steps" for before, after in SIDES)]
    return _table(
        f"Coverage of the 95 % intervals of difference / ratio, {ratio.metric} (true ratio {EFFECT:g}; "
        f"{clustered.PROMPTS} prompts of {clustered.SAMPLES} a step, {REPEATS} repeats, seed {SEED}; standard error of "
        f".95: {math.sqrt(0.95 * 0.05 / REPEATS):.3f})",
        head,
        [list(row(made)) for made in MADE],
    )


def _correlated() -> str:
    def row(neighbours: float) -> Iterator[str]:
        yield f"{neighbours:g}"
        for before, after in SIDES:
            made = Made(prompt=0.3, step=0.2, neighbours=neighbours)
            yield f"{coverage(made, before, after, RATIOS[0], repeats=REPEATS)[0]:.3f}"

    head = ["correlation of neighbouring steps", *(f"{before} and {after} steps" for before, after in SIDES)]
    title = f"Coverage where neighbouring steps are alike (step effect 20 %, correlation in a prompt .3, seed {SEED})"
    return _table(title, head, [list(row(neighbours)) for neighbours in (0.0, 0.3, 0.5, 0.7)])


def _drift() -> str:
    def row(growth: float) -> Iterator[str]:
        yield f"{growth:+.0%}"
        for before, after in SIDES:
            made = Made(prompt=0.3, step=0.1)
            yield f"{coverage(made, before, after, RATIOS[0], repeats=REPEATS, growth=growth)[0]:.3f}"

    head = ["growth a step", *(f"{before} and {after} steps" for before, after in SIDES)]
    title = f"Coverage under a trend of learning (step effect 10 %, correlation in a prompt .3, seed {SEED})"
    return _table(title, head, [list(row(growth)) for growth in (-0.05, 0.02, 0.05)])


def _split() -> str:
    body = []
    for name, what in RUNS.items():
        for ratio in RATIOS:
            rates = [split_alarms(recorded(name), ratio, steps, repeats=REPEATS) for steps in (8, 10, 20, 40)]
            body.append([what, ratio.metric, *(f"{rate:.3f}" for rate in rates)])
    head = ["recorded run", "metric", *(f"{steps} steps" for steps in (8, 10, 20, 40))]
    title = f"A/A: zero outside the interval, prompts of each step split at random ({REPEATS} splits, seed {SEED})"
    return _table(title, head, body)


def _unchanged() -> str:
    sides = ((6, 6), (20, 3), (20, 6), (10, 10), (16, 16), (20, 20))
    body = []
    for name, what in RUNS.items():
        for ratio in RATIOS:
            found = [unchanged_alarms(recorded(name), ratio, before, after) for before, after in sides]
            rates = (f"{trend:.3f} ({plain:.2f})" for trend, plain, _ in found)
            body.append([what, ratio.metric, *rates])
    head = ["recorded run", "metric", *(f"{before} and {after} steps" for before, after in sides)]
    title = (
        "A/A: zero outside the interval, before and after each step at which nothing changed (in brackets: of plain "
        "means by step, without the trend; windows overlap, two or three of 20 and 20 steps are independent)"
    )
    return _table(title, head, body)


def _table(title: str, head: list[str], body: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join([title, "", *lines])
