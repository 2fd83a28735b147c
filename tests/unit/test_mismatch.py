"""Every mismatch, staleness and lag number against a float64 reference in Python floats, and against TRL's formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from driftline.catalog import metrics
from driftline.pairs import formulas

SEEDS = range(6)


def draw(seed: int, n: int = 700, scale: float = 0.5):
    """Heavy-tailed differences, as real ones are."""
    rng = np.random.default_rng(seed)
    roll = -rng.exponential(1.0, n)
    train = roll + scale * rng.standard_t(4, n).clip(-3, 3)
    return train.astype(np.float32), roll.astype(np.float32)


def reference(train, roll) -> dict[str, float]:
    """The catalogue's formulas, token by token, with exact summation."""
    d = [float(t) - float(r) for t, r in zip(train, roll, strict=True)]
    n = len(d)
    size = sorted(abs(x) for x in d)
    at = 0.99 * (n - 1)
    floor = int(at)
    p99 = size[floor] + (at - floor) * (size[min(floor + 1, n - 1)] - size[floor])
    r = [math.exp(x) for x in d]
    return {
        "mismatch/abs_diff_mean": math.fsum(size) / n,
        "mismatch/abs_diff_p99": p99,
        "mismatch/abs_diff_max": size[-1],
        "mismatch/kl_k3": math.fsum(a - 1 - x for a, x in zip(r, d, strict=True)) / n,
        "mismatch/kl_k1": math.fsum(-x for x in d) / n,
        "mismatch/mult_prob_error": math.fsum(math.exp(x) for x in size) / n,
        "mismatch/ratio_mean": math.fsum(r) / n,
        "mismatch/ess": math.fsum(r) ** 2 / (n * math.fsum(x * x for x in r)),
    }


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", [1e-3, 0.05, 0.8])
def test_every_number_agrees_with_the_reference(seed: int, scale: float) -> None:
    train, roll = draw(seed, scale=scale)
    got, want = formulas.mismatch(train, roll), reference(train, roll)
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("seed", SEEDS)
def test_agrees_with_trl_on_masked_tensors(seed: int) -> None:
    # TRL GRPOTrainer: sampling_logp_difference and token-level importance_sampling_ratio, over the completion mask.
    train, roll = draw(seed, n=24 * 16)
    mask = torch.rand(24, 16, generator=torch.Generator().manual_seed(seed)) < 0.7
    old = torch.tensor(train, dtype=torch.float64).view(24, 16)
    sampling = torch.tensor(roll, dtype=torch.float64).view(24, 16)
    delta = torch.abs(old - sampling)[mask]
    ratio = torch.exp(old - sampling)[mask]
    got = formulas.mismatch(old[mask].numpy(), sampling[mask].numpy())
    assert got["mismatch/abs_diff_mean"] == pytest.approx(float(delta.mean()), rel=1e-5)
    assert got["mismatch/abs_diff_max"] == pytest.approx(float(delta.max()), rel=1e-5)
    assert got["mismatch/ratio_mean"] == pytest.approx(float(ratio.mean()), rel=1e-5)


def test_equal_backends_are_exactly_clean() -> None:
    train, _ = draw(0)
    values = formulas.mismatch(train, train)
    assert values.pop("mismatch/ratio_mean") == 1
    assert values.pop("mismatch/mult_prob_error") == 1
    assert values.pop("mismatch/ess") == pytest.approx(1, rel=1e-12)
    assert not any(values.values())


def test_small_differences_do_not_cancel_away() -> None:
    # k3 of d is d^2/2 to first order: computed as exp(d) - d - 1 in one go it would be rounding noise here.
    values = formulas.mismatch(np.full(10, -1.0) + 1e-7, np.full(10, -1.0))
    assert values["mismatch/kl_k3"] == pytest.approx(0.5e-14, rel=1e-2)


def test_ess_survives_ratios_beyond_the_range_of_exp() -> None:
    d = np.array([-900.0, 900.0, 900.0, 0.0])
    with np.errstate(over="ignore"):
        assert formulas.mismatch(d, np.zeros(4))["mismatch/ess"] == pytest.approx(0.5)


def test_staleness_and_lag() -> None:
    now, train = draw(7)
    want = math.fsum(abs(float(a) - float(b)) for a, b in zip(now, train, strict=True)) / len(now)
    assert formulas.staleness(now, train)["staleness/abs_diff_mean"] == pytest.approx(want, rel=1e-5)
    assert formulas.version_lag(12, [12, 11, 11, 8]) == {"async/version_lag_mean": 1.5, "async/version_lag_max": 4.0}


def test_rewards() -> None:
    groups = [[0.0, 1.0, 0.5, 0.5], [0.25, 0.25, 0.25, 0.25]]
    got = formulas.rewards(groups)
    flat = [v for g in groups for v in g]
    mean = sum(flat) / 8
    assert got["reward/mean"] == pytest.approx(mean)
    assert got["reward/std"] == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in flat) / 7))
    assert got["reward/zero_std_fraction"] == 0.5


def test_nothing_measured_is_left_out_not_zero() -> None:
    assert formulas.mismatch([], []) == {}
    assert formulas.staleness([], []) == {}
    assert formulas.version_lag(3, []) == {}


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 logprobs against 3"):
        formulas.mismatch([0.0, 0.0], [0.0, 0.0, 0.0])


def test_all_names_are_in_the_catalogue() -> None:
    train, roll = draw(1)
    values = {
        **formulas.mismatch(train, roll),
        **formulas.staleness(train, roll),
        **formulas.version_lag(1, [0]),
        **formulas.rewards([[0.0, 1.0]]),
    }
    assert set(values) <= set(metrics.BY_NAME)
    named = {n for n in metrics.BY_NAME if n.startswith(("mismatch/", "staleness/", "async/", "reward/"))}
    # Counted where groups are taken or dropped, in trainer.rollouts.
    assert named == set(values) | {"async/stale_groups", "async/stale_dropped"}
