"""Shadow scoring without engines: the share, which tokens, the numbers, and the pool's part over scripted handles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftline.catalog import shadow as catalogue
from driftline.config import ShadowConfig
from engine.pool import shadow_tokens
from engine.pool.shadow_share import IN_TIME, LATE, LEAST, Share
from engine.types import (
    IN_BETWEEN,
    EngineError,
    Group,
    RolloutRequest,
    Scores,
    Sequence,
    ShadowPair,
    ShadowStep,
)
from tests.unit.pool_fakes import Scripted, ScriptedPool
from trainer.measure.shadow import values

RNG = np.random.default_rng(0)


def sequence(versions: list[int], epochs: int = 0) -> Sequence:
    count = len(versions)
    return Sequence(
        np.arange(count, dtype=np.int32), -np.arange(count, dtype=np.float32), np.array(versions, np.int32),
        np.full(count, epochs, np.int32), "length",
    )  # fmt: skip


def group(*sequences: Sequence) -> Group:
    return Group(7, "engine-0", [5, 6], list(sequences), 0.0, 0.0)


# -- the share -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "taken"), [(0.0, 0), (0.25, 25), (0.1, 10), (1.0, 100)])
def test_the_share_is_taken_evenly(share: float, taken: int) -> None:
    one = Share(share)
    assert sum(one.take() for _ in range(100)) == taken


def test_the_share_shrinks_where_groups_are_late_and_not_without_end() -> None:
    one = Share(0.5)
    changes = [one.late() for _ in range(LATE)]
    assert changes == [False] * (LATE - 1) + [True]
    assert one.effective == 0.25
    for _ in range(40 * LATE):
        one.late()
    assert one.effective == 0.5 * LEAST
    assert not any(one.late() for _ in range(LATE))


def test_the_share_comes_back_and_says_so_once() -> None:
    one = Share(0.5)
    for _ in range(2 * LATE):
        one.late()
    assert one.effective == 0.125
    back = [one.in_time() for _ in range(3 * IN_TIME)]
    assert one.effective == 0.5
    assert back.index(True) == 2 * IN_TIME - 1
    assert sum(back) == 1


def test_a_late_group_now_and_then_changes_nothing() -> None:
    one = Share(1.0)
    for _ in range(50):
        assert not one.late()
        for _ in range(3):
            one.in_time()
    assert one.effective == 1.0


@pytest.mark.parametrize(("text", "value"), [(".25", 0.25), ("1", 1.0), ("0", 0.0), ("off", 0.0)])
def test_a_share_is_a_fraction(text: str, value: float) -> None:
    assert catalogue.share(text) == value


@pytest.mark.parametrize("text", ["1.1", "-.1", "nan", "all", "", "25%"])
def test_what_is_no_share_gets_a_sentence(text: str) -> None:
    with pytest.raises(catalogue.BadShareError, match="allowed: 0 to 1"):
        catalogue.share(text)


# -- which tokens --------------------------------------------------------------------------------------------------


def test_only_sequences_of_the_scorers_weights_from_end_to_end_are_asked_for() -> None:
    found = group(
        sequence([3, 3, 3]), sequence([2, 2]), sequence([2, 3, 3]), sequence([]), sequence([3, 3], IN_BETWEEN)
    )
    asked = shadow_tokens.request(found, 3, 16, RNG)
    assert asked is not None
    assert [list(one) for one in asked.sequences] == [[0, 1, 2]]
    assert [list(one) for one in asked.positions] == [[0, 1, 2]]
    assert (asked.tokens, asked.prompt_ids) == (3, [5, 6])
    assert shadow_tokens.tokens(found, 16) == 10
    assert shadow_tokens.request(found, 4, 16, RNG) is None


def test_of_a_long_sequence_some_tokens_are_drawn_from_all_of_it() -> None:
    found = group(sequence([1] * 100))
    assert shadow_tokens.tokens(found, 8) == 8
    drawn = set()
    for _ in range(60):
        asked = shadow_tokens.request(found, 1, 8, RNG)
        assert asked is not None
        (places,) = asked.positions
        assert len(set(places.tolist())) == 8
        assert (np.diff(places) > 0).all()
        drawn |= set(places.tolist())
    assert len(drawn) > 90


def test_differences_are_those_of_the_tokens_that_were_scored() -> None:
    found = group(sequence([3, 3, 3]), sequence([2]), sequence([3]))
    asked = shadow_tokens.request(found, 3, 16, RNG)
    assert asked is not None
    scores = Scores("engine-1", [np.array([0.5, -1.0, np.nan], np.float32), np.array([0.25], np.float32)], 0.1)
    np.testing.assert_allclose(shadow_tokens.differences(found, asked, scores), [0.5, 0.0, 0.25])


# -- the numbers of a step -----------------------------------------------------------------------------------------


def test_the_numbers_of_one_pair() -> None:
    size = np.linspace(0, 1, 101)
    found, labels = values(ShadowStep((ShadowPair("engine-0", "engine-1", size),), 9, 0.25, 0.5))
    assert found == pytest.approx({
        "shadow/abs_diff_mean": 0.5, "shadow/abs_diff_p99": 0.99, "shadow/tokens": 101.0, "shadow/skipped": 9.0,
        "shadow/share": 0.25,
    })  # fmt: skip
    assert labels["shadow/abs_diff_mean"] == "engine-0 by engine-1"


def test_each_of_several_pairs_has_its_own_numbers() -> None:
    pairs = ShadowPair("a", "b", np.array([1.0, 3.0])), ShadowPair("b", "a", np.array([5.0]))
    found, labels = values(ShadowStep(pairs, 0, 1.0, 1.0))
    assert (found["shadow/abs_diff_mean"], found["shadow/a-b/abs_diff_mean"], found["shadow/b-a/tokens"]) == (3, 2, 1)
    assert labels["shadow/abs_diff_p99"] == "a by b, b by a"


def test_nothing_is_reported_while_nothing_is_wanted_and_no_mean_of_nothing() -> None:
    assert values(ShadowStep((), 0, 0.0, 0.0)) == ({}, {})
    found, labels = values(ShadowStep((), 5, 0.5, 0.5))
    assert found == {"shadow/tokens": 0.0, "shadow/skipped": 5.0, "shadow/share": 0.5}
    assert labels == {}


# -- the pool over scripted handles --------------------------------------------------------------------------------


def submit(rig: ScriptedPool, count: int, start: int = 0, n: int = 2) -> None:
    for number in range(start, start + count):
        rig.pool.submit(RolloutRequest(number, [2, 3], n))
    rig.groups(count)


def scored(rig: ScriptedPool, tokens: int) -> dict[tuple[str, str], list[float]]:
    """Differences by pair, once there are so many or they are skipped."""
    found: dict[tuple[str, str], list[float]] = {}
    skipped = 0

    def enough() -> bool:
        nonlocal skipped
        step = rig.pool.take_shadow()
        skipped += step.skipped
        for pair in step.pairs:
            found.setdefault((pair.sampled, pair.scored), []).extend(pair.differences.tolist())
        return sum(map(len, found.values())) + skipped >= tokens

    rig.until(enough)
    return found


def test_each_engine_scores_what_the_other_has_sampled(tmp_path: Path) -> None:
    def script(actor: Scripted) -> None:
        actor.scores = -0.5 if actor.name == "engine-1" else -0.25

    rig = ScriptedPool(tmp_path, 2, script, ShadowConfig(share=1.0, queue=64))
    try:
        submit(rig, 8)
        found = scored(rig, 16)
        assert set(found) == {("engine-0", "engine-1"), ("engine-1", "engine-0")}
        assert set(found["engine-0", "engine-1"]) == {0.5}
        assert set(found["engine-1", "engine-0"]) == {0.25}
        assert sum(map(len, found.values())) == 16
        assert rig.pool.take_shadow().skipped == 0
    finally:
        rig.pool.close()


def test_only_the_configured_engines_sample_and_score(tmp_path: Path) -> None:
    rig = ScriptedPool(tmp_path, 3, shadow=ShadowConfig(share=1.0, sampled=("engine-0",), scored=("engine-2",)))
    try:
        submit(rig, 9)
        rig.until(lambda: rig.actor("engine-2").scored)
        rig.run(lambda: None)
        assert not rig.actor("engine-0").scored
        assert not rig.actor("engine-1").scored
    finally:
        rig.pool.close()


def test_a_run_does_not_wait_for_a_scorer_and_its_share_shrinks(tmp_path: Path) -> None:
    def script(actor: Scripted) -> None:
        if actor.name == "engine-1":
            actor.scoring.clear()

    rig = ScriptedPool(tmp_path, 2, script, ShadowConfig(share=1.0, sampled=("engine-0",), queue=2))
    try:
        submit(rig, 40)  # every group comes, though the first is still being scored
        assert rig.pool.take_shadow().skipped > 0
        rig.until(lambda: rig.of("shadow.behind"))
        assert rig.pool.take_shadow().share < 1.0
        rig.run(rig.actor("engine-1").scoring.set)
        rig.until(lambda: rig.actor("engine-1").scored)
    finally:
        rig.pool.close()


def test_groups_whose_weights_have_gone_are_left_out_and_counted(tmp_path: Path) -> None:
    def script(actor: Scripted) -> None:
        if actor.name == "engine-1":
            actor.version = 5  # it does not hold what engine-0 has sampled with

    rig = ScriptedPool(tmp_path, 2, script, ShadowConfig(share=1.0, sampled=("engine-0",), queue=64))
    try:
        for number in range(8):
            rig.pool.submit(RolloutRequest(number, [2, 3], 3))
        own = list(rig.groups(8).values()).count("engine-0")
        assert own
        step_skipped = 0

        def counted() -> bool:
            nonlocal step_skipped
            step = rig.pool.take_shadow()
            assert not step.pairs
            step_skipped += step.skipped
            # From LATE of them on a smaller share is taken at all.
            return step_skipped >= 3 * min(own, LATE)

        rig.until(counted)
        assert step_skipped <= 3 * own
        assert step_skipped % 3 == 0
    finally:
        rig.pool.close()


def test_the_share_is_switched_live_and_needs_two_engines(tmp_path: Path) -> None:
    rig = ScriptedPool(tmp_path, 2, shadow=ShadowConfig())
    try:
        submit(rig, 6)
        assert rig.pool.take_shadow() == ShadowStep((), 0, 0.0, 0.0)
        rig.pool.set_shadow(1.0)
        submit(rig, 6, start=6)
        assert scored(rig, 12)
    finally:
        rig.pool.close()
    alone = ScriptedPool(tmp_path, 1)
    try:
        with pytest.raises(EngineError, match="two engines"):
            alone.pool.set_shadow(0.5)
        alone.pool.set_shadow(0.0)
    finally:
        alone.pool.close()


def test_a_scorer_that_fails_is_reported_once_and_fails_nothing(tmp_path: Path) -> None:
    def script(actor: Scripted) -> None:
        async def broken(_request: object) -> EngineError:
            return EngineError(f"{actor.name}: cannot score")

        actor.do_score = broken  # type: ignore[method-assign,assignment]

    rig = ScriptedPool(tmp_path, 2, script, ShadowConfig(share=1.0, sampled=("engine-0",), queue=64))
    try:
        submit(rig, 10)
        rig.until(lambda: rig.of("shadow.failed"))
        submit(rig, 10, start=10)
        assert len(rig.of("shadow.failed")) == 1
        assert rig.pool.take(0.0) == []
    finally:
        rig.pool.close()
