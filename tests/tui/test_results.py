"""What a dialog says of a command's results: figures with units, one line for each engine, no ids and no zeros."""

from __future__ import annotations

from console.tui.present.results import results
from engine.types import SyncReport
from trainer.measure.sync_spans import sync_data


def test_a_sync_is_shown_engine_by_engine_with_units():
    good = SyncReport("engine-0", True, 41, 42, 0.0, 0.19723, 0.26, 0.0, 0.5, 1_400_000, 175, verified="held")
    bad = SyncReport("engine-1", False, 41, 41, 0.0, 0.05, 0.0, 0.0, 0.05, 0, 3, detail="out of memory")
    reports = [good, bad]
    first, one, other = results(sync_data("sync-43", 42, reports))
    assert first == "v42"
    words = "pause 197 ms, load 260 ms, total 500 ms, v42, 1.4 MB, in flight 175, verified held, reset kept"
    assert one == f"engine-0  {words}"
    assert other == "engine-1  pause 50 ms, total 50 ms, v41, in flight 3, reset kept, not ok, detail out of memory"


def test_what_a_fix_reports_is_said_as_it_is():
    assert results({"engine-0.effective": "on", "engine-1.effective": "on"}) == [
        "engine-0  effective on",
        "engine-1  effective on",
    ]


def test_nothing_is_shown_of_nothing():
    assert results({}) == []
