"""A small version of the tables of `tests/stats/parity.py`: false alarms, power, and what the reports say of both."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as replaced

from console.parity import report
from console.parity.change import limit, splits
from console.parity.judge import compare
from console.parity.rules import Rules
from console.parity.runs import Run, Series
from tests.stats.parity import KINDS, comparisons, rules
from tests.stats.parity_runs import Case, Floats, correlated, healthy

RULES = rules()
COUNT = {90: 60, 1_000: 30, 3_000: 12}


@pytest.mark.parametrize("references", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_healthy_runs_fail_at_most_as_often_as_the_rules_say(kind: str, references: int) -> None:
    steps = list(COUNT)[list(KINDS).index(kind) % len(COUNT)]
    count = COUNT[steps]
    case = replace(KINDS[kind], steps=steps, references=references)
    failed = sum(one.verdict == "fail" for one in comparisons(case, count, 7 + references))
    # Two standard errors, on top of the share itself.
    assert failed / count <= RULES.alpha + 2 * math.sqrt(RULES.alpha * (1 - RULES.alpha) / count)


@pytest.mark.parametrize("references", [1, 2, 3, 5])
def test_healthy_runs_pass_and_are_not_called_too_little_data(references: int) -> None:
    found = [one.verdict for one in comparisons(Case(references=references), 60, 3)]
    assert found.count("pass") >= 0.85 * len(found)


@pytest.mark.parametrize("apart", [4.0, 8.0])
@pytest.mark.parametrize("references", [2, 3, 5])
def test_references_outside_the_model_are_named_where_a_run_fails(references: int, apart: float) -> None:
    """More than twice as far apart as the rules: either the share holds, or the report of the run says so."""
    silent = 0
    for one in comparisons(Case(references=references, apart=apart), 60, 11):
        named = any("outside the model" in line for line in report.lines(one, {}))
        assert named == bool(one.apart)
        silent += one.verdict == "fail" and not named
    assert silent / 60 <= RULES.alpha + 2 * math.sqrt(RULES.alpha * (1 - RULES.alpha) / 60)


@pytest.mark.parametrize(
    ("metric", "size"),
    [
        ("policy/entropy", -0.69),
        ("policy/clip_fraction", 1.1),
        ("reward/mean", 0.2),
        ("policy/kl_new_old", 2.3),
        ("mismatch/abs_diff_mean", 0.02),
    ],
)
def test_one_reference_is_enough_to_see_a_run_change(metric: str, size: float) -> None:
    """Half the entropy, three times the clip fraction, ten times the KL, in the last half of 300 steps."""
    random, case, one = np.random.default_rng(4), Case(steps=300), rules_of(metric)
    found = 0
    for _ in range(20):
        *references, run = healthy(random, case, one, {metric: size})
        judged = compare(references, run, one).metrics[0]
        found += judged.verdict == "fail" and judged.first is not None and abs(judged.first - 151) <= 15
    assert found >= 16


@pytest.mark.parametrize("size", [100, 400])
def test_random_walks_exceed_the_limits_of_a_change_as_often_as_they_say(size: int) -> None:
    """And no weaker correlation more often, with or without noise on top."""
    random, count = np.random.default_rng(8), 1_500
    walks = np.cumsum(random.normal(size=(count, size)), axis=1)
    of_walks = largest(walks)
    weaker = [
        largest(values)
        for values in (walks + math.sqrt(size) * random.normal(size=walks.shape), correlated(random, walks.shape, 0.9))
    ]
    for tail in (0.2, 0.05):
        error = math.sqrt(tail * (1 - tail) / count)
        assert (of_walks > limit(tail)).mean() == pytest.approx(tail, abs=4 * error)
        for found in weaker:
            assert (found > limit(tail)).mean() <= tail + 3 * error


def largest(values: Floats) -> Floats:
    """The statistic of each row."""
    found = [splits(row, 10) for row in values]
    return np.array([(one.apart**2 / one.own).max() if one is not None else 0.0 for one in found])


def test_with_one_reference_what_is_assumed_is_said() -> None:
    one = next(iter(comparisons(Case(), 1, 2)))
    line = next(line for line in report.lines(one, {}) if line.startswith("one reference run"))
    assert "reward .04" in line
    assert "entropy ×1.3" in line


@pytest.mark.parametrize("references", [1, 3])
@pytest.mark.parametrize("steps", [90, 300])
def test_what_a_pass_would_have_seen_fails_when_it_is_there(references: int, steps: int) -> None:
    """The claim of the report, made true: the same run with the shift, and with less than it."""
    for comparison in comparisons(Case(steps=steps, references=references), 8, 5):
        for judged in comparison.metrics:
            if judged.verdict != "pass" or judged.power is None:
                continue
            rule = RULES.metrics[judged.metric]
            # A pass of a whole verdict has the width of all metrics.
            one = rules_of(judged.metric)
            middle = len(comparison.run.series[judged.metric].values) // 2
            for since, shifts in ((middle, judged.power.late), (0, judged.power.first)):
                for sign, size in ((1, shifts.up), (-1, shifts.down)):
                    if not math.isfinite(size) or (sign < 0 and math.isnan(shifts.low)):
                        continue
                    shifted = shift(comparison.run, judged.metric, sign * (1.05 * size + 1e-6), rule.floor, since)
                    assert compare(comparison.references, shifted, one).metrics[0].verdict == "fail"
                small = shift(comparison.run, judged.metric, 0.3 * shifts.up, rule.floor, since)
                assert compare(comparison.references, small, one).metrics[0].verdict != "fail"


def rules_of(name: str) -> Rules:
    return replaced(RULES.only([name]), alpha=RULES.alpha / len(RULES.metrics))


def shift(run: Run, name: str, size: float, floor: float | None, since: int) -> Run:
    own = run.series[name]
    values = own.values.copy()
    part = slice(since, None)
    values[part] = values[part] + size if floor is None else (values[part] + floor) * math.exp(size) - floor
    return Run(run.id, {name: Series(own.steps, values)})


def test_the_simulated_noise_is_what_it_says() -> None:
    random = np.random.default_rng(1)
    for rho in (0.0, 0.3, 0.9, 0.99):
        series = correlated(random, (400, 1_000), rho)
        assert series.var() == pytest.approx(1.0, rel=0.1)
        assert float((series[:, 1:] * series[:, :-1]).mean()) == pytest.approx(rho, abs=0.05)


def test_healthy_runs_seldom_have_bursts() -> None:
    bursts = sum(
        len(judged.bursts) for one in comparisons(Case(steps=300, references=3), 30, 9) for judged in one.metrics
    )
    assert bursts <= 1


def test_more_references_see_smaller_shifts() -> None:
    """In the median: which width seeds happen to measure is chance."""

    def least(references: int) -> float:
        found = [
            judged.power.first.least(RULES.metrics[judged.metric])
            for one in comparisons(Case(steps=300, references=references), 12, 4)
            for judged in one.metrics
            if judged.metric == "reward/mean" and judged.power is not None
        ]
        return float(np.median(found))

    assert least(1) > least(3) > least(5)
