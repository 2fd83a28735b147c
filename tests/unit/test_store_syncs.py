"""Syncs put together from spans: what belongs together, what is worst, what is kept, and figures over the run."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.store.series.quantiles import ERROR, Quantiles
from console.store.syncs import SyncIndex
from driftline.frames import Span
from tests.tui.sync_runs import WEIGHTS, spans
from tests.tui.synthetic import START


def index(*groups: list[Span], kept: int = 20_000) -> SyncIndex:
    made = SyncIndex(kept)
    for group in groups:
        for span in group:
            made.record(span)
    return made


def test_a_sync_is_its_engines_and_their_phases():
    made = index(
        spans("sync-1", "engine-0", START, (3, 4), 8),
        spans("sync-1", "engine-1", START + 0.01, (2, 4), 8, slow=4.0, held=3, reset="refused"),
    )
    (sync,) = made.syncs
    assert (sync.number, sync.id, sync.step, list(sync.engines)) == (1, "sync-1", 8, ["engine-0", "engine-1"])
    assert (sync.before, sync.after, sync.ok) == ((2, 3), (4, 4), True)
    assert (sync.in_flight, sync.straddling, sync.bytes) == (19, 19 * 20, WEIGHTS)
    assert sync.resets == {"freed": 1, "refused": 1}
    assert list(sync.digests.values()) == [2]
    assert sync.gb_per_s == pytest.approx(WEIGHTS / 0.256 / 1e9)
    # From the first pause to the last resume, on one axis.
    assert sync.seconds == pytest.approx(0.01 + 0.031 + 0.256 + 0.006 + 0.0007 + 0.0021)
    straggler = sync.straggler()
    assert straggler is not None
    assert straggler[0].engine == "engine-1"
    assert straggler[1] == pytest.approx(0.192)
    assert sync.slowest("load") == pytest.approx(0.256)
    assert sync.slowest("made up") is None


def test_an_engine_that_failed_comes_first_and_is_counted_once():
    good = spans("sync-1", "engine-0", START, (3, 4), 8, slow=9.0)
    bad = spans("sync-1", "engine-1", START, (3, 4), 8, failed="digest differs", digest="0bad")
    made = index(good, bad)
    sync = made.syncs[0]
    assert [engine.engine for engine in sync.worst_first()] == ["engine-1", "engine-0"]
    assert (sync.ok, made.failures, sync.failed[0].detail) == (False, 1, "digest differs")
    assert sync.after == (3, 4)
    assert len(sync.digests) == 2
    # What a failed engine took says nothing of how long a sync takes.
    assert made.phases["load"].count == 1


def test_the_same_name_after_a_restart_is_another_sync_and_a_span_reported_again_is_not():
    first = spans("sync-1", "engine-0", START, (0, 1), 2)
    again = spans("sync-1", "engine-0", START + 900, (7, 8), 16)
    made = index(first, first, again)
    assert [(sync.number, sync.spans) for sync in made.syncs] == [(1, 6), (2, 6)]
    assert made.find("sync-1") is made.syncs[1]
    assert made.phases["total"].count == 2


def test_whole_syncs_are_let_go_and_the_figures_over_the_run_stay():
    made = index(*(spans(f"sync-{n}", "engine-0", START + n, (n, n + 1), n) for n in range(100)), kept=60)
    assert [sync.number for sync in made.syncs] == list(range(91, 101))
    assert (made.count, made.phases["pause"].count) == (100, 100)
    assert made.find("sync-3") is None
    assert made.number(95) is made.syncs[4]
    assert made.number(3) is None
    assert made.number(101) is None


def test_a_summary_is_made_anew_when_an_engine_comes_in():
    made = index(spans("sync-1", "engine-0", START, (0, 1), 2))
    before = made.syncs[0].summary()
    assert made.syncs[0].summary() is before
    for span in spans("sync-1", "engine-1", START, (0, 1), 2):
        made.record(span)
    assert (before.engines, made.syncs[0].summary().engines) == (1, 2)


def test_spans_in_any_order_give_the_same_sync():
    all_spans = [span for n in range(5) for span in spans("s", f"engine-{n}", START + n / 100, (1, 2), 4, slow=1 + n)]
    expected = index(all_spans).syncs[0].summary()
    for seed in range(5):
        mixed = list(all_spans)
        random.Random(seed).shuffle(mixed)
        found = index(mixed).syncs[0].summary()
        assert (found.seconds, found.failed, found.slowest, found.bytes) == (
            expected.seconds, expected.failed, expected.slowest, expected.bytes,
        )  # fmt: skip


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_within_its_error_of_the_value_of_that_rank(values: list[float], part: float):
    found = Quantiles()
    for value in values:
        found.add(value)
    rank = max(math.ceil(part * len(values)), 1)
    expected = sorted(values)[rank - 1]
    answer = found.at(part)
    assert answer is not None
    assert abs(answer - expected) <= expected * ERROR * 1.01 + 1e-9


def test_quantiles_take_no_nonsense():
    found = Quantiles()
    assert found.at(0.5) is None
    for value in (-1.0, float("nan"), float("inf")):
        found.add(value)
    assert found.count == 0
