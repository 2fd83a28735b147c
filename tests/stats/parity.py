"""Tables of the parity verdict: how often a healthy run fails, and what a pass would have seen. For `make stats`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from msgspec.structs import replace as replaced

from console.parity.change import limit, splits
from console.parity.judge import Comparison, Verdict, compare
from console.parity.rules import Rules, load
from driftline.text import plural
from tests.stats.parity_runs import LEVEL, Case, Floats, correlated, healthy

STEPS = (90, 300, 1_000, 3_000, 10_000)
REFERENCES = (1, 2, 3, 5)
RUNS = {90: 64, 300: 48, 1_000: 28, 3_000: 14, 10_000: 6}
"""Simulated comparisons of each cell, by the steps of a run; each has five metrics."""
SEED = 20_261

KINDS: dict[str, Case] = {
    "seeds 1 x apart": Case(),
    "seeds 0.5 x apart": Case(apart=0.5),
    "seeds 2 x apart": Case(apart=2.0),
    "seeds 2 x, half of it wandering": Case(apart=2.0, wander=0.95),
    "noise correlated 0.9": Case(rho=0.9),
    "noise 0.9, seeds 2 x": Case(apart=2.0, rho=0.9),
    "jump 6 steps early or late": Case(early=6),
    "jump, seeds 2 x": Case(apart=2.0, early=6),
    "30 % missing": Case(missing=0.3),
    "30 % missing, seeds 2 x": Case(apart=2.0, missing=0.3),
    "all: 2 x, 0.9, jump, missing": Case(apart=2.0, rho=0.9, early=6, missing=0.3),
}
"""Kinds of healthy runs."""


def rules() -> Rules:
    """The default rules of the five metrics that every run has."""
    return load().only(LEVEL)


def comparisons(case: Case, count: int, seed: int, given: Rules | None = None) -> Iterator[Comparison]:
    """So many healthy runs, each against its own references."""
    chosen = given if given is not None else rules()
    random = np.random.default_rng(seed)
    for _ in range(count):
        *references, run = healthy(random, case, chosen)
        yield compare(references, run, chosen)


def false_alarms() -> Iterator[str]:
    """Share of healthy runs that fail, by kind and steps, over 1, 2, 3 and 5 references."""
    counts = ", ".join(f"{4 * count} of {steps}" for steps, count in RUNS.items())
    yield "Parity: healthy runs that fail, by kind of run and number of steps, over 1, 2, 3 and 5 references together."
    yield f"Seed {SEED}; runs: {counts} steps. Standard error of .05: {_errors()}."
    yield ""
    yield f"| {'kind of healthy run':<32} | {' | '.join(f'{steps:>6,}' for steps in STEPS)} |"
    yield f"|{'-' * 34}|{'|'.join('-' * 7 + ':' for _ in STEPS)}|"
    by_references: dict[int, Counter[Verdict]] = {count: Counter() for count in REFERENCES}
    for number, (kind, case) in enumerate(KINDS.items()):
        cells = []
        for steps in STEPS:
            failed = 0
            for count in REFERENCES:
                sized = replace(case, steps=steps, references=count)
                seed = SEED + 1_000 * number + 10 * STEPS.index(steps) + count
                found = Counter(one.verdict for one in comparisons(sized, RUNS[steps], seed))
                by_references[count] += found
                failed += found["fail"]
            cells.append(f"{failed / (4 * RUNS[steps]):6.3f}")
        yield f"| {kind:<32} | {' | '.join(cells)} |"
    yield ""
    for count, found in by_references.items():
        rate = found["fail"] / found.total()
        yield f"{plural(count, 'reference')}: {rate:.3f} of {found.total()} runs of all kinds fail"


def _errors() -> str:
    return ", ".join(f"{(0.05 * 0.95 / (4 * count)) ** 0.5:.3f}" for count in RUNS.values())


SHIFTS = {
    "reward/mean": (0.05, 0.1, 0.2, 0.3), "policy/entropy": (-0.36, -0.69, -1.1, -1.6),
    "policy/clip_fraction": (0.69, 1.1, 1.6, 2.3), "policy/kl_new_old": (1.1, 2.3, 3.4),
    "mismatch/abs_diff_mean": (0.01, 0.02, 0.03),
}  # fmt: skip
"""Shifts of a run, on the rule's scale: reward, then entropy x .7, .5, .33, .2, and so on."""
SEEN = ((90, 1), (90, 3), (300, 1), (300, 3), (300, 5), (1_000, 1))
"""Steps and references of the columns of the tables of power."""
SHIFTED = 40
"""Runs of each cell."""


