"""Made-up numbers in the shape of the demonstration's run: SYNTHETIC, nothing here was measured.

On an engine's defaults the mismatch is large, learning goes the wrong way and entropy runs off; each fix that is on
takes its part of the mismatch away, and with it gone the reward climbs. Sizes follow the real demonstration, so that
charts and alarms of the console look as they would on a real run. Pure: the same seed gives the same curves.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

import numpy as np

OFFSET: Final = {"processed-logprobs": 0.11, "prefix-cache-off": 0.012, "fp32-lm-head": 0.006}
"""Mean |difference of logprobs| in nats that each fix takes away."""
FLOOR: Final = 0.0006
TOLERANCE: Final = 0.03
"""Mismatch in nats at which learning has lost about two thirds of its way."""
STEPS_OF_MEMORY: Final = 14.0


class Curves:
    """One run's latent state; `step` moves it on by a trainer step and returns every metric of the catalogue."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._reward = 0.36
        self._entropy = 0.9
        self._drift = 0.0

    def step(
        self, on: Collection[str], *, lag: float, engines: int, sync_s: tuple[float, float, float]
    ) -> dict[str, float]:
        """Numbers of one step with the fixes `on`; `lag` in versions, `sync_s` seconds of pause, load and resume."""
        mismatch = (FLOOR + sum(size for fix, size in OFFSET.items() if fix not in on)) * self._around(0.12)
        health = math.exp(-mismatch / TOLERANCE)
        self._reward += (0.2 + 0.38 * health - self._reward) / STEPS_OF_MEMORY + self._random.normal(0.0, 0.008)
        self._entropy += (2.5 - 2.38 * health - self._entropy) / (1.6 * STEPS_OF_MEMORY)
        self._entropy *= self._around(0.02)
        self._drift += (0.02 + 0.25 * (1 - health) - self._drift) / STEPS_OF_MEMORY
        clip = (0.03 + 0.32 * (1 - health)) * self._around(0.15)
        low = clip * float(self._random.uniform(0.3, 0.5))
        pause, load, resume = sync_s
        return {
            "reward/mean": _share(self._reward),
            "reward/std": 0.3 * self._around(0.05),
            "reward/zero_std_fraction": _share(0.1 + 0.4 * health * self._reward),
            "policy/clip_fraction": clip,
            "policy/clip_fraction_low": low,
            "policy/clip_fraction_high": 0.8 * (clip - low),
            "policy/kl_new_old": (0.002 + 0.9 * mismatch**1.2) * self._around(0.1),
            "policy/kl_ref": self._drift,
            "policy/entropy": self._entropy,
            "policy/grad_norm": (0.6 + 2.0 * (1 - health)) * self._around(0.2),
            "policy/lr": 1e-3,
            "mismatch/abs_diff_mean": mismatch,
            "mismatch/abs_diff_p99": 6.0 * mismatch * self._around(0.1),
            "mismatch/abs_diff_max": 14.0 * mismatch * self._around(0.2),
            "mismatch/kl_k3": 0.9 * mismatch**2,
            "mismatch/kl_k1": 0.4 * mismatch * float(self._random.normal(0.0, 1.0)),
            "mismatch/mult_prob_error": math.exp(mismatch),
            "mismatch/ratio_mean": 1.0 + mismatch**2,
            "mismatch/ess": 1.0 / (1.0 + 3.0 * mismatch),
            "staleness/abs_diff_mean": (0.004 + 0.01 * lag) * self._around(0.1),
            "async/version_lag_mean": lag,
            "async/version_lag_max": math.ceil(lag) + 1.0,
            "async/stale_groups": 0.0,
            "async/stale_dropped": 0.0,
            "sync/pause_s": pause,
            "sync/load_s": load,
            "sync/verify_s": 0.0,
            "sync/reset_s": 0.0,
            "sync/resume_s": resume,
            "sync/total_s": pause + load + resume,
            "engine/tokens_per_s": 950.0 * engines * self._around(0.05),
            "engine/running": 16.0 * engines,
            "engine/waiting": float(self._random.integers(0, 3)),
            "engine/kv_use": _share(0.12 * self._around(0.2)),
            "engine/prefix_hit_rate": 0.0 if "prefix-cache-off" in on else 0.62 * self._around(0.03),
            "correction/weight_mean": 1.0,
            "correction/truncated_fraction": 0.0,
            "correction/masked_fraction": 0.0,
            "correction/masked_sequences": 0.0,
        }

    def phases(self) -> tuple[float, float, float]:
        """Seconds of pause, load and resume of one sync of one engine."""
        return 0.03 * self._around(0.2), 0.04 * self._around(0.2), 0.005 * self._around(0.2)

    def _around(self, spread: float) -> float:
        return float(self._random.lognormal(0.0, spread))


def _share(value: float) -> float:
    return min(max(float(value), 0.0), 1.0)
