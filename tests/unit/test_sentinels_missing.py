"""What is missing is not healthy: metrics that stop, have holes, or turn to what is no number while the run goes on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import pytest

from console.sentinels import Sentinels, load
from console.sentinels.kinds import Baseline, Limit
from console.sentinels.rules import Rules, parse
from console.sentinels.watch import missing_metrics
from driftline.catalog.metrics import METRICS
from driftline.frames import Metrics
from tests.tui.synthetic import START
from tests.unit.sentinel_runs import Watched, run_state

MISMATCH = "mismatch/abs_diff_mean"


NAMES = ("mismatch/abs_diff_mean", "mismatch/kl_k3", "mismatch/kl_k1", "mismatch/ess")


def only_missing() -> Rules:
    rules = parse(f"[rules.metric-missing]\nmetrics = {[*NAMES, 'policy/entropy']}\n", "m").rules
    return Rules({"metric-missing": rules["metric-missing"]})


def feed(watch: Watched, steps: Iterable[int], values: Mapping[str, float], *, batch: int = 1) -> None:
    """Steps with these numbers beside the reward."""
    for i, step in enumerate(steps, 1):
        watch.now += 1.0
        watch.feed(Metrics(step, step, START + watch.now, {"reward/mean": 0.5, **values}))
        if i % batch == 0:
            watch.look()
    watch.look()


@pytest.fixture
def watch() -> Watched:
    made = Watched(Sentinels(only_missing()))
    made.feed(run_state())
    return made


def test_a_metric_that_stops_is_raised_at_its_first_missing_step_and_cleared_when_it_is_back(watch: Watched) -> None:
    feed(watch, range(1, 31), {MISMATCH: 0.01})
    feed(watch, range(31, 35), {})
    assert watch.changes == [], "two of the missing steps are not judged yet"
    feed(watch, [35], {})
    (alarm,) = watch.changes
    assert (alarm.rule, alarm.subject, alarm.step, alarm.level) == ("metric-missing", MISMATCH, 31, "error")
    assert math.isnan(alarm.value)
    assert alarm.text == "mismatch mean|Δlogp| is missing; its last number is of step 30, the run is at step 33"
    feed(watch, range(36, 60), {})
    assert len(watch.changes) == 1, "once an episode"
    feed(watch, range(60, 70), {MISMATCH: 0.01})
    assert watch.words()[1:] == ["metric-missing cleared 64"]
    assert watch.changes[1].cleared_text == "reported again, at step 64"


def test_every_metric_that_has_a_limit_or_a_rule_is_watched() -> None:
    rules = load()
    (rule,) = (one for name, one in rules if name == "metric-missing")
    watched = {name for name, _ in missing_metrics(rules, rule)}  # type: ignore[arg-type]  # a rule of that kind
    assert {one.name for one in METRICS if one.warn is not None or one.alarm is not None} <= watched
    assert {one.metric for _, one in rules if isinstance(one, (Limit, Baseline))} <= watched


@pytest.mark.parametrize(
    "name",
    [name for name, _ in missing_metrics(load(), load().rules["metric-missing"])],  # type: ignore[arg-type]  # as above
)
@pytest.mark.parametrize("after", ["absent", "nan", "inf", "holes"])
def test_the_packaged_rules_report_each_of_them(name: str, after: str) -> None:
    """One alarm at least, whichever rule it is of, and none before."""
    healthy = {"mismatch/mult_prob_error": 1.01, "mismatch/ratio_mean": 1.0, "mismatch/ess": 0.99}
    value = healthy.get(name, 1.0 if name in ("correction/weight_mean", "reward/mean") else 0.0005)
    watch = Watched(Sentinels(load()))
    watch.feed(run_state())
    for step in range(1, 101):
        watch.now += 1.0
        if step <= 60 or (after == "holes" and step % 2):
            values = {name: value}
        else:
            values = {} if after in ("absent", "holes") else {name: float(after)}
        watch.feed(Metrics(step, step, START + watch.now, {"policy/lr": 1e-6, **values}))
        watch.look()
    raised = [alarm for alarm in watch.changes if alarm.state == "raised"]
    assert raised
    assert {alarm.subject for alarm in raised} == {name}
    assert 61 <= raised[0].step <= 62


@pytest.mark.parametrize("wild", [math.nan, math.inf, -math.inf])
def test_no_number_is_missing_for_a_metric_without_a_limit(watch: Watched, wild: float) -> None:
    feed(watch, range(1, 6), {"policy/entropy": 0.5})
    feed(watch, range(6, 12), {"policy/entropy": wild})
    (alarm,) = watch.changes
    assert alarm.step == 6
    assert alarm.text == f"entropy is {wild:g}; its last number is of step 5, the run is at step 8"


def test_what_never_was_a_number_is_found_too(watch: Watched) -> None:
    feed(watch, range(1, 8), {"policy/entropy": math.nan})
    assert watch.changes[0].text == "entropy is nan; it never had a number, the run is at step 3"


def test_a_rhythm_of_its_own_is_not_missing_and_its_end_is(watch: Watched) -> None:
    for start in range(1, 300, 10):
        feed(watch, [start], {MISMATCH: 0.01})
        feed(watch, range(start + 1, start + 10), {})
    assert watch.changes == []
    feed(watch, range(301, 340), {})
    (alarm,) = watch.changes
    assert alarm.step == 291 + 20, "twice its distance after its last number"


def test_one_that_comes_more_rarely_is_missing_until_that_is_usual(watch: Watched) -> None:
    feed(watch, range(1, 101), {MISMATCH: 0.01})
    for start in range(101, 601, 10):
        feed(watch, [start], {MISMATCH: 0.01})
        feed(watch, range(start + 1, start + 10), {})
    assert [alarm.state for alarm in watch.changes] == ["raised", "cleared"]
    assert watch.changes[1].cleared_step < 250


def test_a_single_hole_is_no_alarm_and_neither_is_what_was_reported_twice(watch: Watched) -> None:
    feed(watch, range(1, 3), {MISMATCH: 0.01})
    feed(watch, range(3, 40), {"policy/entropy": 0.5})
    for step in range(40, 100):
        feed(watch, [step], {"policy/entropy": 0.5} if step % 11 else {})
    assert watch.changes == []


def test_metrics_of_a_family_that_end_together_are_one_alarm() -> None:
    watch = Watched(Sentinels(only_missing()))
    watch.feed(run_state())
    feed(watch, range(1, 31), {**dict.fromkeys(NAMES, 0.5), "policy/entropy": 0.5})
    feed(watch, range(31, 60), {})
    assert sorted(alarm.subject.partition("/")[0] for alarm in watch.changes) == ["mismatch", "policy"]
    (alarm,) = (one for one in watch.changes if one.subject == MISMATCH)
    assert "; also mismatch KL (k3) is missing, mismatch KL (k1, signed) is missing and 1 more" in alarm.text
    feed(watch, range(60, 70), {"mismatch/abs_diff_mean": 0.01})
    assert len(watch.sentinels.standing) == 2, "three of them are still missing"
    feed(watch, range(70, 80), dict.fromkeys(NAMES, 0.5))
    assert [one.subject for one in watch.sentinels.standing] == ["policy/entropy"]


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_the_end_of_a_run_judges_its_last_steps(watch: Watched, status: str) -> None:
    feed(watch, range(1, 31), {MISMATCH: 0.01})
    feed(watch, range(31, 34), {})
    assert watch.changes == []
    watch.feed(run_state(status, 33))
    watch.look()
    assert watch.words() == ["metric-missing raised 31"]


def test_how_frames_were_batched_changes_nothing() -> None:
    seen = []
    for batch in (1, 7, 1000):
        watch = Watched(Sentinels(only_missing()))
        watch.feed(run_state())
        for step in range(1, 301):
            watch.now += 1.0
            values = {MISMATCH: 0.01} if step < 100 or step > 200 or step % 3 == 0 else {}
            values |= {"policy/entropy": math.nan if 150 < step < 160 else 0.5}
            watch.feed(Metrics(step, step, START + watch.now, {"reward/mean": 0.5, **values}))
            if step % batch == 0:
                watch.look()
        watch.feed(run_state("finished", 300))
        watch.look()
        seen.append([(alarm.subject, alarm.state, alarm.step, alarm.cleared_step) for alarm in watch.changes])
    assert seen[0]
    assert seen[0] == seen[1] == seen[2]


def test_a_run_that_goes_back_to_a_checkpoint_is_judged_anew(watch: Watched) -> None:
    feed(watch, range(1, 61), {MISMATCH: 0.01})
    feed(watch, range(51, 71), {MISMATCH: 0.01})
    assert watch.changes == []
    feed(watch, range(71, 80), {})
    assert watch.words() == ["metric-missing raised 71"]
    feed(watch, range(65, 90), {MISMATCH: 0.01})
    assert watch.words()[1].startswith("metric-missing cleared")
