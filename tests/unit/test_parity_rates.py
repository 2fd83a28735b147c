"""What the verdict promises, simulated: how often a healthy run fails, and how often a shift of the mismatch is found.

Curves are those of `parity_curves` (sizes of this project's recorded runs) and `console.simulate.curves` (the synthetic
feed). Everything is seeded, so these tests say the same every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from msgspec.structs import replace

from console.parity.judge import compare
from console.parity.rules import Rules, load, parts
from console.parity.runs import Run
from console.simulate.curves import OFFSET, Curves
from tests.unit.parity_curves import Floats, as_run, healthy

RULES = load()
MISMATCH = "mismatch/abs_diff_mean"
PAIRS = 200
SHIFT = 0.02
FROM = 30


def synthetic(seed: int) -> dict[str, Floats]:
    """A healthy run of the synthetic feed, all fixes on."""
    curves = Curves(seed)
    rows = [curves.step(OFFSET, lag=1.0, engines=1, sync_s=(0.03, 0.04, 0.005)) for _ in range(90)]
    return {name: np.array([row[name] for row in rows]) for name in RULES.metrics if name in rows[0]}


def rough(seed: int) -> dict[str, Floats]:
    return healthy(seed, rho=0.8)


def long(seed: int) -> dict[str, Floats]:
    return healthy(seed, steps=200, rho=0.5)


def apart(seed: int) -> dict[str, Floats]:
    """Seeds that differ twice as much as the rules expect: only several references can tell."""
    return healthy(seed, stretch=2.0)


@cache
def curves(make: Callable[[int], dict[str, Floats]], seed: int) -> dict[str, Floats]:
    """A run that several tests look at, made once; what changes it makes a copy."""
    made = make(seed)
    for values in made.values():
        values.flags.writeable = False
    return made


def run_of(make: Callable[[int], dict[str, Floats]], seed: int, name: str = "run") -> Run:
    return as_run(name, curves(make, seed))


def references_of(make: Callable[[int], dict[str, Floats]], pair: int, count: int) -> list[Run]:
    return [run_of(make, 1000 * pair + i, f"r{i}") for i in range(count)]


def shifted(make: Callable[[int], dict[str, Floats]], pair: int) -> dict[str, Floats]:
    run = curves(make, 1000 * pair + 500)
    values = run[MISMATCH]
    return {**run, MISMATCH: values + SHIFT * (np.arange(len(values)) >= FROM)}


def rules_of_the_mismatch(run: dict[str, Floats]) -> Rules:
    """Its rule alone, with the part of alpha that it has beside the other metrics of the run: the same judgement."""
    chosen = {name: rule for name, rule in RULES.metrics.items() if name in run}
    one = RULES.only([MISMATCH])
    return replace(one, alpha=RULES.alpha / parts(chosen, one.metrics[MISMATCH]))


def failures(make: Callable[[int], dict[str, Floats]], references: int) -> Counter[str]:
    verdicts: Counter[str] = Counter()
    for pair in range(PAIRS):
        runs = references_of(make, pair, references)
        verdicts[compare(runs, run_of(make, 1000 * pair + 500), RULES).verdict] += 1
    return verdicts


@pytest.mark.parametrize(
    ("make", "references"),
    [
        (healthy, 1),
        (healthy, 2),
        (healthy, 3),
        (rough, 1),
        (rough, 3),
        (long, 1),
        (long, 3),
        (apart, 3),
        (synthetic, 1),
        (synthetic, 3),
    ],
)
def test_at_most_one_healthy_run_in_twenty_fails(make: Callable[[int], dict[str, Floats]], references: int) -> None:
    verdicts = failures(make, references)
    assert verdicts["fail"] <= RULES.alpha * PAIRS, verdicts
    # "Not enough data" is no false alarm, and no way out either.
    # Where the seeds are twice as far apart the band is wider, and sometimes too wide to say anything.
    assert verdicts["pass"] >= (0.8 if make is apart else 0.9) * PAIRS, verdicts


@pytest.mark.parametrize("references", [1, 2, 3])
@pytest.mark.parametrize("make", [healthy, synthetic])
def test_a_shift_of_the_mismatch_is_found_within_50_steps(
    make: Callable[[int], dict[str, Floats]], references: int
) -> None:
    found = 0
    for pair in range(PAIRS):
        run = shifted(make, pair)
        rules = rules_of_the_mismatch(run)
        judged = compare(references_of(make, pair, references), as_run("run", run), rules, until=FROM + 50).metrics
        found += judged[0].verdict == "fail"
    # And with the rules of all metrics, for some of them.
    for pair in range(5):
        run, runs = as_run("run", shifted(make, pair)), references_of(make, pair, references)
        alone = compare(runs, run, rules_of_the_mismatch(shifted(make, pair)), until=FROM + 50).metrics[0]
        judged = compare(runs, run, RULES, until=FROM + 50).metrics
        beside = next(one for one in judged if one.metric == MISMATCH)
        assert (beside.verdict, beside.first) == (alone.verdict, alone.first)
        assert beside.distance == pytest.approx(alone.distance)
    assert found >= 0.95 * PAIRS, found


def hundred(seed: int) -> dict[str, Floats]:
    return healthy(seed, steps=100)


def late(seed: int, lag: int) -> dict[str, Floats]:
    """A healthy run that has lost its first `lag` steps: its learning is that much younger, its backend is not."""
    return {
        name: values if name == MISMATCH else np.concatenate([np.full(lag, values[0]), values[:-lag]])
        for name, values in curves(hundred, seed).items()
    }


@pytest.mark.parametrize("references", [1, 3])
def test_a_repaired_run_passes_though_it_has_lost_its_first_steps(references: int) -> None:
    """No shift in time is granted, and at the defaults of the experiment (20 of 100 steps) none is needed."""
    passed = 0
    for pair in range(PAIRS):
        runs = references_of(hundred, pair, references)
        passed += compare(runs, as_run("run", late(1000 * pair + 500, 20)), RULES, start=21).verdict == "pass"
    assert passed >= (1 - RULES.alpha) * PAIRS, passed


@pytest.mark.parametrize("metric", ["policy/entropy", "reward/mean", MISMATCH])
def test_a_repaired_run_that_does_not_come_home_never_passes(metric: str) -> None:
    """As far off as the recorded defaults are: a reward that stays where it was, ten times the entropy."""
    for pair in range(50):
        runs = references_of(hundred, pair, 3)
        run = late(1000 * pair + 500, 20)
        run[metric] = {
            "policy/entropy": 10 * run[metric], "reward/mean": np.full(100, 0.3), MISMATCH: run[metric] + 0.1,
        }[metric]  # fmt: skip
        assert compare(runs, as_run("run", run), RULES, start=21).verdict == "fail"


def test_the_step_of_the_shift_is_named() -> None:
    errors = []
    for pair in range(PAIRS):
        run = shifted(healthy, pair)
        references = references_of(healthy, pair, 3)
        first = compare(references, as_run("run", run), rules_of_the_mismatch(run)).metrics[0].first
        if first is not None:
            errors.append(first - (FROM + 1))
    assert len(errors) >= 0.95 * PAIRS
    assert abs(np.median(errors)) <= 3
    assert np.quantile(np.abs(errors), 0.9) <= RULES.window


def test_a_single_excursion_of_noise_is_no_failure() -> None:
    for pair in range(20):
        spiked = {name: values.copy() for name, values in curves(healthy, 1000 * pair + 500).items()}
        for values in spiked.values():
            values[40] *= 8
        judged = compare(references_of(healthy, pair, 3), as_run("run", spiked), RULES)
        assert all(one.first is None or abs(one.first - 41) > RULES.window for one in judged.metrics)
