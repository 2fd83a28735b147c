"""Histories of engines: exact for what is new, coarse and bounded for the whole run."""

from __future__ import annotations

import msgspec
import pytest

from console.store.engines import BUCKETS, RECENT, EngineHistory, Trace
from tests.tui.synthetic import START, engines


def trace(count: int, every: float = 0.5) -> Trace:
    history = EngineHistory()
    state = engines(1)[0]
    for n in range(count):
        at = START + n * every
        history.record(msgspec.structs.replace(state, time=at, tokens_per_s=float(n), running=n % 4), at)
    return history.traces["engine-0"]


def test_the_newest_reports_are_exact():
    found = trace(1000)
    assert len(found.recent) == RECENT
    assert [one.tokens_per_s for one in list(found.recent)[-2:]] == [998.0, 999.0]


@pytest.mark.parametrize("count", [10, 2_000, 40_000])
def test_the_whole_run_is_bounded_and_its_mean_is_kept(count: int):
    found = trace(count)
    whole = found.whole()
    assert len(whole) <= BUCKETS
    assert whole[0].time <= START < whole[0].time + found.period
    counts = found._counts[: found._n]
    assert sum(counts) == count
    mean = sum(one.tokens_per_s * n for one, n in zip(whole, counts, strict=True)) / count
    assert mean == pytest.approx((count - 1) / 2)
    assert [one.time for one in whole] == sorted({one.time for one in whole})


def test_restarts_phases_and_what_was_counted_before():
    history = EngineHistory()
    state = msgspec.structs.replace(engines(1)[0], preemptions=7)
    history.record(state, START)
    history.record(msgspec.structs.replace(state, time=START + 1, phase="dead"), START + 1)
    again = msgspec.structs.replace(state, time=START + 60, pid=999, preemptions=1)
    history.record(again, START + 60)
    history.record(msgspec.structs.replace(again, time=START + 61), START + 61)
    found = history.traces["engine-0"]
    assert (found.restarts, found.lost_preemptions, found.began, found.last_report) == (1, 7, START + 60, START + 61)


def test_a_report_that_is_repeated_is_not_drawn_twice():
    history = EngineHistory()
    for _ in range(3):
        history.record(engines(1)[0], START)
    assert len(history.traces["engine-0"].recent) == 1
