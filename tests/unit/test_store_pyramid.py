"""The pyramid against brute force, however its values were appended, rewritten and inserted; and what it costs."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from console.store.series.decimate import Envelope, _direct, columns, envelope, spans
from console.store.series.pyramid import FANOUT, Pyramid
from console.store.series.series import Series

NAN, INF = math.nan, math.inf

VALUES = st.floats(-1e6, 1e6) | st.sampled_from([NAN, INF, -INF, 0.0])


def brute(values: np.ndarray, left: int, right: int, *, positive: bool) -> tuple[float, float, bool, float, float]:
    part = [float(value) for value in values[left:right]]
    good = [value for value in part if math.isfinite(value) and (value > 0 or not positive)]
    if not good:
        return INF, -INF, bool(part), NAN, NAN
    return min(good), max(good), len(good) < len(part), good[0], good[-1]


def stretch(seed: int, n: int, holes: float) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = np.cumsum(random.normal(size=n))
    values[random.random(n) < holes] = NAN
    if n and holes > 0.4:
        values[n // 3 : n // 2] = NAN  # a hole of whole blocks
    return values


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 20_000), st.sampled_from([0.0, 0.01, 0.5, 1.0]), st.booleans(), st.data()
)
def test_any_stretch_has_the_bounds_and_the_ends_of_brute_force(
    seed: int, n: int, holes: float, positive: bool, data: st.DataObject
):
    values = stretch(seed, n, holes)
    pyramid = Pyramid(positive=positive)
    pyramid.sync(values)
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n), st.integers(0, n)), min_size=1, max_size=8))
    left, right = np.array(pairs, np.int64).T
    low, high, bad = pyramid.bounds(values, left, right)
    for i, (begin, stop) in enumerate(pairs):
        want = brute(values, begin, stop, positive=positive)
        assert (low[i], high[i], bad[i]) == want[:3]
        first, last = pyramid.find(values, begin, stop), pyramid.find(values, begin, stop, forward=False)
        if math.isnan(want[3]):
            assert first == last == -1
        else:
            assert (values[first], values[last]) == want[3:]


def test_all_pairs_of_a_small_pyramid_of_three_levels():
    n = FANOUT**2 + 3 * FANOUT + 5
    values = stretch(3, n, 0.3)
    pyramid = Pyramid()
    pyramid.sync(values)
    left, right = (grid.ravel() for grid in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    low, high, bad = pyramid.bounds(values, left, right)
    for i in np.random.default_rng(0).choice(len(left), 4000, replace=False).tolist():
        want = brute(values, int(left[i]), int(right[i]), positive=False)
        assert (low[i], high[i], bad[i]) == want[:3]


class Reference:
    """What a series must hold: a dictionary."""

    def __init__(self) -> None:
        self.of: dict[int, float] = {}

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        steps = sorted(self.of)
        return np.array(steps, np.int64), np.array([self.of[step] for step in steps], float)


@pytest.fixture(autouse=True)
def always_the_pyramid(monkeypatch: pytest.MonkeyPatch):
    """However few the points are."""
    monkeypatch.setattr("console.store.series.decimate.DIRECT", -1)
    monkeypatch.setattr("console.store.series.series.DIRECT", -1)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_series_keeps_its_pyramids_right_while_it_is_written(data: st.DataObject):
    series, want = Series(), Reference()
    last = 0
    for _ in range(data.draw(st.integers(1, 6))):
        for _ in range(data.draw(st.integers(0, 3))):
            stride = data.draw(st.integers(1, 3))
            values = stretch(data.draw(st.integers(0, 999)), data.draw(st.integers(1, 900)), 0.05)
            for value in values.tolist():
                last += stride
                series.put(last, value)
                want.of[last] = value
        for step in data.draw(st.lists(st.integers(0, max(last, 1)), max_size=5)):
            value = data.draw(VALUES)
            series.put(step, value)
            want.of[step] = value
            last = max(last, step)
        steps, values = want.arrays()
        points = series.points()
        assert np.array_equal(points.steps, steps)
        assert np.array_equal(points.values, values, equal_nan=True)
        edges = columns(data.draw(st.integers(0, 50)), max(last, 60), data.draw(st.integers(1, 7)))
        for positive in (False, True):
            got = envelope(points.steps, points.values, edges, points.pyramid(positive=positive))
            counted = np.where(values > 0, values, NAN) if positive else values
            same(got, _direct(counted, *pairs(spans(steps, edges))))
        average = points.smoothed(0.9)
        fresh = Series.from_arrays(steps, values).points().smoothed(0.9)
        assert average.values == pytest.approx(fresh.values, nan_ok=True)
        got = envelope(steps, average.values, edges, average.pyramid())
        same(got, _direct(average.values, *pairs(spans(steps, edges))))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_columns_that_are_kept_are_those_that_would_be_made(data: st.DataObject):
    series, last = Series(), 0
    edges = columns(data.draw(st.integers(0, 50)), data.draw(st.integers(60, 3000)), data.draw(st.integers(1, 40)))
    old = []
    for _ in range(data.draw(st.integers(2, 8))):
        values = stretch(data.draw(st.integers(0, 999)), data.draw(st.integers(0, 500)), 0.05)
        for value in values.tolist():
            last += data.draw(st.sampled_from([1, 1, 1, 2, 40])) if len(values) < 20 else 1
            series.put(last, value)
        if data.draw(st.booleans()):
            series.put(data.draw(st.integers(0, max(last, 1))), data.draw(VALUES))
            last = max(last, int(series.steps[-1]))
        points = series.points()
        old.append(points)
        if data.draw(st.integers(0, 3)) == 0:
            data.draw(st.sampled_from(old)).envelope(edges)  # drawn once more, with what has come since behind it
        if data.draw(st.integers(0, 3)) == 0:
            edges = columns(0, data.draw(st.integers(60, 3000)), data.draw(st.integers(1, 40)))
        for positive in (False, True):
            fresh = Series.from_arrays(points.steps.copy(), points.values.copy()).points()
            same(points.envelope(edges, positive=positive), fresh.envelope(edges, positive=positive))
        average = points.smoothed(0.9)
        alone = Series.from_arrays(points.steps.copy(), np.array(average.values, np.float64)).points()
        same(average.envelope(edges), alone.envelope(edges))


def test_one_more_point_makes_one_column_anew(monkeypatch: pytest.MonkeyPatch):
    series = Series.from_arrays(np.arange(10_000), np.random.default_rng(0).normal(size=10_000))
    edges = columns(0, 20_000, 100)
    series.points().envelope(edges)
    asked: list[int] = []
    bounds = Pyramid.bounds

    def counted(self: Pyramid, values: np.ndarray, left: np.ndarray, right: np.ndarray) -> object:
        asked.append(len(left))
        return bounds(self, values, left, right)

    monkeypatch.setattr(Pyramid, "bounds", counted)
    series.put(10_000, 1.0)
    series.points().envelope(edges)
    assert asked[0] == 51, "the column of the newest point, and those after it"
    asked.clear()
    series.put(5, 7.0)
    assert series.points().envelope(edges).high[0] == 7.0
    assert asked == [100], "what was rewritten is made anew"


def pairs(bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return bounds[:-1], bounds[1:]


def same(got: Envelope, want: Envelope) -> None:
    for name, one, other in zip(Envelope._fields, got, want, strict=True):
        assert np.array_equal(one, other, equal_nan=name != "broken"), name


def test_an_earlier_view_of_a_series_that_goes_on_can_still_be_drawn():
    series = Series()
    for step in range(5000):
        series.put(step, float(step))
    before = series.points()
    edges = columns(0, 4999, 10)
    want = before.envelope(edges)
    for step in range(5000, 9000):
        series.put(step, float(step))
    series.points().envelope(columns(0, 8999, 10))
    series.put(8000, -7.0)
    series.put(4, 100_000.0)
    assert np.array_equal(before.envelope(edges).high[1:], want.high[1:])
    now = series.points().envelope(columns(0, 8999, 10))
    assert now.low.min() == -7.0
    assert now.high[0] == 100_000.0


def test_levels_weigh_a_fraction_of_the_values():
    values = np.zeros(1_000_000)
    pyramid = Pyramid()
    pyramid.sync(values)
    assert pyramid.nbytes < values.nbytes / 4


def test_a_million_points_cost_about_what_ten_thousand_do():
    def seconds(n: int) -> float:
        series = Series.from_arrays(np.arange(n, dtype=np.int64), stretch(1, n, 0.0))
        points = series.points()
        edges = columns(0, n - 1, 200)
        points.envelope(edges)
        best = INF
        for _ in range(30):
            begin = time.perf_counter()
            points.envelope(edges)
            best = min(best, time.perf_counter() - begin)
        return best

    values, edges = stretch(1, 1_000_000, 0.0), columns(0, 999_999, 200)
    begin = time.perf_counter()
    _direct(values, *pairs(spans(np.arange(1_000_000, dtype=np.int64), edges)))
    whole = time.perf_counter() - begin
    thousand, million = seconds(10_000), seconds(1_000_000)
    # A factor of 100 in points: 10 leaves room for a busy machine, and one pass over all of them still fails.
    assert million < 10 * thousand
    assert million < whole


def test_appending_one_value_at_a_time_and_asking_each_time_stays_cheap():
    pyramid = Pyramid()
    values = np.random.default_rng(0).normal(size=3000)
    filled = 0
    original = Pyramid._fill

    def counting(self: Pyramid, at: int, part: np.ndarray, begin: int, stop: int) -> None:
        nonlocal filled
        filled += stop - begin
        original(self, at, part, begin, stop)

    Pyramid._fill = counting  # type: ignore[method-assign]
    try:
        for n in range(1, len(values) + 1):
            pyramid.sync(values[:n])
    finally:
        Pyramid._fill = original  # type: ignore[method-assign]
    assert filled == len(values) // FANOUT + len(values) // FANOUT**2
