"""Sentinels of engines, steps and feed; and the life of an alarm: raised, acknowledged, reported, cleared."""

from __future__ import annotations

import msgspec
import pytest

from console.sentinels import Sentinels, load
from console.sentinels.rules import Rules, parse
from console.status.link_health import Link
from tests.unit.sentinel_runs import HERE, Watched, engine, run_state

SILENT = Link(True, 20.0)
LOADING = Link(True, 0.1, behind=50_000)


@pytest.fixture
def watch() -> Watched:
    made = Watched(Sentinels(load()))
    made.feed(run_state(), engine("engine-0"), engine("engine-1"))
    made.look()
    return made


def pass_by(watch: Watched, seconds: float, *states: msgspec.Struct) -> None:
    """Seconds in which these states are published again and again, as engines do."""
    for _ in range(int(seconds * 2)):
        watch.now += 0.5
        watch.feed(*states)  # type: ignore[arg-type]  # frames
        watch.look()


def test_all_is_quiet_on_a_run_that_does_well(watch: Watched):
    pass_by(watch, 120, engine("engine-0"), engine("engine-1"))
    assert watch.changes == []


def test_an_engine_that_missed_more_than_one_sync_is_skew_and_one_sync_is_not(watch: Watched):
    pass_by(watch, 60, engine("engine-0", 6), engine("engine-1", 5))
    assert watch.changes == [], "one sync behind: it may be about to get it"
    pass_by(watch, 5, engine("engine-0", 8), engine("engine-1", 5))
    assert watch.changes == [], "not for long enough"
    pass_by(watch, 8, engine("engine-0", 8), engine("engine-1", 5))
    (alarm,) = watch.sentinels.standing
    assert (alarm.rule, alarm.subject, alarm.value, alarm.level) == ("version-skew", "engine-1", 2.0, "error")
    assert alarm.text == "engine-1 serves v5 while the pool is at v8, 2 syncs behind"
    pass_by(watch, 4, engine("engine-0", 8), engine("engine-1", 8))
    assert watch.words() == ["version-skew raised 1", "version-skew cleared 1"]


def test_syncs_that_follow_each_other_quickly_are_no_skew(watch: Watched):
    """Both engines load every version, a report apart."""
    for version in range(6, 120):
        watch.now += 0.25
        watch.feed(engine("engine-0", version), engine("engine-1", version - 2))
        watch.look()
        watch.feed(engine("engine-1", version))
        watch.look()
    assert watch.changes == []


def test_a_silent_engine(watch: Watched):
    pass_by(watch, 9, engine("engine-0"))
    assert watch.changes == []
    pass_by(watch, 2, engine("engine-0"))
    (alarm,) = watch.changes
    assert (alarm.rule, alarm.subject, alarm.limit) == ("engine-stalled", "engine-1", 10.0)
    assert alarm.text == "engine-1 silent for 10 s, running before"
    pass_by(watch, 60, engine("engine-0"))
    assert len(watch.changes) == 1, "once an episode"
    pass_by(watch, 4, engine("engine-0"), engine("engine-1"))
    assert watch.words()[-1] == "engine-stalled cleared 1"


def test_an_engine_that_loads_its_model_may_be_silent_until_that_takes_too_long(watch: Watched):
    starting = msgspec.structs.replace(engine("engine-1"), phase="starting")
    watch.feed(starting)
    pass_by(watch, 590, engine("engine-0"))
    assert watch.changes == []
    pass_by(watch, 15, engine("engine-0"))
    (alarm,) = watch.changes
    assert (alarm.rule, alarm.subject, alarm.limit) == ("engine-stalled", "engine-1", 600.0)


def test_an_engine_with_requests_and_no_token_and_not_one_without_requests(watch: Watched):
    idle = engine("engine-0", tokens_per_s=0.0, running=0)
    stuck = engine("engine-1", tokens_per_s=0.0, running=2, waiting=3)
    pass_by(watch, 29, idle, stuck)
    assert watch.changes == []
    pass_by(watch, 3, idle, stuck)
    (alarm,) = watch.changes
    assert alarm.text == "engine-1 no token for 30 s with 5 requests"


@pytest.mark.parametrize(
    ("state", "seconds", "text"),
    [
        (engine("engine-0", phase="dead", detail="killed"), 0, "engine-0 is dead: killed"),
        (engine("engine-0", phase="syncing"), 120, "engine-0 in one weight sync for 2 min"),
        (engine("engine-0", phase="starting", detail="loading"), 600, "engine-0 starting for 10 min: loading"),
    ],
)
def test_an_engine_that_stays_in_a_phase(state: msgspec.Struct, seconds: float, text: str):
    watch = Watched(Sentinels(load()))
    watch.feed(run_state())
    pass_by(watch, max(seconds - 1, 0), state)
    assert watch.changes == []
    pass_by(watch, 2, state)
    assert watch.changes[0].text == text


