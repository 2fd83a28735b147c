"""Fault 26: what telemetry costs a step of the real run, against its limit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench.bench_overhead import DOSE, WANTED, interval
from tests.faults.scale import FULL

PAIRS = 120


def made_up(share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Steps of a second, as noisy as they are here, of which telemetry takes a share."""
    doses = np.stack([rng.permutation([0.0, DOSE]) for _ in range(PAIRS)]).ravel()
    return rng.normal(1.0, 0.1, 2 * PAIRS) * (1 + share * doses), doses


def test_26_the_interval_covers_the_true_cost_and_tells_too_much_from_little() -> None:
    rng = np.random.default_rng(0)
    true = 0.002
    found = [interval(*made_up(true, rng), resamples=400) for _ in range(100)]
    assert sum(low <= true <= high for _, low, high in found) >= 88
    assert all(high <= WANTED for _, _, high in found)
    assert all(interval(*made_up(2 * WANTED, rng), resamples=400)[2] > WANTED for _ in range(20))


@pytest.mark.skipif(not FULL, reason="120 pairs of real steps take five minutes; `make faults` runs them")
@pytest.mark.engine
@pytest.mark.alone
@pytest.mark.timeout(1500)
def test_26_telemetry_costs_a_real_step_at_most_half_a_percent() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "bench_overhead"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PAIRS": str(PAIRS)},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
