"""A small version of the tables of `tests/stats/parity.py`: false alarms, power, and what the reports say of both."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as replaced

from console.parity import report
from console.parity.judge import compare
from console.parity.rules import Rules
from console.parity.runs import Run, Series
from tests.stats.parity import KINDS, comparisons, rules
from tests.stats.parity_runs import Case, correlated

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
            for sign, size in ((1, judged.power.up), (-1, judged.power.down)):
                if not math.isfinite(size) or (sign < 0 and math.isnan(judged.power.low)):
                    continue
                shifted = shift(comparison.run, judged.metric, sign * (1.05 * size + 1e-6), rule.floor)
                assert compare(comparison.references, shifted, one).metrics[0].verdict == "fail"
            small = shift(comparison.run, judged.metric, 0.3 * judged.power.up, rule.floor)
            assert compare(comparison.references, small, one).metrics[0].verdict != "fail"


def rules_of(name: str) -> Rules:
    return replaced(RULES.only([name]), alpha=RULES.alpha / len(RULES.metrics))


def shift(run: Run, name: str, size: float, floor: float | None) -> Run:
    own = run.series[name]
    values = own.values.copy()
    half = slice(len(values) // 2 - 5, None)
    moved = values[half] + size if floor is None else (values[half] + floor) * math.exp(size) - floor
    values[half] = moved
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
            judged.power.least(RULES.metrics[judged.metric])
            for one in comparisons(Case(steps=300, references=references), 12, 4)
            for judged in one.metrics
            if judged.metric == "reward/mean" and judged.power is not None
        ]
        return float(np.median(found))

    assert least(1) > least(3) > least(5)
