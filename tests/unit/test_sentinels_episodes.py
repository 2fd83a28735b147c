"""Rules of one episode are one alarm: what breaks with it joins it, what is worse is raised beside it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from console.sentinels import Sentinels, load
from console.sentinels.alarm import Transition
from console.sentinels.episodes import Change, Episodes, Member
from tests.unit.sentinel_runs import Watched

RECORDED = Path(__file__).parent / "data" / "parity-runs.csv"
MEMBERS = (
    Member("jump", "mismatch", "warn"),
    Member("limit", "mismatch", "error"),
    Member("other", "mismatch", "error"),
    Member("clip", "clip", "warn"),
)


def raised(number: int, at: int) -> tuple[int, Transition]:
    name = MEMBERS[number].rule
    return number, Transition(True, f"m/{name}", at, 1.0, 0.5, f"{name} is high; seen", 0.0, at)


def cleared(number: int, at: int) -> tuple[int, Transition]:
    name = MEMBERS[number].rule
    return number, Transition(False, f"m/{name}", at, 0.1, 0.5, "back", 0.0, at)


def words(changes: list[Change]) -> list[str]:
    return [
        f"{change.owner.rule} {'raised' if change.transition.raised else 'cleared'} {change.transition.at}"
        for change in changes
    ]


HISTORIES = {
    "what breaks later joins, and all have to be over": (
        [raised(1, 5), raised(2, 7), cleared(1, 9), cleared(2, 12)],
        ["limit raised 5", "limit cleared 12"],
    ),
    "a worse one is raised beside it": (
        [raised(0, 5), raised(1, 7), cleared(0, 9), cleared(1, 12)],
        ["jump raised 5", "limit raised 7", "jump cleared 9", "limit cleared 12"],
    ),
    "a lesser one joins": (
        [raised(1, 5), raised(0, 6), cleared(1, 8), cleared(0, 9)],
        ["limit raised 5", "limit cleared 9"],
    ),
    "of one step the errors come first": (
        [raised(0, 5), raised(2, 5), cleared(0, 6), cleared(2, 7)],
        ["other raised 5", "other cleared 7"],
    ),
    "what is raised at a step keeps the alarm that would be over there": (
        [raised(1, 5), raised(2, 8), cleared(1, 8), cleared(2, 9)],
        ["limit raised 5", "limit cleared 9"],
    ),
    "one that comes back joins the alarm that others have kept": (
        [raised(1, 5), raised(2, 6), cleared(1, 7), raised(1, 8), cleared(2, 9), cleared(1, 10)],
        ["limit raised 5", "limit cleared 10"],
    ),
    "another episode is another alarm": (
        [raised(3, 5), raised(1, 5), cleared(1, 6), cleared(3, 7)],
        ["limit raised 5", "clip raised 5", "limit cleared 6", "clip cleared 7"],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_histories(name: str) -> None:
    found, expected = HISTORIES[name]
    assert words(list(Episodes(MEMBERS).apply(found))) == expected
    step_by_step = Episodes(MEMBERS)
    steps = sorted({transition.at for _, transition in found})
    parts = [[one for one in found if one[1].at == step] for step in steps]
    assert words([change for part in parts for change in step_by_step.apply(part)]) == expected, "however batched"


def test_what_began_with_the_same_step_is_in_the_sentence() -> None:
    first, over = Episodes(MEMBERS).apply([raised(1, 5), raised(2, 5), cleared(1, 6), cleared(2, 7)])
    assert first.transition.text == "limit is high; seen; also other is high"
    assert (over.transition.subject, over.transition.text) == ("m/limit", "other m/other: back")


def test_every_series_rule_of_a_metric_in_several_rules_has_an_episode() -> None:
    """Otherwise one fall of entropy would be three alarms."""
    by_metric: dict[str, set[str]] = {}
    for name, rule in load():
        if hasattr(rule, "metric"):
            by_metric.setdefault(f"{rule.metric} {getattr(rule, 'side', 'high')}", set()).add(rule.episode or name)
    assert {key: episodes for key, episodes in by_metric.items() if len(episodes) > 1} == {}


def test_a_mismatch_under_all_its_names_is_one_alarm() -> None:
    watch = Watched(Sentinels(load()))
    names = {
        "mismatch/abs_diff_mean": 0.3,
        "mismatch/kl_k3": 0.2,
        "mismatch/kl_k1": -0.3,
        "mismatch/mult_prob_error": 1.5,
    }
    watch.steps({name: [value] * 4 for name, value in names.items()})
    (alarm,) = watch.changes
    assert alarm.line == (
        "mismatch-limit at step 1: mismatch mean|Δlogp| 0.3, above its limit 0.05; also token mult prob error 1.5, "
        "above its limit 1.05, mismatch KL (k3) 0.2, above its limit 0.01 and 1 more"
    )


def test_the_recorded_defaults_of_vllm_raise_what_the_readme_says_goes_wrong() -> None:
    with RECORDED.open() as file:
        rows = [row for row in csv.DictReader(line for line in file if line[0] != "#") if row["run"] == "defaults"]
    watch = Watched(Sentinels(load()))
    watch.steps({name: [float(row[name]) for row in rows] for name in rows[0] if "/" in name})
    assert watch.words() == ["mismatch-limit raised 1", "entropy-rise raised 38", "reward-collapse raised 41"]
