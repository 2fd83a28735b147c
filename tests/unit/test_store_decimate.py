"""Envelopes: no spike is lost, gaps stay gaps, few points become a line, and the cost is one pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.store.series.decimate import Envelope, columns, joined
from console.store.series.decimate import envelope as between

NAN = float("nan")


def envelope(steps: np.ndarray, values: np.ndarray, start: float, stop: float, count: int) -> Envelope:
    return between(steps, values, columns(start, stop, count))


def whole(values: list[float], columns: int) -> Envelope:
    steps = np.arange(len(values), dtype=np.int64)
    return envelope(steps, np.array(values, float), 0, max(len(values) - 1, 1), columns)


@given(
    st.lists(st.floats(-1e6, 1e6) | st.sampled_from([NAN, float("inf"), -float("inf")]), min_size=1, max_size=300),
    st.integers(1, 40),
)
def test_every_column_has_the_bounds_of_its_points(values: list[float], count: int):
    steps = np.arange(len(values), dtype=np.int64)
    stop = max(len(values) - 1, 1)
    env = envelope(steps, np.array(values), 0, stop, count)
    edges = [0 + i * (stop / count) for i in range(count)] + [np.inf]
    for column in range(count):
        part = [v for s, v in zip(steps, values, strict=True) if edges[column] <= s < edges[column + 1]]
        finite = [v for v in part if np.isfinite(v)]
        assert env.broken[column] == (len(finite) < len(part))
        if finite:
            assert (env.low[column], env.high[column]) == (min(finite), max(finite))
            assert (env.first[column], env.last[column]) == (finite[0], finite[-1])
        else:
            assert np.isnan([env.low[column], env.high[column], env.first[column], env.last[column]]).all()


def test_a_single_spike_among_many_points_survives():
    values = np.zeros(100_000)
    values[54_321] = 7.0
    env = envelope(np.arange(100_000, dtype=np.int64), values, 0, 99_999, 200)
    assert np.nanmax(env.high) == 7.0
    assert np.count_nonzero(env.high == 7.0) == 1


def test_few_points_become_a_straight_line_without_a_gap():
    env = joined(whole([0.0, 10.0], 11))
    assert not np.isnan(env.low).any()
    # Column i of 11 lies at i: the line passes its value, and neighbours touch.
    assert ((env.low <= np.arange(11) + 1e-9) & (np.arange(11) <= env.high + 1e-9)).all()
    assert (env.low[1:] <= env.high[:-1] + 1e-9).all()


def test_nothing_is_drawn_before_the_first_and_after_the_last_point():
    env = joined(envelope(np.array([5, 6], np.int64), np.array([1.0, 2.0]), 0, 10, 20))
    drawn = np.flatnonzero(~np.isnan(env.low))
    assert (drawn[0], drawn[-1]) == (10, 12)


@pytest.mark.parametrize("hole", [NAN, float("inf"), -float("inf")])
def test_a_hole_is_a_gap_and_not_a_bridge(hole: float):
    env = joined(whole([1.0, 1.0, hole, 1.0, 1.0], 40))
    column = int(np.flatnonzero(env.broken)[0])
    assert np.isnan(env.low[column])
    gap = np.flatnonzero(np.isnan(env.low))
    assert len(gap) > 5
    assert not np.isnan(env.low[0])
    assert not np.isnan(env.low[-1])


def test_nothing_finite_draws_nothing():
    env = joined(whole([NAN, NAN], 8))
    assert np.isnan(env.low).all()
    assert np.isnan(joined(envelope(np.empty(0, np.int64), np.empty(0), 0, 1, 8)).low).all()


@pytest.mark.parametrize(("start", "stop", "columns"), [(0, 0, 5), (1, 0, 5), (0, 1, 0), (0, NAN, 3)])
def test_what_cannot_be_decimated_is_refused(start: float, stop: float, columns: int):
    with pytest.raises(ValueError, match="cannot decimate"):
        envelope(np.arange(3, dtype=np.int64), np.zeros(3), start, stop, columns)
