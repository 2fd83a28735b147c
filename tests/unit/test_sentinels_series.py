"""Sentinels of metrics: how often healthy noise alarms, how soon planted trouble does, and once an episode."""

from __future__ import annotations

import csv
import math
import time
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from console.sentinels import Sentinels, load
from console.sentinels.baseline import UNKNOWN, WIDEST, block, usual, usuals
from console.sentinels.kinds import Baseline, SeriesRule
from console.sentinels.rules import Rules, parse
from console.store.model import Mark
from driftline.frames import Command, EngineFix, FixState
from tests.unit.sentinel_runs import HERE, Watched, healthy

RECORDED = Path(__file__).parent / "data" / "parity-runs.csv"
RATES = {0.3: 0.5, 0.8: 4.0}
"""By correlation from step to step: false alarms in 10,000 healthy steps, all series rules together, at most. Recorded
runs of this project are at 0.05 to 0.25. The whole matrix: docs/sentinels.md and test_sentinels_stats.py."""


def watched(text: str = "") -> Watched:
    return Watched(Sentinels(parse(text, "test")))


def one(rule: str, **keys: object) -> Rules:
    """Only one of the packaged rules, changed."""
    rules = load().rules
    return Rules({rule: msgspec.structs.replace(rules[rule], **keys)})


