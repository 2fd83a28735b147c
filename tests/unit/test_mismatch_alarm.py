"""When a run measures the cause of its own mismatch by itself: limits, jumps, once each time, not too often."""

from __future__ import annotations

import math

import pytest

from trainer.measure.alarm import BEFORE, LEAST, LIMITED, MEAN, SETTLED, MismatchAlarm

APART = 300.0


def settled(apart: float = APART) -> MismatchAlarm:
    """One that has seen the first steps, which had next to no mismatch."""
    alarm = MismatchAlarm(apart)
    assert not any(alarm.due({MEAN: 1e-5}, 0.0) for _ in range(SETTLED))
    return alarm


def reasons(means: list[float], *, seconds: float = 1.0) -> list[str]:
    alarm = settled()
    return [alarm.due({MEAN: mean}, step * seconds) for step, mean in enumerate(means)]


def at(found: list[str]) -> list[int]:
    return [step for step, reason in enumerate(found) if reason]


def test_two_of_three_steps_above_the_published_limit_once() -> None:
    found = reasons([0.01, 0.06, 0.01, 0.06, 0.06, 0.06, 0.06])
    assert at(found) == [3]
    assert found[3] == f"{MEAN} 0.06, above 0.05 in 2 of 3 steps"
    assert at(reasons([0.01, 0.06, 0.01, 0.01, 0.06, 0.01])) == []


@pytest.mark.parametrize("name", LIMITED)
def test_every_limited_metric_counts(name: str) -> None:
    alarm = settled()
    assert alarm.due({name: 1e3}, 0.0) == ""
    assert alarm.due({name: 1e3}, 1.0).startswith(name)


def test_the_first_updates_are_waited_for() -> None:
    alarm = MismatchAlarm(APART)
    assert at([alarm.due({MEAN: 0.3}, float(step)) for step in range(30)]) == [SETTLED - 1]


def test_three_steps_far_above_what_the_run_has_had_before() -> None:
    healthy = [1e-5] * (BEFORE - SETTLED)
    assert at(reasons([*healthy, 0.01, 0.01, 0.01, 0.01])) == [len(healthy) + 2]
    assert "1000 times what it was" in reasons([*healthy, 0.01, 0.01, 0.01])[-1]
    assert at(reasons([*healthy, 0.01, 0.01, 1e-5, 0.01, 0.01])) == []
    assert at(reasons([*healthy[1:], 0.01, 0.01])) == [], "too few steps before"
    assert at(reasons([*healthy, *[LEAST / 2] * 9])) == [], "next to nothing, however much less it was"


def test_one_each_time_that_it_goes_wrong_and_not_sooner_than_allowed() -> None:
    twice = [0.06] * 5 + [0.001] * 5 + [0.06] * 5
    assert at(reasons(twice)) == [1]
    assert at(reasons(twice, seconds=50.0)) == [1, 11]
    assert at(reasons([*twice, *[0.06] * 400])) == [1, 301], "made later, where it still is wrong then"


def test_numbers_that_are_none_raise_nothing() -> None:
    assert at(reasons([math.nan] * 30)) == []
    alarm = MismatchAlarm(APART)
    assert [alarm.due({}, 0.0) for _ in range(5)] == [""] * 5
