"""The synthetic curves tell the demonstration's story, cover the catalogue and repeat themselves for a seed."""

from __future__ import annotations

import math
from statistics import fmean

import pytest

from console.cli.verbs.hub import command_wait
from console.simulate.curves import OFFSET, Curves
from driftline.catalog.metrics import METRICS

SYNC = (0.03, 0.04, 0.005)


def play(seed: int, switch_at: int, steps: int = 120) -> list[dict[str, float]]:
    curves = Curves(seed)
    return [curves.step(OFFSET if step >= switch_at else (), lag=1.0, engines=2, sync_s=SYNC) for step in range(steps)]


@pytest.mark.parametrize("seed", range(5))
def test_defaults_go_wrong_and_the_fixes_bring_it_home(seed: int) -> None:
    rows = play(seed, switch_at=60)

    def mean(name: str, start: int) -> float:
        return fmean(row[name] for row in rows[start : start + 10])

    assert mean("reward/mean", 50) < mean("reward/mean", 0)
    assert mean("policy/entropy", 50) > mean("policy/entropy", 0)
    assert mean("reward/mean", 110) > mean("reward/mean", 50) + 0.2
    assert mean("mismatch/abs_diff_mean", 50) > 10 * mean("mismatch/abs_diff_mean", 110)
    assert mean("policy/clip_fraction", 50) > 3 * mean("policy/clip_fraction", 110)


def test_every_metric_of_the_catalogue_every_step() -> None:
    for row in play(0, switch_at=60):
        # No engine of a synthetic run scores what another one has sampled.
        assert set(row) == {metric.name for metric in METRICS if not metric.name.startswith("shadow/")}
        assert all(math.isfinite(value) for value in row.values())
        assert row["policy/clip_fraction_low"] + row["policy/clip_fraction_high"] <= row["policy/clip_fraction"]


def test_a_seed_is_a_run() -> None:
    assert play(3, 40) == play(3, 40)
    assert play(3, 40) != play(4, 40)


@pytest.mark.parametrize("fix", sorted(OFFSET))
def test_each_fix_takes_its_part_away(fix: str) -> None:
    without, with_fix = Curves(1), Curves(1)
    others = set(OFFSET) - {fix}
    args = {"lag": 1.0, "engines": 2, "sync_s": SYNC}
    off = fmean(without.step(others, **args)["mismatch/abs_diff_mean"] for _ in range(50))  # type: ignore[arg-type]
    on = fmean(with_fix.step(OFFSET, **args)["mismatch/abs_diff_mean"] for _ in range(50))  # type: ignore[arg-type]
    assert off - on == pytest.approx(OFFSET[fix], rel=0.2)


@pytest.mark.parametrize("rate", [0.1, 2.0, 20.0, 100.0, 5000.0])
def test_no_wait_is_longer_than_a_step(rate: float) -> None:
    assert 0 < command_wait(rate) < 1 / rate
    assert command_wait(rate) <= 0.05, "a command is not kept waiting"
