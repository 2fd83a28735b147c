"""The band and the verdict on curves whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from console.parity import band as bands
from console.parity.judge import compare
from console.parity.rules import Rule, Rules
from console.parity.runs import Run, Series
from tests.unit.parity_curves import Floats, as_run

NAME = "reward/mean"
RULES = Rules(window=10, hold=20, metrics={NAME: Rule(spread=0.02)})
N = 100


def run(values: Floats, name: str = "run", first: int = 1) -> Run:
    return as_run(name, {NAME: np.asarray(values, np.float64)}, first)


def noise(seed: int, size: float = 0.01, n: int = N) -> Floats:
    return np.random.default_rng(seed).normal(0.5, size, n)


def references(count: int = 3) -> list[Run]:
    return [run(noise(seed), f"reference-{seed}") for seed in range(count)]


def judged(values: Floats, rules: Rules = RULES, **kwargs: int):
    return compare(references(), run(values), rules, **kwargs).metrics[0]


def test_window_means_leave_out_what_is_not_finite() -> None:
    values = np.array([1.0, 2.0, np.nan, 4.0, np.nan, np.nan, np.nan, 8.0])
    means = bands.window_means(values, 3)
    assert means[:3] == pytest.approx([1.5, 3.0, np.nan], nan_ok=True)
    assert np.isnan(means[3:]).all()


@pytest.mark.parametrize("value", [0.0, 1e-4, 0.3, 12.0])
def test_the_log_scale_and_back(value: float) -> None:
    rule = Rule(scale="log", floor=0.005, spread=0.1)
    there = bands.scaled(np.array([value, np.nan]), rule)
    assert bands.plain(there, rule) == pytest.approx([value, np.nan], abs=1e-12, nan_ok=True)


def test_more_references_make_a_narrower_band() -> None:
    def half(count: int) -> float:
        return bands.band(np.stack([noise(seed) for seed in range(count)]), RULES.metrics[NAME], RULES).half

    assert half(1) > half(2) > half(3) > half(8)


def test_more_metrics_and_steps_make_a_wider_band() -> None:
    others = {**RULES.metrics, "policy/entropy": Rule(spread=1.0)}
    values = np.stack([noise(seed) for seed in range(3)])
    narrow = bands.band(values, RULES.metrics[NAME], RULES).half
    assert bands.band(values, RULES.metrics[NAME], replace(RULES, metrics=others)).half > narrow
    assert (
        bands.band(values[:, :40], RULES.metrics[NAME], replace(RULES, weight=1e6)).half
        < bands.band(values, RULES.metrics[NAME], replace(RULES, weight=1e6)).half
    )


def test_the_measured_spread_outweighs_the_belief_with_enough_references() -> None:
    wide = np.stack([noise(seed) + np.random.default_rng(seed + 99).normal(0, 0.2) for seed in range(40)])
    band = bands.band(wide, RULES.metrics[NAME], RULES)
    assert band.spread == pytest.approx(0.2, rel=0.25)


def test_a_trend_does_not_widen_the_band_of_one_reference() -> None:
    flat = bands.band(noise(0)[None], RULES.metrics[NAME], RULES).half
    rising = bands.band((noise(0) + np.linspace(0, 3, N))[None], RULES.metrics[NAME], RULES).half
    assert rising == pytest.approx(flat, rel=0.02)


def test_correlated_noise_widens_the_band_of_one_reference() -> None:
    smooth = np.convolve(np.random.default_rng(3).normal(0.5, 0.3, N + 5), np.ones(6) / np.sqrt(6), "valid")
    rough = np.random.default_rng(3).permutation(smooth)
    halves = [bands.band(values[None], RULES.metrics[NAME], RULES).half for values in (smooth, rough)]
    assert halves[0] > 1.2 * halves[1]


def test_at_home() -> None:
    found = judged(noise(77))
    assert (found.verdict, found.first, found.back, found.steps) == ("pass", None, None, N)
    assert abs(found.distance) < 2


@pytest.mark.parametrize("sign", [1, -1])
def test_out_for_good_since_the_step_it_began(sign: int) -> None:
    values = noise(77)
    values[60:] += sign * 0.5
    found = judged(values)
    assert (found.verdict, found.first, found.back) == ("fail", 61, None)
    assert math.copysign(1, found.distance) == sign
    assert found.value - found.expected == pytest.approx(sign * 0.5, abs=0.05)
    assert found.excursions[0].above == (sign > 0)


def test_out_and_back_still_fails_but_says_so() -> None:
    values = noise(77)
    values[30:60] += 0.5
    found = judged(values)
    assert found.verdict == "fail"
    assert found.first == 31
    assert found.back is not None
    assert 61 <= found.back <= 70


def test_an_excursion_shorter_than_a_window_in_a_row_does_not_count() -> None:
    values = noise(77)
    values[50] += 0.6
    assert judged(values).verdict == "pass"


def test_leaving_at_the_very_end_is_not_enough_data() -> None:
    values = noise(77)
    values[-4:] += 1.0
    found = judged(values)
    assert found.verdict == "not enough data"
    assert "left the band" in found.reason


def test_after_a_switch_a_run_may_take_its_time_and_must_then_stay() -> None:
    values = noise(77)
    values[:60] += 0.5
    assert judged(values).verdict == "fail"
    found = judged(values, start=20)
    assert found.verdict == "pass"
    assert found.back is not None
    assert 61 <= found.back <= 70
    # What was outside on the way home is not what is reported of a run that is home.
    assert abs(found.distance) < 4


def test_after_a_switch_a_run_that_is_not_home_fails() -> None:
    values = noise(77) + 0.5
    assert judged(values, start=20).verdict == "fail"


def test_after_a_switch_a_run_that_has_just_come_home_is_not_enough_data() -> None:
    values = noise(77)
    values[:85] += 0.5
    found = judged(values, start=20)
    assert found.verdict == "not enough data"
    assert "20 are needed" in found.reason


def test_until_ends_the_comparison() -> None:
    values = noise(77)
    values[60:] += 0.5
    assert judged(values, until=60).verdict == "pass"


def test_runs_are_compared_at_the_steps_that_all_have() -> None:
    sparse = Run("run", {NAME: Series(np.arange(1, N + 1, 2), noise(77)[::2])})
    found = compare(references(), sparse, RULES).metrics[0]
    assert (found.verdict, found.steps) == ("pass", N // 2)


def test_too_few_common_steps() -> None:
    found = judged(noise(77, n=19))
    assert found.verdict == "not enough data"
    assert "19 common steps, 20 are needed" in found.reason
    assert compare(references(), run(noise(1), first=1000), RULES).verdict == "not enough data"


def test_a_metric_that_a_run_lacks() -> None:
    found = compare([*references(), Run("bare", {})], run(noise(1)), RULES)
    assert found.verdict == "not enough data"
    assert found.metrics[0].reason == f"run bare has no {NAME}"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_run_that_is_no_number_any_more_fails(bad: float) -> None:
    values = noise(77)
    values[50:] = bad
    found = judged(values)
    assert found.verdict == "fail"
    assert found.first == 51


def test_a_few_steps_that_are_no_number_do_no_harm() -> None:
    values = noise(77)
    values[::9] = np.nan
    assert judged(values).verdict == "pass"


def test_references_that_are_no_number_anywhere_judge_nobody() -> None:
    empty = run(np.full(N, np.nan), "empty")
    found = compare([empty], run(noise(1)), RULES)
    assert found.verdict == "not enough data"
    assert "empty" in found.metrics[0].reason


@pytest.mark.parametrize(("side", "verdict"), [("both", "fail"), ("high", "fail"), ("low", "pass")])
def test_the_side_that_counts(side: str, verdict: str) -> None:
    rules = replace(RULES, metrics={NAME: replace(RULES.metrics[NAME], side=side)})
    assert judged(noise(77) + 0.5, rules).verdict == verdict


def test_a_limit_holds_whatever_the_reference_does() -> None:
    rules = replace(RULES, metrics={NAME: Rule(spread=0.02, side="high", limit=0.4)})
    found = judged(noise(77), rules)
    assert found.verdict == "fail"
    assert "limit of 0.4" in found.reason


def test_a_tolerance_is_the_least_width() -> None:
    rules = replace(RULES, metrics={NAME: replace(RULES.metrics[NAME], tolerance=0.6)})
    assert judged(noise(77) + 0.5, rules).verdict == "pass"
    assert judged(noise(77) + 0.7, rules).verdict == "fail"


@pytest.mark.parametrize("change", [lambda v: v, lambda v: v * 3 + 7, lambda v: v[::-1].copy()])
def test_one_metric_fails_the_run(change: Callable[[Floats], Floats]) -> None:
    other = "policy/entropy"
    rules = replace(RULES, metrics={**RULES.metrics, other: Rule(spread=0.02)})
    runs = [as_run(f"r{seed}", {NAME: noise(seed), other: noise(seed + 50)}) for seed in range(3)]
    good = as_run("good", {NAME: noise(7), other: noise(8)})
    bad = as_run("bad", {NAME: noise(7), other: change(noise(8)) + 1})
    assert compare(runs, good, rules).verdict == "pass"
    assert compare(runs, bad, rules).verdict == "fail"