def power(*, late: bool) -> Iterator[str]:
    """Share of shifted runs that fail by the shifted metric, at seeds 1 x apart; `late`: over the last half alone."""
    where = "over the last half of the steps" if late else "from the first step on"
    heads = [f"{steps:,} / {references}" for steps, references in SEEN]
    yield f"Parity: runs that fail by a metric shifted {where}, by steps / references."
    yield f"Seed {SEED}, {SHIFTED} runs of each cell."
    yield ""
    yield f"| {'shift':<32} | {' | '.join(f'{head:>9}' for head in heads)} |"
    yield f"|{'-' * 34}|{'|'.join('-' * 10 + ':' for _ in SEEN)}|"
    chosen = rules()
    for name, sizes in SHIFTS.items():
        one = chosen.only([name])
        # The width of a verdict over all five metrics.
        one = replaced(one, alpha=chosen.alpha / len(chosen.metrics))
        for size in sizes:
            cells = []
            for steps, references in SEEN:
                random = np.random.default_rng(SEED + references)
                case = Case(steps=steps, references=references)
                failed = 0
                for _ in range(SHIFTED):
                    *others, run = healthy(random, case, one, {name: size}, since=steps // 2 if late else 0)
                    failed += compare(others, run, one).verdict == "fail"
                cells.append(f"{failed / SHIFTED:9.2f}")
            yield f"| {name + _shift(one, name, size):<32} | {' | '.join(cells)} |"


def _shift(given: Rules, name: str, size: float) -> str:
    return f" {size:+.2g}" if given.metrics[name].scale == "linear" else f" x {np.exp(size):.2g}"


TAILS = (0.05, 0.01, 0.003)
WALKS = 4_000


def limits() -> Iterator[str]:
    """How often the limits of a change are exceeded by differences of other kinds than the random walk they are of."""
    yield f"Parity: differences of {WALKS} runs whose change exceeds its limit of a tail, seed {SEED}."
    yield ""
    yield f"| {'difference from the reference':<32} | {' | '.join(f'{tail:>6g}' for tail in TAILS)} |"
    yield f"|{'-' * 34}|{'|'.join('-' * 7 + ':' for _ in TAILS)}|"
    random = np.random.default_rng(SEED)
    kinds: list[tuple[str, int, Callable[[np.random.Generator, tuple[int, int]], Floats]]] = [
        ("random walk, 90 steps", 90, _walk),
        ("random walk, 1,000 steps", 1_000, _walk),
        ("random walk and noise, 300 steps", 300, lambda one, shape: _walk(one, shape) + 17 * one.normal(size=shape)),
        *((f"correlated {rho:g}, 300 steps", 300, partial(_correlated, rho)) for rho in (0.99, 0.95, 0.9, 0.3)),
    ]
    for name, steps, make in kinds:
        values = make(random, (WALKS, steps))
        found = [splits(row, 10) for row in values]
        highest = np.array([(one.apart**2 / one.own).max() for one in found if one is not None])
        cells = [f"{(highest > limit(tail)).mean():6.4f}" for tail in TAILS]
        yield f"| {name:<32} | {' | '.join(cells)} |"


def _walk(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return np.asarray(np.cumsum(random.normal(size=shape), axis=1))


def _correlated(rho: float, random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return correlated(random, shape, rho)


def tables() -> Iterable[str]:
    """All tables, line by line."""
    yield from false_alarms()
    yield ""
    yield from limits()
    for late in (True, False):
        yield ""
        yield from power(late=late)
