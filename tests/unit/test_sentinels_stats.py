"""The tables of docs/sentinels.md are what the simulation prints: a part is made anew, the whole held to bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.sentinels import load
from tests.stats.sentinels import (
    FAULTS,
    HEALTHY_STEPS,
    LOW,
    MODELS,
    SEEDS,
    Noise,
    alarms,
    delay,
    false_alarms,
    phase_change,
)

PAGE = Path(__file__).parents[2] / "docs" / "sentinels.md"
SLACK = 0.5
"""Alarms in 10,000 steps by which another build of numpy may differ from the page."""


def rows(head: str) -> Iterator[list[str]]:
    """The cells of the table on the page whose header begins with these words."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n| {head}", 1)[1]
    for line in text.split("\n\n", 1)[0].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("| ").split(" | ")]


def documented() -> dict[str, tuple[float, Counter[str]]]:
    """False alarms by noise model: of all rules, and by rule."""
    found = {}
    for name, total, parts in rows("noise "):
        by_rule = {} if parts == "-" else dict(part.rsplit(" ", 1) for part in parts.split(", "))
        found[name] = float(total), Counter({rule: float(rate) for rule, rate in by_rule.items()})  # type: ignore[misc]  # rates
    return found


@pytest.mark.parametrize("model", [Noise(0.3), Noise(0.9)], ids=lambda model: model.name)
def test_false_alarms_are_those_of_the_page(model: Noise) -> None:
    (count,) = false_alarms(load(), [model]).values()
    ten_thousands = len(SEEDS) * HEALTHY_STEPS / 10_000
    total, by_rule = documented()[model.name]
    assert count.total() / ten_thousands == pytest.approx(total, abs=SLACK), count
    for rule in {*count, *by_rule}:
        assert count[rule] / ten_thousands == pytest.approx(by_rule[rule], abs=SLACK), rule


def test_the_page_keeps_the_bounds() -> None:
    found = documented()
    assert set(found) == {model.name for model in MODELS}
    for name, (total, by_rule) in found.items():
        assert by_rule["kl-limit"] <= 2.0, name
        assert total == pytest.approx(sum(by_rule.values()), abs=0.05 * len(by_rule) + 0.06), name
    assert found[Noise(0.3).name][0] <= 0.1, "noise as recorded"
    assert max(found[Noise(rho).name][0] for rho in (0.0, 0.3, 0.6)) <= 1.0
    assert found[Noise(0.9).name][0] <= 5.0
    assert max(total for total, _ in found.values()) <= 25.0


@pytest.mark.parametrize("name", ["reward NaN", "entropy × 4 at once", "importance ratio 3e-7", "mismatch ends"])
def test_delays_are_those_of_the_page(name: str) -> None:
    (fault,) = (one for one in FAULTS if one.name == name)
    (row,) = (row for row in rows("fault ") if row[0] == name)
    rules = load()
    for model, found, after in ((Noise(0.3), row[1], row[2]), (Noise(0.9), row[3], row[4])):
        delays = sorted(one[0] for seed in SEEDS if (one := delay(fault, model, seed, rules)) is not None)
        assert f"{len(delays)} of {len(SEEDS)}" == found
        assert delays[-1] == pytest.approx(int(after.partition("(")[2].rstrip(")")), abs=1)


def test_every_fault_is_on_the_page_and_found() -> None:
    found = {row[0]: row for row in rows("fault ")}
    assert set(found) == {fault.name for fault in FAULTS}
    for name, row in found.items():
        assert int(row[1].split()[0]) == len(SEEDS), name
        assert int(row[3].split()[0]) >= len(SEEDS) - 1, name


@pytest.mark.parametrize("steps", [10.0, 30.0, 100.0])
def test_a_healthy_phase_change_is_no_collapse(steps: float) -> None:
    """Reward from .3 to .9 while entropy falls to a fifth."""
    rules = load()
    for seed in SEEDS[:10]:
        raised = [alarm.line for alarm in alarms(phase_change(Noise(0.3), seed, steps), rules) if alarm.rule in LOW]
        assert raised == []
