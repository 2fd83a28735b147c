"""The diagnosis over simulated runs of a small transformer, with seeds that its likelihoods were not counted from.

Bounded; `python -m tests.stats diagnosis` is the whole (tests/stats/diagnosis.py), and docs/diagnosis.md has its table.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the simulated runs are computed with torch")

from console.diagnosis.likelihoods import calibrated
from tests.diagnosis.__main__ import answer, judge, visible
from tests.diagnosis.corpus import STEPS, record
from tests.stats.diagnosis import SEED, healthy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CLEAR = (
    "raw-logprobs", "top-p", "trainer-temperature", "head-bf16", "placeholder-zero", "shifted-ids", "dropout",
    "in-flight-kv", "lag",
)  # fmt: skip
WEIGHTS = ("missed-sync", "layer-not-loaded", "layers-swapped", "head-not-sent", "stale-prefix-cache")
"""What these do to logprobs is much alike: digests of the weights tell them apart, token pairs only in part."""


@pytest.mark.parametrize("name", CLEAR)
def test_a_clear_cause_is_named_in_most_runs(name: str) -> None:
    runs = [run for run in (record([name], SEED + seed) for seed in range(4)) if visible(run)]
    said = [answer(judge(run, calibrated())) for run in runs]
    assert sum(one == name for one in said) >= 0.7 * len(said), said


def test_other_weights_are_never_taken_for_semantics_or_for_nothing() -> None:
    runs = [run for name in WEIGHTS for run in (record([name], SEED + seed) for seed in range(2)) if visible(run)]
    said = [answer(judge(run, calibrated())) for run in runs]
    assert len(said) >= 5
    assert sum(bool(set(one.split("+")) & {*WEIGHTS, "unknown"}) for one in said) >= 0.8 * len(said), said


def test_no_false_alarm_over_healthy_steps() -> None:
    steps, alarms = healthy(10 * STEPS, first=SEED + 500)
    assert steps == 10 * STEPS
    assert alarms == 0
