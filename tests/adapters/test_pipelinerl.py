"""PipelineRL's own `rl_step` and `log_metrics` on a tiny model, from a checkout: make adapters PIPELINERL=CHECKOUT."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from driftline.frames import Metrics, Tokens
from tests.adapters.environments import PIPELINERL
from tests.adapters.test_releases import Joined
from tests.unit.hubs import Hub

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_pairs_agree_with_its_own_mean(layout: str, tmp_path: Path) -> None:
    if PIPELINERL.missing:
        pytest.skip(PIPELINERL.missing)
    with ExitStack() as stack:
        hub = Hub(tmp_path)
        hub.start()
        stack.callback(hub.end)
        run = Joined(hub, PIPELINERL, stack, tmp_path, layout)
        run.steps_until(run.mismatch, "pairs")
        own = "rl/mean_abs_log_ratio_new_old"
        (logged,) = [one for one in run.frames(Metrics) if own in one.values and one.step == 1]
        (pairs,) = [one for one in run.mismatch() if one.step == 1]
        # Its own divides each sequence's sum by num_labels (3); ours is the mean over the 5 tokens.
        assert pairs.values["mismatch/abs_diff_mean"] == pytest.approx(logged.values[own] * 3 / 5, rel=1e-5)
        assert set(pairs.labels.values()) == {"with staleness if async"}
        tokens = run.frames(Tokens)[0]
        assert sorted(np.frombuffer(tokens.ids, "<i4").tolist()) == [4, 5, 7, 8, 9]
        assert run.events("adapter.failed") == run.events("adapter.hook-missing") == []
        assert run.training.end() == 0
