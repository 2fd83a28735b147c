"""The engines of this folder, the second on another interpreter: each scores what the other has sampled."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from tests.e2e.engine_support import CLOSE, PROMPT, VOCABULARY
from tests.e2e.shadow_rig import GROUPS, Rig
from tests.e2e.two_engines.pair import Pair

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def rig(pair: Pair) -> Iterator[Rig]:
    """Both engines with every fix on, each scoring all that the other has sampled; left as they were."""
    rig = Rig(pair.pool, pair.model, pair.events, pair.version)
    pair.pool.set_fix("prefix-cache-off", "on")
    pair.pool.set_shadow(1.0)
    yield rig
    pair.pool.set_shadow(0.0)
    pair.pool.set_fix("prefix-cache-off", "off")
    pair.model, pair.version = rig.model, rig.version


def test_an_engine_runs_on_the_interpreter_of_its_environment(rig: Rig, pair: Pair) -> None:
    own, other = rig.pool.infos
    assert (own.python, other.python) == (sys.executable, str(pair.python))
    states = {state.engine: state for state in rig.pool.stats().engines}
    assert states["engine-1"].environment == str(pair.python)
    assert states["engine-0"].environment == ""
    assert all(state.vllm for state in states.values())


def test_engines_with_the_fixes_on_agree_token_by_token_also_after_a_sync(rig: Rig) -> None:
    for pair, found in rig.compared().items():
        assert found.mean() < CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"
    reports = rig.sync()
    assert [report.ok for report in reports] == [True, True]
    assert len({report.digest for report in reports}) == 1
    assert {report.verified for report in reports} == {"held"}
    for pair, found in rig.compared().items():
        assert found.mean() < CLOSE, f"{pair} after the sync: {found.mean()} over {len(found)} tokens"


def test_raw_logprobs_of_one_engine_show_in_both_directions(rig: Rig) -> None:
    (report,) = rig.pool.set_fix("processed-logprobs", "off", "engine-1")
    assert (report.effective, report.wanted) == ("off", "off")
    try:
        for pair, found in rig.compared().items():
            assert found.mean() > 100 * CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"
    finally:
        rig.pool.set_fix("processed-logprobs", "on", "engine-1")
    for pair, found in rig.compared().items():
        assert found.mean() < CLOSE, f"{pair}, back on: {found.mean()}"


def test_a_stale_prefix_cache_of_one_engine_shows_in_both_directions(rig: Rig) -> None:
    """The same prompts before and after a sync: engine-1 goes on over blocks of the older weights.

    All begin alike, so that it holds older blocks of each, whichever engine has sampled or scored which.
    """
    drawn = np.random.default_rng(5).integers(2, VOCABULARY, (GROUPS, PROMPT))
    drawn[:, :-8] = drawn[0, :-8]
    prompts = drawn.tolist()
    rig.pool.set_fix("prefix-cache-off", "off", "engine-1")
    try:
        rig.compared(prompts=prompts)
        assert all(report.ok for report in rig.sync())
        for pair, found in rig.compared(prompts=prompts).items():
            assert found.mean() > 100 * CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"
    finally:
        rig.pool.set_fix("prefix-cache-off", "on", "engine-1")
    for pair, found in rig.compared(prompts=prompts).items():
        assert found.mean() < CLOSE, f"{pair}, back on: {found.mean()}"
