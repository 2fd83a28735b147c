"""Series that share their steps, the average that is taken up where it stopped, and the clock of the x axes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.store.series.clock import Clock
from console.store.series.series import Series, SeriesStore
from console.store.series.smooth import SEGMENT, Average, ema
from console.store.series.steps import StepPool

NAN = math.nan


def test_metrics_of_the_same_steps_hold_them_once():
    store = SeriesStore()
    for step in range(1000):
        store.record(step, float(step), {f"m{i}": float(i) for i in range(30)})
    assert len(store._pool) == 1
    assert np.array_equal(store.steps("m7"), np.arange(1000))
    assert store.values("m7").tolist() == [7.0] * 1000


def test_metrics_that_come_less_often_share_among_themselves():
    store = SeriesStore()
    for step in range(1, 100):
        values = {"often": 1.0, "also": 2.0}
        if step % 10 == 0:
            values |= {"eval/a": 3.0, "eval/b": 4.0}
        store.record(step, float(step), values)
    assert len(store._pool) == 2
    assert store.steps("eval/b").tolist() == list(range(10, 100, 10))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=200))
def test_whatever_order_steps_come_in_each_series_has_its_own(puts: list[tuple[int, int]]):
    store, want = SeriesStore(), {name: {} for name in "abcdef"}
    for i, (which, step) in enumerate(puts):
        name = "abcdef"[which]
        store.put(name, step, float(i))
        want[name][step] = float(i)
    for name, held in want.items():
        assert store.steps(name).tolist() == sorted(held)
        assert store.values(name).tolist() == [held[step] for step in sorted(held)]
    distinct = {tuple(held) for held in want.values() if held}
    assert len(store._pool) <= max(len([held for held in want.values() if held]), len(distinct))


def test_buffers_that_no_series_uses_are_dropped():
    pool = StepPool()
    one, other = Series(pool), Series(pool)
    for step in range(10):
        one.put(step, 1.0)
        other.put(step, 1.0)
    assert len(pool) == 1
    one.put(20, 1.0)
    other.put(21, 1.0)
    assert len(pool) == 2
    other.put(20, 1.0)  # late: now the other has 20 and 21
    assert other.steps[-2:].tolist() == [20, 21]
    one.put(21, 1.0)
    assert one.steps.tolist() == other.steps.tolist()
    assert len(pool) <= 2


@pytest.mark.parametrize(
    ("steps", "values"), [([1, 1], [0.0, 0.0]), ([2, 1], [0.0, 0.0]), ([1, 2], [0.0]), ([[1, 2]], [[0.0, 0.0]])]
)
def test_what_is_no_series_is_refused(steps: list[int], values: list[float]):
    with pytest.raises(ValueError, match="steps must ascend"):
        Series.from_arrays(np.array(steps), np.array(values))


# -- smoothing


def slow(values: list[float], weight: float) -> list[float]:
    """The definition, one value after the other."""
    top = below = 0.0
    result = []
    for value in values:
        good = math.isfinite(value)
        top = weight * top + (1 - weight) * (value if good else 0.0)
        below = weight * below + (1 - weight) * good
        result.append(top / below if good else NAN)
    return result


@given(
    st.lists(st.floats(-1e3, 1e3) | st.sampled_from([NAN, math.inf]), max_size=200),
    st.sampled_from([0.0, 0.6, 0.9, 0.99]),
)
def test_the_average_is_what_its_definition_says(values: list[float], weight: float):
    assert ema(np.array(values, float), weight) == pytest.approx(slow(values, weight), abs=1e-9, nan_ok=True)


def test_a_flat_line_stays_where_it_is_from_its_first_point_on():
    assert ema(np.full(10_000, 3.0), 0.99) == pytest.approx(np.full(10_000, 3.0))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.data())
def test_an_average_in_pieces_is_that_of_the_whole(pieces: list[int], data: st.DataObject):
    values = np.random.default_rng(1).normal(size=sum(pieces))
    average, n = Average(0.97), 0
    for piece in pieces:
        n += piece
        changed = data.draw(st.none() | st.integers(0, n - 1))
        if changed is not None:
            values[changed] += 5.0
        got = average.update(values[:n], changed)
        assert got == pytest.approx(ema(values[:n], 0.97))


def test_an_average_over_segments_is_one_average():
    values = np.random.default_rng(2).normal(size=2 * SEGMENT + 100)
    assert ema(values, 0.9)[-200:] == pytest.approx(slow(values.tolist(), 0.9)[-200:])


@pytest.mark.parametrize("weight", [-0.1, 1.0, 2.0, NAN])
def test_a_weight_that_never_forgets_is_refused(weight: float):
    with pytest.raises(ValueError, match="in \\[0, 1\\)"):
        Average(weight)


# -- clock


def test_time_counts_from_the_first_step_and_tokens_add_up():
    clock = Clock()
    for step, at, rate in [(5, 100.0, 50.0), (6, 102.0, 10.0), (8, 106.0, 5.0)]:
        clock.put(step, at, rate)
    assert clock.ruler("time").places.tolist() == [0.0, 2.0, 6.0]
    assert clock.ruler("tokens").places.tolist() == [0.0, 20.0, 40.0]
    ruler = clock.ruler("time")
    assert [ruler.place(step) for step in (4, 5, 6, 7, 8, 9)] == [0.0, 0.0, 2.0, 4.0, 6.0, 6.0]
    assert ruler.steps_at(np.array([-1.0, 0.0, 0.1, 2.0, 6.0, 6.1])).tolist() == [5, 5, 6, 6, 8, 9]


def test_a_clock_that_is_set_back_stands_still_and_steps_reported_again_replace_the_old():
    clock = Clock()
    for step, at in [(1, 10.0), (2, 20.0), (3, 15.0), (4, 30.0)]:
        clock.put(step, at)
    assert clock.ruler("time").places.tolist() == [0.0, 10.0, 10.0, 20.0]
    clock.put(3, 50.0)
    assert clock.ruler("time").steps.tolist() == [1, 2, 3]
    assert clock.ruler("time").places.tolist() == [0.0, 10.0, 40.0]
    clock.put(1, 70.0)
    assert clock.ruler("time").places.tolist() == [0.0]


def test_what_cannot_place_a_step_is_no_axis():
    clock = Clock()
    assert clock.ruler("step").place(7) == 7
    assert clock.ruler("time") is None
    clock.put(1, NAN)
    assert clock.ruler("time") is None
    for step in range(1, 1000):
        clock.put(step, float(step))
    assert clock.ruler("tokens") is None
    assert clock.ruler("time").places[-1] == 998.0


def test_rulers_are_equal_where_they_place_alike():
    clock = Clock()
    clock.put(1, 1.0)
    before = clock.ruler("time")
    assert before == clock.ruler("time")
    clock.put(2, 2.0)
    assert before != clock.ruler("time")
    assert clock.ruler("step") == clock.ruler("step")