@pytest.mark.parametrize("rho", RATES)
def test_healthy_noise_alarms_at_most_at_the_stated_rate(rho: float):
    steps, raised = 0, Counter[str]()
    for seed in range(4):
        watch = watched()
        watch.steps(healthy(seed, 5_000, rho), batch=100)
        steps += 5_000
        raised.update(alarm.rule for alarm in watch.changes if alarm.state == "raised")
    assert raised.total() <= RATES[rho] * steps / 10_000, raised


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.parametrize("held", [1, 30], ids=["each step another", "thirty steps the same"])
def test_numbers_of_any_size_are_judged_without_a_warning(held: int, batch: int):
    extremes = [0.0, 5e-324, 1e308, -1e308, 1.7e308, -1.7e308, math.inf, -math.inf, math.nan, 1.0]
    dice = np.random.default_rng(held)
    metrics = [rule.metric for rule in load().rules.values() if isinstance(rule, SeriesRule)]
    for chosen in (extremes, extremes[:6]):  # without infinities no window is too short to be judged
        watched().steps({metric: np.repeat(dice.choice(chosen, 600 // held), held) for metric in metrics}, batch=batch)


@pytest.mark.parametrize("run", ["reference-a", "reference-b"])
def test_recorded_healthy_runs_raise_no_alarm(run: str):
    with RECORDED.open() as file:
        rows = [row for row in csv.DictReader(line for line in file if not line.startswith("#")) if row["run"] == run]
    names = [name for name in rows[0] if "/" in name]
    watch = watched()
    watch.steps({name: [float(row[name]) for row in rows] for name in names})
    assert watch.changes == [], watch.words()


def test_recorded_defaults_of_vllm_are_beyond_the_mismatch_limit_from_the_start():
    with RECORDED.open() as file:
        rows = [row for row in csv.DictReader(line for line in file if line[0] != "#") if row["run"] == "repaired"]
    watch = watched()
    watch.steps({"mismatch/abs_diff_mean": [float(row["mismatch/abs_diff_mean"]) for row in rows]})
    raised, cleared = watch.changes[:2]
    assert (raised.rule, raised.step, raised.state) == ("mismatch-limit", 1, "raised")
    assert cleared.state == "cleared"
    assert 21 <= cleared.cleared_step <= 35, "the fixes went on after step 20"
    assert watch.sentinels.standing == []


@pytest.mark.parametrize("seed", range(8))
def test_a_planted_clip_jump_is_caught_within_five_steps(seed: int):
    curves = healthy(seed, 260)
    curves["policy/clip_fraction"][200:] *= 6.0
    watch = watched()
    watch.steps(curves)
    alarms = [alarm for alarm in watch.changes if alarm.rule == "clip-jump"]
    assert alarms, "not caught"
    assert 201 <= alarms[0].step <= 205
    assert sum(alarm.state == "raised" for alarm in alarms) == 1, "once an episode"
    assert "the median of the last 100 steps" in alarms[0].text


@pytest.mark.parametrize("seed", range(8))
def test_a_planted_kl_spike_of_three_steps_is_caught_and_cleared(seed: int):
    curves = healthy(seed, 260)
    curves["policy/kl_new_old"][200:203] = 1.5
    watch = watched()
    watch.steps(curves)
    alarms = {
        state: [a for a in watch.changes if a.rule == "kl-spike" and a.state == state]
        for state in ("raised", "cleared")
    }
    assert [alarm.step for alarm in alarms["raised"]] == [201]
    assert len(alarms["cleared"]) == 1
    assert alarms["cleared"][0].cleared_step <= 225


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tau", [5.0, 10.0])
def test_a_planted_entropy_collapse_is_caught_within_twenty_steps(seed: int, tau: float):
    curves = healthy(seed, 260)
    curves["policy/entropy"][200:] *= 0.02 + 0.98 * np.exp(-np.arange(60) / tau)
    watch = watched()
    watch.steps(curves)
    alarms = [alarm for alarm in watch.changes if alarm.rule == "entropy-collapse"]
    assert alarms, "not caught"
    assert 201 <= alarms[0].step <= 220
    assert alarms[0].level == "error"


def test_entropy_that_falls_steadily_is_no_collapse_and_spent_only_without_reward():
    steps = np.arange(600)
    entropy = 2.0 * np.exp(-steps / 150) * np.exp(0.05 * np.random.default_rng(3).normal(size=600))
    for reward, spent in ((0.2 + 0.0 * steps, True), (0.2 + 0.001 * steps, False)):
        watch = watched()
        watch.steps({"reward/mean": reward, "policy/entropy": entropy})
        assert {alarm.rule for alarm in watch.changes} == ({"entropy-spent"} if spent else set())


def test_a_jump_that_stays_becomes_the_usual_and_clears_itself():
    curves = healthy(1, 420)
    curves["policy/clip_fraction"][200:] *= 6.0
    watch = watched()
    watch.steps(curves)
    raised, cleared = (alarm for alarm in watch.changes if alarm.rule == "clip-jump")
    assert cleared.number == raised.number
    assert 225 <= cleared.cleared_step <= 300, "from a quarter of the window and the gap on"
    assert cleared.cleared_text.startswith("usual by now: "), "it did not go back"


def test_a_value_that_dances_on_the_limit_is_one_alarm():
    dance = [0.049, 0.051] * 100
    watch = Watched(Sentinels(one("mismatch-limit")))
    watch.steps({"mismatch/abs_diff_mean": dance})
    assert watch.words() == ["mismatch-limit raised 2"]
    watch.steps({"mismatch/abs_diff_mean": [0.01] * 6}, first=201)
    assert watch.words()[1:] == ["mismatch-limit cleared 205"]


def test_the_step_is_where_it_began_and_the_value_what_was_there():
    watch = Watched(Sentinels(one("same-rewards")))
    watch.steps({"frac_reward_zero_std": [0.2] * 5 + [0.95, 0.2, 0.97, *[1.0] * 6]})
    (alarm,) = watch.changes
    assert (alarm.rule, alarm.subject, alarm.step, alarm.value) == ("same-rewards", "reward/zero_std_fraction", 6, 0.95)
    assert (alarm.limit, alarm.level, alarm.state) == (0.9, "warn", "raised")
    assert alarm.line == "same-rewards at step 6: zero-std groups 0.95, above its limit 0.9"


@pytest.mark.parametrize("wild", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_beyond_every_limit(wild: float):
    for rule in ("mismatch-limit", "kl-limit", "mismatch-ratio", "mismatch-ess"):
        watch = Watched(Sentinels(one(rule)))
        metric = watch.sentinels.rules.rules[rule].metric  # type: ignore[union-attr]  # a rule of one metric
        watch.steps(
            {metric: [0.9] * 120 + [wild] * 6}
            if rule in ("mismatch-ess", "mismatch-ratio")
            else {metric: [0.01 + 0.001 * (i % 7) for i in range(120)] + [wild] * 6}
        )
        assert [alarm.step for alarm in watch.changes] == [121], rule


@pytest.mark.parametrize(("rule", "wild"), [("kl-spike", math.inf), ("entropy-collapse", -math.inf)])
def test_infinity_is_beyond_a_baseline_on_its_side_and_nan_is_for_another_rule(rule: str, wild: float):
    for value, raised in ((wild, [121]), (-wild, []), (math.nan, [])):
        watch = Watched(Sentinels(one(rule)))
        metric = watch.sentinels.rules.rules[rule].metric  # type: ignore[union-attr]  # a rule of one metric
        watch.steps({metric: [0.01 + 0.001 * (i % 7) for i in range(120)] + [value] * 4})
        assert [alarm.step for alarm in watch.changes] == raised, (rule, value)


def test_how_frames_were_batched_changes_nothing():
    curves = healthy(5, 400)
    curves["policy/clip_fraction"][250:] *= 8.0
    curves["policy/entropy"][300:] *= 0.1
    seen = []
    for batch in (1, 7, 400):
        watch = watched()
        watch.steps(curves, batch=batch)
        seen.append(watch.changes)
    assert seen[0] == seen[1]
    # Of one look alarms come rule by rule, and their numbers with them.
    episodes = [{(alarm.rule, alarm.state, alarm.step, alarm.cleared_step) for alarm in changes} for changes in seen]
    assert episodes[0] == episodes[2]


def test_a_run_that_goes_back_to_a_checkpoint_is_judged_anew_from_there():
    watch = Watched(Sentinels(one("mismatch-limit")))
    watch.steps({"mismatch/abs_diff_mean": [0.01] * 60 + [0.2] * 20})
    assert watch.words() == ["mismatch-limit raised 61"]
    watch.steps({"mismatch/abs_diff_mean": [0.01] * 8}, first=51)
    assert watch.words() == ["mismatch-limit raised 61", "mismatch-limit cleared 55"]
    watch.steps({"mismatch/abs_diff_mean": [0.3] * 2}, first=59)
    assert watch.words()[-1] == "mismatch-limit raised 59", "the steps above 59 of the first telling count no more"


def test_an_alarm_says_which_fix_or_sync_was_just_before_it():
    watch = Watched(Sentinels(one("mismatch-limit")))
    watch.steps({"mismatch/abs_diff_mean": [0.01] * 20})
    watch.feed(Command("c1", "mark", {"text": "new prompts"}))
    watch.steps({"mismatch/abs_diff_mean": [0.2] * 3}, first=21)
    assert "(new prompts at step 20)" in watch.changes[0].text


def test_too_little_to_go_by_is_no_baseline():
    rule = load().rules["clip-jump"]
    assert isinstance(rule, Baseline)
    assert usual(rule, np.full(rule.warmup - 1, 0.1)) is UNKNOWN
    assert usual(rule, np.full(100, np.nan)) is UNKNOWN
    known = usual(rule, np.full(100, 0.1))
    # Without noise the factor alone decides; the floor of the logarithm is part of it.
    assert known.centre == pytest.approx(0.1)
    assert known.limit == pytest.approx(0.1 * 2 + 0.005)
    assert known.centre < known.easier < known.limit
    watch = Watched(Sentinels(one("clip-jump")))
    watch.steps({"policy/clip_fraction": [0.01] * 20 + [0.9] * 15})
    assert watch.changes == []


def test_steps_that_are_alike_are_worth_fewer_and_their_limit_is_wider():
    """The same values in another order: what tells is the noise from step to step."""
    rule = load().rules["kl-spike"]
    assert isinstance(rule, Baseline)
    random = np.random.default_rng(6)
    shocks = np.zeros(100)
    for i in range(1, 100):
        shocks[i] = 0.9 * shocks[i - 1] + random.normal()
    alike = np.exp(0.3 * shocks - 5)
    shuffled = random.permutation(alike)

    def distance(values: np.ndarray) -> float:
        known = usual(rule, values)
        return math.log(known.limit + rule.floor) - math.log(known.centre + rule.floor)

    assert distance(alike) / distance(shuffled) == pytest.approx(WIDEST / (1 + 26 / 400), rel=0.05)


def test_a_look_without_news_costs_nothing_to_speak_of():
    """Four looks a second over a long run must not be felt: against the cost of judging its steps once."""
    watch = watched()
    curves = healthy(2, 3_000)
    started = time.perf_counter()
    watch.steps(curves, batch=3_000)
    judged = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(100):
        watch.sentinels.update(watch.model, watch.now, HERE)
    assert time.perf_counter() - started < judged


@pytest.mark.parametrize("rule", ["clip-jump", "entropy-collapse", "kl-spike", "entropy-spent"])
def test_many_windows_at_once_are_the_windows_one_by_one(rule: str):
    found = load().rules[rule]
    assert isinstance(found, Baseline)
    values = healthy(4, 700)[found.metric].copy()
    values[[150, 151, 320]] = math.nan, math.inf, 0.0
    numbers = range(700 // block(found))
    together = usuals(found, values, numbers)
    for number in numbers:
        end = number * block(found) - found.gap
        low, high = max(end - found.window, 0), max(end, 0)
        if found.reference == "start":
            low, high = 0, found.window if end >= found.window else 0
        alone = usual(found, values[low:high])
        np.testing.assert_allclose(together[:, number], [alone.centre, alone.limit, alone.easier])


def repaired(watch: Watched, value: str) -> None:
    """A run whose entropy the backend had driven up to 4, and which comes down once a fix is `value`."""
    rng = np.random.default_rng(5)
    wobble = np.exp(0.05 * rng.standard_normal(160))
    level = np.concatenate([np.full(60, 4.0), np.maximum(4.0 * 0.9 ** np.arange(100), 0.2)])
    entropy = level * wobble

    def state(now: str, step: int) -> FixState:
        engines = (EngineFix("engine-0", now, "live", step, step),)
        return FixState("prefix-cache-off", now, 0, "op", 0.0, "live", engines)

    watch.feed(state("on" if value == "off" else "off", 0))
    watch.steps({"policy/entropy": entropy[:60]})
    watch.feed(state(value, 60))
    watch.steps({"policy/entropy": entropy[60:]}, first=61)


def test_entropy_that_comes_home_after_a_repair_is_no_collapse():
    watch = Watched(Sentinels(one("entropy-collapse")))
    repaired(watch, "on")
    assert watch.changes == [], watch.words()


def test_the_same_fall_after_a_fix_was_switched_off_is_one():
    watch = Watched(Sentinels(one("entropy-collapse")))
    repaired(watch, "off")
    assert [alarm.state for alarm in watch.changes][:1] == ["raised"]
    assert watch.changes[0].step < 80


def test_a_repair_is_recognised_by_the_value_of_the_fix_not_by_the_words_of_its_mark():
    watch = Watched(Sentinels(one("entropy-collapse")))
    repaired(watch, "wait")
    assert [(mark.text, mark.value) for mark in watch.model.marks] == [("prefix-cache-off wait", "wait")]
    watch = Watched(Sentinels(one("entropy-collapse")))
    rng = np.random.default_rng(5)
    watch.steps({"policy/entropy": np.full(80, 4.0) * np.exp(0.05 * rng.standard_normal(80))})
    watch.model.marks.append(Mark(80, "fix", "switched off", "on"))
    watch.steps({"policy/entropy": [0.2] * 20}, first=81)
    assert watch.changes == [], watch.words()


def test_a_collapse_long_after_a_repair_is_caught_by_what_came_after_it():
    watch = Watched(Sentinels(one("entropy-collapse")))
    repaired(watch, "on")
    watch.steps({"policy/entropy": [0.2] * 60 + [0.02] * 10}, first=161)
    assert [(alarm.state, alarm.step) for alarm in watch.changes] == [("raised", 221)]
