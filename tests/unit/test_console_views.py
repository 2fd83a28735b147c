"""Figures as people read them, tables that lose columns and not digits, bars on one axis."""

from __future__ import annotations

import pytest

from console.formatting import clock
from console.store.sync import EngineSync, Sync
from console.store.syncs import SyncIndex
from console.tui.paint.glyphs import GLYPHS
from console.tui.paint.spark import resample, spark
from console.tui.paint.table import Column, choose, flow, row
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut, duration, size, speed
from console.tui.screens.sync import gantt
from tests.tui.sync_runs import spans
from tests.tui.synthetic import START


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"), (float("nan"), "–"), (0.0, "0 ms"), (0.00042, "0.42 ms"), (0.0021, "2.1 ms"), (0.031, "31 ms"),
        (0.9994, "999 ms"), (0.9996, "1.00 s"), (1.234, "1.23 s"), (9.996, "10.0 s"), (99.9, "99.9 s"),
        (100.0, "1 min 40"), (119.7, "2 min 00"), (3600.0, "60 min 00"), (7500.0, "2 h 05"), (360_000.0, "4 days"),
        (-0.5, "-500 ms"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, shown: str):
    assert duration(seconds) == shown
    assert len(shown) <= 9


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (64e6, "64.0 MB"), (999.96e6, "1.0 GB")]
)
def test_sizes(count: float, shown: str):
    assert size(count) == shown


def test_speeds_and_cuts():
    assert (speed(None), speed(1.24), speed(0.05)) == ("–", "1.2 GB/s", "50.0 MB/s")
    assert (cut("abcdef", 4), cut("abc", 3), cut("abc", 0)) == ("abc…", "abc", "")


def test_a_time_of_another_day_has_its_day(monkeypatch: pytest.MonkeyPatch):
    assert clock(START, START + 5).count(":") == 2
    assert len(clock(START, START + 200_000)) > len(clock(START, START))


COLUMNS = (Column("a", "first", 6), Column("b", "second", 8, 2, right=True), Column("c", "", 10, 1, grows=True))


def test_a_narrow_table_has_fewer_columns_and_a_wide_one_grows():
    assert [column.id for column in choose(COLUMNS, 27)] == ["a", "b", "c"]
    assert [column.id for column in choose(COLUMNS, 26)] == ["a", "c"]
    assert [column.id for column in choose(COLUMNS, 1)] == ["a"]
    wide = choose(COLUMNS, 80)
    assert sum(column.width + 1 for column in wide) == 80
    line = row(wide, {"a": ("x" * 9, Ink.TEXT), "b": ("12", Ink.TEXT)})
    assert "".join(text for text, _ in line)[:16] == "xxxxx…       12 "
    assert sum(len(text) for text, _ in line) == 80


def test_pieces_are_broken_only_where_they_are_longer_than_a_line():
    lines = flow([[("one", Ink.DIM), (" two", Ink.TEXT)], [("three four five six", Ink.TEXT)], [("end", Ink.OK)]], 12)
    assert ["".join(text for text, _ in line) for line in lines] == [" one two", " three four", " five six", " end"]
    assert all(sum(len(text) for text, _ in line) <= 12 for line in lines)


def synced(*engines: tuple[str, float, float]) -> Sync:
    made = SyncIndex()
    for name, late, slow in engines:
        for span in spans("s", name, START + late, (1, 2), 4, slow=slow):
            made.record(span)
    return made.syncs[0]


def bar(sync: Sync, engine: EngineSync, width: int, marker: str = "braille") -> str:
    return "".join(text for text, _ in gantt.bar(sync, engine, width, GLYPHS[marker]))


def test_bars_share_the_axis_of_the_sync():
    sync = synced(("fast", 0.0, 1.0), ("slow", 0.0, 4.0), ("late", 0.1, 1.0))
    fast, slow, late = (bar(sync, sync.engines[name], 60) for name in ("fast", "slow", "late"))
    assert {len(fast), len(slow), len(late)} == {60}
    assert fast.index("L") == slow.index("L")
    assert fast.count("█") * 3 < slow.count("█")
    assert late.startswith(" " * 15)
    assert late.index("P") == round(0.1 / sync.seconds * 60)
    assert slow == slow.rstrip()  # the slowest one ends where the axis does
    assert fast.rstrip() != fast  # it ended earlier
    # Letters tell the phases without any colour, in their order.
    assert [char for char in fast if char in "PLVCR"] == ["P", "L", "V", "R"]
    assert set(bar(sync, sync.engines["slow"], 60, "ascii")) <= set(" PLVCR.#%:=")


@pytest.mark.parametrize("width", [1, 5, 20, 200])
def test_a_bar_has_the_width_it_is_given(width: int):
    sync = synced(("a", 0.0, 1.0), ("b", 0.2, 3.0))
    for engine in sync:
        assert len(bar(sync, engine, width)) == width
    assert len(gantt.ruler(sync.seconds, max(width, 12))) == max(width, 12)


def test_a_sync_of_no_time_is_drawn_all_the_same():
    made = SyncIndex()
    for span in spans("s", "a", START, (1, 2), 4):
        made.record(type(span)(span.sync, span.engine, span.phase, START, 0.0, 1, 2, 4))
    assert bar(made.syncs[0], made.syncs[0].engines["a"], 10) == " " * 10


def test_sparks():
    glyphs = GLYPHS["braille"]
    assert spark([0, 1, 2, 4], 3, glyphs) == "▃▅█"
    assert spark([0.5, -1.0, float("nan")], 9, glyphs, 1.0) == "▅  "
    assert spark([0, 0], 9, glyphs) == "▁▁"
    assert spark([1.0], 0, glyphs) == ""
    assert spark([0, 8], 9, GLYPHS["ascii"]) == "_@"


def test_resampling_keeps_means_and_gaps():
    times = [float(n) for n in range(100) if not 40 <= n < 60]
    found = resample(times, [1.0] * len(times), 20)
    assert len(found) == 20
    assert found[:8] == [1.0] * 8
    assert -1.0 in found[8:12]
    assert resample([1.0, 2.0], [3.0, 4.0], 20) == [3.0, 4.0]
    assert resample([], [], 20) == []
