"""The band and the verdict on curves whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from console.parity import band as bands
from console.parity import report, width
from console.parity.judge import compare
from console.parity.rules import Rule, Rules
from console.parity.runs import Run, Series
from console.parity.windows import lowest, windows
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


@pytest.mark.parametrize("seeds", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("tail", [0.05, 1e-3, 1e-5])
def test_the_width_holds_its_tail_for_every_spread_within_reach(tail: float, seeds: int) -> None:
    """By simulation at the largest spread, and never more at a smaller one."""
    wide = width.spreads(tail, seeds, 2.0)
    assert width.outside(wide, seeds, 2.0) == pytest.approx(tail, rel=1e-3)
    if tail < 1e-3:
        return
    random = np.random.default_rng(5)
    n = 400_000
    for apart in (2.0, 1.0, 0.5):
        measured = apart * np.sqrt(random.chisquare(seeds - 1, n) / (seeds - 1)) if seeds > 1 else np.zeros(n)
        rate = float((np.abs(apart * random.normal(size=n)) > wide * np.maximum(1.0, measured)).mean())
        assert rate <= tail + 4 * math.sqrt(tail / n)
        if apart == 2.0:
            assert rate == pytest.approx(tail, abs=5 * math.sqrt(tail / n))


def test_more_seeds_need_less_width_and_more_reach_needs_more() -> None:
    widths = [width.spreads(1e-3, seeds, 2.0) for seeds in (1, 2, 3, 5, 9, 30)]
    assert widths == sorted(widths, reverse=True)
    assert width.spreads(1e-3, 3, 1.0) < width.spreads(1e-3, 3, 2.0)
    assert width.spreads(0.05, 1, 1.0) == pytest.approx(1.95996, abs=1e-4)
    assert width.deviations(0.05) == pytest.approx(1.95996, abs=1e-4)


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
        return bands.band(np.stack([noise(seed) for seed in range(count)]), RULES.metrics[NAME], RULES, metrics=1).half

    assert half(1) > half(2) > half(3) > half(8)


def test_more_metrics_and_steps_make_a_wider_band() -> None:
    def half(n: int, metrics: int) -> float:
        # Many seeds, so that chance in the measured spread is small.
        values = np.stack([noise(seed, n=n) for seed in range(20)])
        return bands.band(values, RULES.metrics[NAME], RULES, metrics=metrics).half

    assert half(90, 5) > half(90, 1)
    assert half(3000, 1) > half(300, 1) > half(90, 1)


def test_a_seed_that_stays_where_it_is_counts_once_however_long_the_run() -> None:
    """Two seeds that happen to be near each other for 100 windows have not measured a small spread a hundred times."""
    for n in (90, 3000):
        near = np.stack([noise(1, n=n), noise(2, n=n)])
        found = bands.band(near, RULES.metrics[NAME], RULES, metrics=1)
        assert found.spread == RULES.metrics[NAME].spread


def test_the_measured_spread_outweighs_the_belief_where_it_is_wider() -> None:
    wide = np.stack([noise(seed) + np.random.default_rng(seed + 99).normal(0, 0.2) for seed in range(40)])
    band = bands.band(wide, RULES.metrics[NAME], RULES, metrics=1)
    assert band.spread == pytest.approx(0.2, rel=0.25)
    assert band.apart == pytest.approx(0.2 / RULES.metrics[NAME].spread, rel=0.25)


def test_a_trend_does_not_widen_the_band_of_one_reference() -> None:
    flat = bands.band(noise(0)[None], RULES.metrics[NAME], RULES, metrics=1).half
    rising = bands.band((noise(0) + np.linspace(0, 3, N))[None], RULES.metrics[NAME], RULES, metrics=1).half
    assert rising == pytest.approx(flat, rel=0.02)


def test_correlated_noise_widens_the_band_of_one_reference() -> None:
    smooth = np.convolve(np.random.default_rng(3).normal(0.5, 0.3, N + 5), np.ones(6) / np.sqrt(6), "valid")
    rough = np.random.default_rng(3).permutation(smooth)
    halves = [bands.band(values[None], RULES.metrics[NAME], RULES, metrics=1).half for values in (smooth, rough)]
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


def test_references_that_are_no_number_anywhere_judge_no_run() -> None:
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
    comparison = compare(references(), run(noise(77)), rules)
    found = comparison.metrics[0]
    assert (found.verdict, found.first) == ("fail", 1)
    assert "limit of 0.4" in found.reason
    assert abs(found.distance) <= 1
    assert report.closing(comparison) == "FAIL: reward beyond its limit since step 1"


@pytest.mark.parametrize(("level", "verdict"), [(0.5, "pass"), (0.2, "fail"), (0.8, "fail")])
def test_limits_have_two_sides_where_the_quantity_has(level: float, verdict: str) -> None:
    rules = replace(RULES, metrics={NAME: Rule(spread=0.02, limit=0.7, least=0.3)})
    same = run(np.full(N, level))
    found = compare([same], same, rules).metrics[0]
    assert found.verdict == verdict
    assert found.first == (1 if verdict == "fail" else None)


def test_a_pass_that_could_not_have_seen_enough_is_not_enough_data() -> None:
    rules = replace(RULES, metrics={NAME: replace(RULES.metrics[NAME], effect=0.05)})
    comparison = compare(references(), run(noise(77)), rules)
    assert comparison.verdict == "not enough data"
    assert report.closing(comparison).startswith("NOT ENOUGH DATA: reward: too little power: would have seen ±.")
    assert report.closing(comparison).endswith(", a pass needs ±.05")


@pytest.mark.parametrize("shift", [-6, -3, 0, 3, 6])
@pytest.mark.parametrize("count", [1, 3])
def test_a_jump_of_the_learning_may_come_earlier_or_later(shift: int, count: int) -> None:
    rules = replace(RULES, metrics={NAME: replace(RULES.metrics[NAME], lag=6)})

    def jumping(seed: int, at: int) -> Run:
        return run(noise(seed) + 1.0 * (np.arange(N) >= at), f"r{seed}")

    found = compare([jumping(seed, 50) for seed in range(count)], jumping(77, 50 + shift), rules).metrics[0]
    assert found.verdict == "pass"
    late = compare([jumping(seed, 50) for seed in range(count)], jumping(77, 80), rules).metrics[0]
    assert late.verdict == "fail"


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


@pytest.mark.parametrize("count", [1, 9, 10, 90, 1_500])
def test_windows_and_their_lowest_values_are_numpys(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    for size in (1, 2, 5, 9, 10, 13):
        if size <= count:
            expected = np.lib.stride_tricks.sliding_window_view(values, size)
            assert np.array_equal(windows(values, size), expected)
            assert np.array_equal(lowest(values, size), expected.min(axis=-1))
