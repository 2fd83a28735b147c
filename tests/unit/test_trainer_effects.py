"""The measured effect of a change: whose tokens count, and changes that follow each other.

The intervals are in `test_effect_intervals.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest

from driftline.frames import Effect
from trainer.measure import cells, fix_effects
from trainer.measure.cells import Rows
from trainer.measure.fix_effects import Change, Effects
from trainer.measure.fix_states import States, Vector, vector

OFF, ON, WAIT = ("off",) * 5, ("on",) * 5, ("wait",) * 5
MISMATCH, CLIP, KL = 0, 1, 2


def sequences(
    rng: np.random.Generator, count: int, level: float, *, version: int = 5, whole: bool = True, length: int = 8
) -> Rows:
    """Rows of `count` prompts of one sequence, of ragged length, whose mean |d| scatters around `level`, skewed."""
    tokens = rng.integers(1, 2 * length, count).astype(float)
    numbers = np.zeros((count, cells.COLUMNS))
    numbers[:, cells.TOKENS] = tokens
    numbers[:, cells.ABS_DIFF] = tokens * level * rng.lognormal(-0.125, 0.5, count)
    if whole:
        numbers[:, cells.WHOLE_TOKENS] = tokens
        numbers[:, cells.COUNTED] = 2 * tokens
        numbers[:, cells.CLIPPED] = rng.binomial((2 * tokens).astype(int), 0.3)
        numbers[:, cells.KL] = tokens * level**2
    versions = np.full(count, version)
    return Rows(numbers, versions, versions, np.arange(count))


def change(before: Vector = OFF, after: Vector = ON, *, step: int = 20, version: int = 5, **options: object) -> Change:
    given = {
        "changes": (("processed-logprobs", before[0], after[0]),),
        "before": frozenset({before}),
        "after": frozenset({after}),
        "since": version,
        "until": version,
        "step": step,
        "version": version,
        "time": 100.0 + step,
    }
    return Change(**(given | options))


def feed(measured: Effects, steps: range, rows: Callable[[int], dict[Vector, Rows]]) -> list[Effect]:
    effects = []
    for step in steps:
        effects += measured.add_step(step, rows(step), time=float(step))
    return effects


def test_both_sides_are_token_weighted_means_over_their_own_tokens_and_steps() -> None:
    rng, measured, held = np.random.default_rng(0), Effects(), {}

    def before(step: int) -> dict[Vector, Rows]:
        held[step] = sequences(rng, 16, 0.2, version=step)
        return {OFF: held[step]}

    def after(step: int) -> dict[Vector, Rows]:
        held[step] = sequences(rng, 16, 0.01, version=step)
        return {ON: held[step]}

    assert feed(measured, range(1, 31), before) == [], "nothing has changed: nothing is measured"
    first = measured.add_change(change(step=30, version=30))
    assert [len(first), first[0].steps_before, first[0].steps_after] == [1, 20, 0]
    reported = feed(measured, range(31, 56), after)
    assert [effect.steps_after for effect in reported] == list(range(1, 21)), "20 steps after the change and no more"
    assert [effect.done for effect in reported] == [False] * 19 + [True]
    assert {effect.id for effect in (*first, *reported)} == {first[0].id}
    last = reported[-1]

    def reference(steps: range, over: int, under: int) -> float:
        rows = [row for step in steps for row in held[step].numbers]
        return sum(float(row[over]) for row in rows) / sum(float(row[under]) for row in rows)

    for measure, (over, under) in zip(
        last.measures,
        ((cells.ABS_DIFF, cells.TOKENS), (cells.CLIPPED, cells.COUNTED), (cells.KL, cells.WHOLE_TOKENS)),
        strict=True,
    ):
        assert measure.before == pytest.approx(reference(range(11, 31), over, under)), measure.metric
        assert measure.after == pytest.approx(reference(range(31, 51), over, under)), measure.metric
        assert measure.tokens_after == sum(held[step].numbers[:, cells.TOKENS].sum() for step in range(31, 51))
    assert [measure.metric for measure in last.measures] == [
        "mismatch/abs_diff_mean", "policy/clip_fraction", "policy/kl_new_old",
    ]  # fmt: skip
    assert last.measures[MISMATCH].high < -0.12
    assert last.measures[CLIP].low < 0 < last.measures[CLIP].high, "the clip fraction was the same on both sides"
    assert last.detail == ""


def test_the_same_numbers_give_the_same_interval() -> None:
    def once() -> Effect:
        rng, measured = np.random.default_rng(3), Effects()
        feed(measured, range(1, 6), lambda step: {OFF: sequences(rng, 16, 0.2)})
        measured.add_change(change(step=5))
        return feed(measured, range(6, 9), lambda step: {ON: sequences(rng, 16, 0.1)})[-1]

    assert once() == once()


def test_with_too_few_steps_or_prompts_there_is_no_interval_and_a_sentence_that_says_so() -> None:
    rng, measured = np.random.default_rng(4), Effects()
    feed(measured, range(1, 9), lambda step: {OFF: sequences(rng, 16, 0.2)})
    measured.add_change(change(step=8))
    effect = feed(measured, range(9, 10), lambda step: {ON: sequences(rng, 9, 0.2)})[-1]
    for measure in effect.measures:
        assert all(math.isnan(value) for value in (measure.low, measure.high, measure.ratio, measure.change))
        assert (measure.unit, measure.units_before, measure.units_after) == ("", 0, 0)
        assert measure.note == (
            "too few to say: 128 and 9 prompt groups in 8 and 1 steps; "
            "an interval needs 10 prompt groups and 3 steps a side, 9 steps together"
        )
    assert effect.measures[MISMATCH].after > 0
    effect = feed(measured, range(10, 11), lambda step: {ON: sequences(rng, 16, 0.2)})[-1]
    assert effect.measures[MISMATCH].note.startswith("too few to say: 128 and 25 prompt groups in 8 and 2 steps")
    effect = feed(measured, range(11, 12), lambda step: {ON: sequences(rng, 1, 0.2)})[-1]
    for measure in effect.measures:
        assert measure.low < measure.high
        assert (measure.unit, measure.units_before, measure.units_after) == ("prompt group", 128, 26)
        assert measure.note == ""
    effect = feed(measured, range(12, 20), lambda step: {ON: sequences(rng, 16, 0.2)})[-1]
    assert effect.measures[MISMATCH].unit == "prompt group", "8 steps before"


def test_with_ten_steps_a_side_the_step_is_the_unit() -> None:
    rng, measured = np.random.default_rng(14), Effects()
    feed(measured, range(1, 31), lambda step: {OFF: sequences(rng, 4, 0.2)})
    measured.add_change(change(step=30))
    *_, ninth, tenth = feed(measured, range(31, 41), lambda step: {ON: sequences(rng, 4, 0.2)})
    # 12 of the 20 steps before count beside fewer than ten after: one trend over both sides has to be straight.
    assert [(m.unit, m.units_before, m.units_after) for m in ninth.measures] == [("prompt group", 48, 36)] * 3
    assert [(m.unit, m.units_before, m.units_after) for m in tenth.measures] == [("step", 20, 10)] * 3


def test_tokens_that_arrive_late_count_for_the_state_that_sampled_them() -> None:
    rng, measured = np.random.default_rng(5), Effects()
    feed(measured, range(1, 3), lambda step: {OFF: sequences(rng, 16, 0.2)})
    (first,) = measured.add_change(change(step=2))
    late = sequences(rng, 16, 0.2)
    (effect,) = measured.add_step(3, {OFF: late, ON: sequences(rng, 16, 0.01)}, time=3.0)
    assert effect.steps_before == first.steps_before + 1
    assert effect.measures[MISMATCH].before > 0.15
    assert effect.measures[MISMATCH].after < 0.02


def test_tokens_of_another_stretch_of_the_same_state_are_distinguished_by_their_version() -> None:
    rng, measured = np.random.default_rng(6), Effects()
    feed(measured, range(1, 4), lambda step: {OFF: sequences(rng, 16, 9.0, version=step)})
    measured.add_change(change(step=3, version=3))
    feed(measured, range(4, 7), lambda step: {ON: sequences(rng, 16, 0.01, version=step)})
    closed, opened = measured.add_change(change(ON, OFF, step=6, version=6))
    assert closed.done
    assert not opened.done
    assert opened.measures[MISMATCH].tokens_after == 0, "the first stretch of 'off' is not after the second change"
    (effect,) = measured.add_step(7, {OFF: sequences(rng, 16, 0.2, version=7)}, time=7.0)
    assert effect.measures[MISMATCH].before < 0.02
    assert effect.measures[MISMATCH].after < 1.0


def test_a_rolling_restart_is_measured_from_the_first_engine_that_changed() -> None:
    rng, measured = np.random.default_rng(7), Effects()
    feed(measured, range(1, 4), lambda step: {OFF: sequences(rng, 16, 0.2, version=step)})
    both = {OFF: sequences(rng, 16, 0.2, version=4), ON: sequences(rng, 16, 0.01, version=4)}
    measured.add_step(4, both, time=4.0)
    (effect,) = measured.add_change(change(step=5, since=4, until=5))
    assert effect.measures[MISMATCH].before > 0.15
    assert 0 < effect.measures[MISMATCH].after < 0.02


def test_changes_without_enough_tokens_in_between_are_one_effect() -> None:
    rng, measured = np.random.default_rng(8), Effects()
    feed(measured, range(1, 4), lambda step: {OFF: sequences(rng, 16, 0.2)})
    halfway = vector({"processed-logprobs": "on"})
    (first,) = measured.add_change(change(OFF, halfway, step=3))
    measured.add_step(4, {halfway: sequences(rng, 7, 0.1)}, time=4.0)
    second = change(halfway, ON, step=4, changes=(("prefix-cache-off", "off", "on"),), by="op:bo")
    (merged,) = measured.add_change(second)
    assert merged.id == first.id
    assert merged.changes == (("processed-logprobs", "off", "on"), ("prefix-cache-off", "off", "on"))
    (effect,) = measured.add_step(5, {halfway: sequences(rng, 16, 5.0), ON: sequences(rng, 16, 0.01)}, time=5.0)
    assert effect.measures[MISMATCH].before > 0.15
    assert effect.measures[MISMATCH].after < 0.02, "what was sampled in between belongs to neither side"
    assert "2 changes" in effect.detail


def test_a_change_after_enough_tokens_closes_the_one_before_it() -> None:
    rng, measured = np.random.default_rng(9), Effects()
    feed(measured, range(1, 4), lambda step: {OFF: sequences(rng, 16, 0.2)})
    (first,) = measured.add_change(change(step=3))
    measured.add_step(4, {ON: sequences(rng, 16, 0.01)}, time=4.0)
    closed, second = measured.add_change(change(ON, WAIT, step=4))
    assert (closed.id, closed.done, closed.steps_after) == (first.id, True, 1)
    assert second.id != first.id
    assert second.measures[MISMATCH].before < 0.02


def test_switching_there_and_back_at_once_compares_nothing_and_says_so() -> None:
    rng, measured = np.random.default_rng(10), Effects()
    feed(measured, range(1, 4), lambda step: {OFF: sequences(rng, 16, 0.2)})
    (first,) = measured.add_change(change(step=3))
    (undone,) = measured.add_change(change(ON, OFF, step=3))
    assert (undone.id, undone.done, undone.measures) == (first.id, True, ())
    assert "switched back before enough tokens" in undone.detail
    assert feed(measured, range(4, 6), lambda step: {OFF: sequences(rng, 16, 0.2)}) == []


def test_what_is_missing_is_said_in_a_sentence() -> None:
    rng, measured = np.random.default_rng(11), Effects()
    (nothing,) = measured.add_change(change(step=0, note="the trainer's head stays in float32"))
    assert (
        nothing.detail == "the trainer's head stays in float32; no token was sampled under the state before the change"
    )
    measured = Effects()
    feed(measured, range(1, 4), lambda step: {OFF: sequences(rng, 16, 0.2)})
    (begun,) = measured.add_change(change(step=3))
    assert begun.detail == "no token of the state after it yet"
    (ended,) = measured.finish(time=9.0)
    assert (ended.done, ended.detail) == (True, "no token was sampled under the state after it")
    assert measured.finish(time=9.0) == []


def test_rows_belong_to_one_state_and_clip_and_kl_only_to_whole_sequences() -> None:
    states = States()
    a, b = states.number(dict.fromkeys(("processed-logprobs",), "off")), states.number({"processed-logprobs": "on"})
    numbers = np.array([[a, a, a], [a, b, b], [b, b, -1], [b, b, 0], [-1, -1, -1]])
    mask = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]], dtype=bool)
    scored = mask.copy()
    scored[0, 2] = False
    d = np.array([[0.1, -0.2, 9.0], [0.3, 0.4, -0.5], [1.0, 2.0, 4.0], [-0.6, 0.7, 9.0], [8.0, 8.0, 8.0]])
    versions = np.array([[3, 4, 4], [3, 4, 5], [5, 5, 5], [6, 7, 0], [1, 1, 1]])
    policy = np.array([[6, 2, 0.5], [6, 3, 0.6], [6, 4, 0.7], [4, 1, 0.8], [6, 0, 0.9]])
    found = fix_effects.rows(
        d, scored, mask, numbers, versions, policy,
        comparable=np.array([True] * 3 + [False, True]), groups=np.array([0, 0, 1, 1, 2]),
    )  # fmt: skip
    assert set(found) == {a, b}
    assert found[a].numbers.tolist() == [
        pytest.approx([2, 0.3, 3, 6, 2, 0.5]),
        pytest.approx([1, 0.3, 0, 0, 0, 0]),
    ]
    assert found[b].numbers.tolist() == [
        pytest.approx([2, 0.9, 0, 0, 0, 0]),
        pytest.approx([2, 3.0, 0, 0, 0, 0]),
        pytest.approx([2, 1.3, 0, 0, 0, 0]),
    ], "a token of no state keeps its sequence from being whole, and so does a head that has changed since"
    assert (found[a].first.tolist(), found[a].last.tolist()) == ([3, 3], [4, 3])
    assert (found[b].first.tolist(), found[b].last.tolist()) == ([4, 5, 6], [5, 5, 7])
    assert (found[a].group.tolist(), found[b].group.tolist()) == ([0, 0], [0, 1, 1])


def test_a_step_costs_next_to_nothing_beside_a_bootstrap_of_its_window() -> None:
    rng, measured = np.random.default_rng(12), Effects()
    feed(measured, range(1, 21), lambda step: {OFF: sequences(rng, 128, 0.2)})
    measured.add_change(change(step=20))
    ours, theirs = [], []
    for step in range(21, 31):
        rows = sequences(rng, 128, 0.01)
        began = time.perf_counter()
        measured.add_step(step, {ON: rows}, time=0.0)
        ours.append(time.perf_counter() - began)
    window = fix_effects.N_BEFORE * 128
    for _ in range(2):
        began = time.perf_counter()
        rng.multinomial(window, np.full(window, 1 / window), 1000)
        theirs.append(time.perf_counter() - began)
    # The quickest of each: what else runs on the machine is in all the others.
    assert min(ours) < min(theirs) / 5
