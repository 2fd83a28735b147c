"""The intervals of effects: that they hold what they say, on clustered steps, under trends, and where nothing changed.

The same functions at their full scale are printed by `make stats` (`tests/stats/effects.py`).
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from driftline.frames import Effect
from tests.stats import clustered, effects
from tests.stats.clustered import Made
from trainer.measure import cells, intervals, level
from trainer.measure.cells import ABS_DIFF, COLUMNS, RATIOS, TOKENS, Side
from trainer.measure.fix_effects import Change, Effects

OFF, ON = ("off",) * 5, ("on",) * 5
REPEATS = 300
ALLOWED = 0.93, 0.97
SLACK = 0.01
"""A standard error and a half of a coverage over 2 x REPEATS intervals; `make stats` has none."""


def side(values: object, first: int = 0, groups: int = 4) -> Side:
    """A side whose mean |d| by step is `values`, of `groups` equal prompt groups a step."""
    numbers = np.zeros((len(values), groups, COLUMNS))  # type: ignore[arg-type]
    numbers[..., TOKENS] = 10.0
    numbers[..., ABS_DIFF] = 10.0 * np.asarray(values)[:, None]
    return clustered.side(numbers, first)


@pytest.mark.parametrize(
    ("made", "before", "after"),
    [
        (Made(), 8, 8),
        (Made(prompt=0.5), 20, 20),
        (Made(prompt=0.5, step=0.2), 10, 10),
        (Made(prompt=0.3, step=0.2), 8, 40),
        (Made(step=0.2), 40, 40),
    ],
)
def test_nominal_95_percent_are_93_to_97(made: Made, before: int, after: int) -> None:
    metrics = RATIOS[:2]
    found = np.mean([effects.coverage(made, before, after, ratio, repeats=REPEATS) for ratio in metrics], axis=0)
    assert (found >= ALLOWED[0] - SLACK).all(), found
    assert (found <= ALLOWED[1] + SLACK).all(), found


@pytest.mark.parametrize(("before", "after"), [(10, 10), (20, 20), (40, 40)])
def test_neighbouring_steps_that_are_alike_cost_little_coverage(before: int, after: int) -> None:
    """A correlation of .5, estimated from so few steps: the page says how much is missing."""
    made = Made(prompt=0.3, step=0.2, neighbours=0.5)
    assert effects.coverage(made, before, after, RATIOS[0], repeats=REPEATS).min() >= 0.91 - SLACK


def test_steps_that_are_alike_are_said_beside_the_interval() -> None:
    wave = 1 + 0.3 * np.sin(np.arange(40) / 3)
    found = intervals.compare(side(wave[:20]), side(wave[20:], 20), RATIOS[0])
    assert "neighbouring steps are alike" in found.note
    rough = 1 + 0.3 * np.random.default_rng(3).standard_normal(40).clip(-2, 2)
    assert intervals.compare(side(rough[:20]), side(rough[20:], 20), RATIOS[0]).note == ""


@pytest.mark.parametrize("growth", [-0.05, 0.05])
def test_an_even_trend_of_learning_is_not_taken_for_an_effect(growth: float) -> None:
    made = Made(prompt=0.3, step=0.1)
    difference, ratio = effects.coverage(made, 12, 12, RATIOS[0], repeats=REPEATS, growth=growth)
    assert min(difference, ratio) >= ALLOWED[0] - SLACK
    run = np.stack([side(0.2 * 1.05 ** np.arange(60)).by_step] * 4, axis=1)
    scatter = 1 + 0.02 * np.random.default_rng(0).standard_normal(60)
    against_trend, plain, count = effects.unchanged_alarms(run * scatter[:, None, None], RATIOS[0], 20, 20)
    assert plain == 1.0, "the difference of plain means takes it for one every time"
    assert against_trend < 0.25, count


@pytest.mark.parametrize("name", list(effects.RUNS))
@pytest.mark.parametrize("ratio", RATIOS, ids=lambda ratio: ratio.metric)
def test_on_a_recorded_run_prompts_split_at_random_differ_in_at_most_7_percent(name: str, ratio: cells.Ratio) -> None:
    repeats = 200
    rates = [effects.split_alarms(effects.recorded(name), ratio, steps, repeats=repeats) for steps in (8, 10, 20)]
    # The mean of three rates; two standard errors of a rate of .05 over 600 splits are .018.
    assert np.mean(rates) <= 0.07 + 0.018, rates


def test_a_change_of_a_recorded_run_is_found_through_the_trainer_s_effects() -> None:
    run, measured = effects.recorded("reference"), Effects()
    reported: list[Effect] = []
    for step in range(1, 41):
        if step == 21:
            reported += measured.add_change(
                Change((("f", "off", "on"),), frozenset({OFF}), frozenset({ON}), 20, 20, 20, 20, 0.0)
            )
        now = run[step][:, None].copy()
        now[..., ABS_DIFF] *= 100.0 if step <= 20 else 1.0
        reported += measured.add_step(step, {OFF if step <= 20 else ON: clustered.rows(now, version=step)}, time=0.0)
    mismatch, clip, kl = reported[-1].measures
    assert mismatch.ratio_low < 0.01 < mismatch.ratio_high
    assert mismatch.high < 0
    assert (mismatch.unit, mismatch.units_before, mismatch.units_after) == ("step", 20, 20)
    assert all(one.low < 0 < one.high for one in (clip, kl)), "they fall by learning, and only by that"
    assert reported[-1].done


def test_the_change_is_that_at_the_change_and_the_ratio_never_negative() -> None:
    trend = 0.2 * 1.05 ** np.arange(40)
    rng = np.random.default_rng(1)
    values = trend * np.where(np.arange(40) < 20, 1.0, 0.1) * (1 + 0.05 * rng.standard_normal(40))
    found = intervals.compare(side(values[:20]), side(values[20:], 20), RATIOS[0])
    at = 0.2 * 1.05**19.5
    assert found.ratio == pytest.approx(0.1, rel=0.1)
    assert found.change == pytest.approx(-0.9 * at, rel=0.1)
    assert 0 < found.ratio_low < 0.1 < found.ratio_high
    assert found.low < -0.9 * at < found.high < 0
    assert -math.exp(1) * at < found.low


def test_the_size_of_the_numbers_and_what_they_count_make_no_difference() -> None:
    rng = np.random.default_rng(2)
    values = 0.2 * rng.lognormal(0, 0.1, 40)
    one = intervals.compare(side(values[:20]), side(values[20:], 20), RATIOS[0])
    for scale in (1e-12, 1e12):
        other = intervals.compare(side(values[:20] * scale), side(values[20:] * scale, 20), RATIOS[0])
        assert (other.ratio, other.ratio_low) == pytest.approx((one.ratio, one.ratio_low))
        assert (other.change, other.low) == pytest.approx((one.change * scale, one.low * scale))
    # Turned round in time it is the reciprocal.
    back = intervals.compare(side(values[20:][::-1]), side(values[:20][::-1], 20), RATIOS[0])
    assert (back.ratio, back.ratio_low) == pytest.approx((1 / one.ratio, 1 / one.ratio_high))
    assert (back.change, back.low, back.high) == pytest.approx((-one.change, -one.high, -one.low))


NOISY = 0.2 * np.random.default_rng(3).lognormal(0, 0.2, 20)


@pytest.mark.parametrize("count", [20, 5], ids=["step", "prompt group"])
@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        (NOISY, np.zeros(20), "exactly 0 after"),
        (np.zeros(20), NOISY, "exactly 0 before"),
        (np.zeros(20), np.zeros(20), "exactly 0 on both sides"),
        (NOISY, NOISY * 1e-9, ""),
        (NOISY, np.r_[np.zeros(18), 0.1, 0.2], ""),
        (NOISY, np.r_[0.1, np.zeros(19)], ""),
        (np.full(20, 0.2), np.full(20, 0.1), ""),
        (NOISY, np.full(20, 0.1), ""),
    ],
    ids=["zero after", "zero before", "zero", "a floor", "zeros first", "zeros last", "constant", "constant after"],
)
def test_zeros_and_floors_give_bounds_that_can_be(before: np.ndarray, after: np.ndarray, note: str, count: int) -> None:
    was, now = side(before), side(after[:count], 20)
    found = intervals.compare(was, now, RATIOS[0])
    # A row of zeros is a likeness of neighbours.
    alike = "alike" in found.note and not after.all()
    assert found.note.startswith(note) if note else not found.note or "0 after" in found.note or alike
    assert not found.ratio < 0
    assert not found.ratio_low < 0
    if not before.any() and not after.any():
        assert (found.change, found.unit) == (0.0, "")
        return
    assert found.unit == ("step" if count == 20 else "prompt group")
    assert found.low <= found.change <= found.high
    if not before.any():
        assert math.isnan(found.ratio)
        assert found.change > 0
    elif not after[:count].any():
        assert found.ratio == 0.0
        assert math.isnan(found.ratio_low)
        assert found.high < 0
    else:
        assert found.ratio_low <= found.ratio <= found.ratio_high


def test_one_side_without_any_token_says_nothing() -> None:
    nothing = cells.side([])
    assert intervals.compare(nothing, side(NOISY), RATIOS[0]) == intervals.compare(side(NOISY), nothing, RATIOS[0])
    assert intervals.compare(side(NOISY), nothing, RATIOS[0]).unit == ""
    # No token of a whole sequence: the mismatch has an interval, the clip fraction has none.
    assert intervals.compare(side(NOISY), side(NOISY, 20), RATIOS[1]).unit == ""


def test_a_mean_without_a_trend_and_without_correlation_is_student_s() -> None:
    values = 0.2 * np.random.default_rng(4).lognormal(0, 0.1, 12)
    fitted = level.fit(values, np.ones(12), np.arange(12.0), np.ones((12, 1)), None)
    assert fitted is not None
    found = level.variance(fitted, 0.0)
    assert math.exp(fitted.beta[0]) == pytest.approx(values.mean())
    assert found.beta[0, 0] == pytest.approx(values.var(ddof=1) / 12 / values.mean() ** 2)
    assert found.freedom == pytest.approx(11)


def test_the_variance_of_a_level_is_right_under_the_correlation_that_it_is_given() -> None:
    rng, correlation, count = np.random.default_rng(5), 0.6, 20
    noise = np.stack([clustered._autoregressive(rng, count, correlation) for _ in range(4000)])
    levels, variances = [], []
    for one in noise:
        fitted = level.fit(1 + 0.01 * one, np.ones(count), np.arange(count) * 1.0, np.ones((count, 1)), count - 0.5)
        assert fitted is not None
        levels.append(fitted.beta[0])
        variances.append(level.variance(fitted, correlation).beta[0, 0])
    assert np.mean(variances) == pytest.approx(np.var(levels), rel=0.1)


def test_sums_by_step_and_by_prompt_are_the_sums_of_the_sequences() -> None:
    rng = np.random.default_rng(6)
    numbers = clustered.numbers(rng, Made(prompt=0.3), np.full(3, 0.2))
    parts = [cells.cells(clustered.rows(one, version=at)) for at, one in enumerate(numbers)]
    whole = cells.side(enumerate(parts))
    want = clustered.side(numbers.sum(axis=2), 0)
    assert whole.by_step == pytest.approx(want.by_step)
    assert whole.by_group == pytest.approx(want.by_group)
    assert (whole.steps.tolist(), whole.group_steps.tolist()) == (want.steps.tolist(), want.group_steps.tolist())
    assert whole.sequences == whole.whole == 3 * clustered.PROMPTS * clustered.SAMPLES
    # A prompt group whose sequences were sampled under two versions is two cells and one group.
    one = clustered.rows(numbers[0])
    apart = cells.Rows(one.numbers, one.first + np.arange(len(one.first)) % 2, one.last, one.group)
    split = cells.side([(0, cells.cells(apart))])
    assert len(cells.cells(apart).group) == 2 * clustered.PROMPTS
    assert split.by_group == pytest.approx(want.by_group[: clustered.PROMPTS])