def test_a_paused_engine_and_one_that_is_being_restarted_are_no_alarm(watch: Watched):
    paused = engine("engine-0", phase="paused", tokens_per_s=0.0, running=9)
    pass_by(watch, 300, paused, engine("engine-1", phase="restarting"))
    assert watch.changes == []


def test_engines_are_not_judged_while_nothing_is_heard_nor_while_history_comes_in(watch: Watched):
    for link in (SILENT, LOADING, Link(False, 0.1)):
        for _ in range(60):
            watch.look(link, after=1.0)
    assert {alarm.rule for alarm in watch.changes} == {"feed-stale"}
    pass_by(watch, 9, engine("engine-0"))
    assert not [alarm for alarm in watch.sentinels.standing if alarm.rule == "engine-stalled"], "counted from now"


def test_a_stale_feed_is_raised_and_cleared(watch: Watched):
    watch.look(Link(True, 14.0), after=14)
    assert watch.changes == []
    (alarm,) = watch.look(Link(True, 15.5), after=1.5)
    assert (alarm.rule, alarm.subject, alarm.value, alarm.limit) == ("feed-stale", "", 15.5, 15.0)
    assert alarm.text == "the hub has been silent for 16 s"
    watch.look(HERE, after=1)
    assert watch.sentinels.standing, "not at the first word"
    (over,) = watch.look(HERE, after=3)
    assert over.state == "cleared"
    assert watch.sentinels.history == [over]


def test_the_end_of_a_run_is_no_stale_feed_and_clears_what_was_of_its_engines(watch: Watched):
    pass_by(watch, 12, engine("engine-0"))
    assert [alarm.rule for alarm in watch.sentinels.standing] == ["engine-stalled"]
    watch.feed(run_state("finished"))
    (over,) = watch.look()
    assert over.line.endswith("; the run has ended")
    watch.look(Link(True, 100.0, gone=True), after=100)
    assert watch.sentinels.standing == []


@pytest.fixture
def stepping() -> Watched:
    made = Watched(Sentinels(Rules({"steps-stalled": load().rules["steps-stalled"]})))
    made.feed(run_state())
    made.steps({"reward/mean": [0.5] * 20})
    return made


def test_steps_that_do_not_come(stepping: Watched):
    watch = stepping
    pass_by(watch, 58, engine("engine-0"), engine("engine-1"))
    assert watch.changes == []
    pass_by(watch, 4, engine("engine-0"), engine("engine-1"))
    (alarm,) = watch.changes
    assert (alarm.rule, alarm.step) == ("steps-stalled", 20)
    assert alarm.text == "no step for 60 s; a step usually takes 1 s"
    watch.steps({"reward/mean": [0.5] * 4}, first=21)
    assert watch.words()[-1].startswith("steps-stalled cleared")


def test_steps_are_not_awaited_while_the_run_is_paused(stepping: Watched):
    stepping.feed(run_state("paused"))
    pass_by(stepping, 300, engine("engine-0"))
    assert stepping.changes == []


def test_alarms_are_reported_once_and_not_those_of_the_past():
    watch = Watched(Sentinels(load()))
    quiet, bad = [0.01] * 30, [0.2] * 5
    watch.feed(run_state())
    watch.steps({"mismatch/abs_diff_mean": quiet + bad + quiet + bad}, batch=70)
    assert len(watch.changes) == 3
    assert watch.sentinels.take_new_alarms(LOADING) == []
    (alarm,) = watch.sentinels.take_new_alarms(HERE)
    assert alarm.step == 66, "the first had been cleared before anybody looked"
    assert watch.sentinels.take_new_alarms(HERE) == []


def test_acknowledging_marks_what_stands_and_nothing_else():
    watch = Watched(Sentinels(load()))
    watch.steps({"reward/zero_std_fraction": [1.0] * 8})
    watch.steps({"mismatch/abs_diff_mean": [0.2] * 3}, first=9)
    first, second = sorted(watch.sentinels.standing, key=lambda alarm: alarm.number)
    before = watch.sentinels.revision
    assert watch.sentinels.acknowledge([first.number]) == 1
    assert watch.sentinels.revision > before
    assert watch.sentinels.acknowledge([first.number]) == 0
    assert [alarm.acknowledged for alarm in watch.sentinels.standing] == [False, True]
    assert watch.sentinels.take_new_alarms(HERE) == [second], "what was seen need not be reported"
    assert watch.sentinels.acknowledge() == 1


def test_a_rule_that_is_off_is_not_looked_at():
    watch = Watched(Sentinels(parse("[rules.mismatch-limit]\nenabled = false", "m")))
    watch.steps({"mismatch/abs_diff_mean": [0.9] * 9})
    assert watch.changes == []
