"""Every key of the charts, pressed in a headless terminal; what a chart says of numbers not to be believed."""

from __future__ import annotations

import numpy as np
import pytest
from textual.pilot import Pilot

from console.connect.source import Link
from console.settings.keys import KEYS
from console.store.series.clock import Ruler
from console.store.series.series import Series
from console.tui.app import ConsoleApp
from console.tui.chart.data import Band, ChartData, Line
from console.tui.chart.line_chart import LineChart, paint_chart
from console.tui.chart.view import ChartView
from console.tui.chart.x_window import XView
from console.tui.paint.axis import nice_time
from console.tui.paint.cells import Cells
from console.tui.paint.glyphs import GLYPHS
from console.tui.paint.theme import Ink
from console.tui.paint.units import span
from console.tui.screens.live.screen import LiveScreen
from driftline.frames import Metrics
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.synthetic import START, FakeSource, run_state

NAN = float("nan")


def live(pilot: Pilot[None]) -> LiveScreen:
    assert isinstance(pilot.app, ConsoleApp)
    return pilot.app.live


def chart(pilot: Pilot[None], name: str) -> LineChart:
    return pilot.app.screen.query_one(f"#{name}", LineChart)


def drawn(widget: LineChart) -> str:
    assert widget._cells is not None
    return "\n".join("".join(map(chr, row)) for row in widget._cells.chars.tolist())


def inked(cells: Cells, ink: Ink) -> int:
    return int(((cells.inks == ink) & (cells.chars != 32)).sum())


def unequal(steps: int = 40) -> FakeSource:
    """A run whose steps take ever longer: its curves look different by time."""
    source = FakeSource()
    values = {"reward/mean": 0.0, "engine/tokens_per_s": 100.0, "policy/entropy": 1.0}
    source.feed([Metrics(s, s, START + s * s, values | {"reward/mean": 0.01 * s}) for s in range(1, steps + 1)])
    source.feed([run_state(steps)])
    return source


def test_every_key_of_the_charts_is_in_the_table_once():
    keys = [key for entry in KEYS if entry.where in ("live", "screens") for key in entry.keys]
    assert len(keys) == len(set(keys))
    for key in ("y", "s", "plus", "minus", "left_square_bracket", "right_square_bracket", "0", "f", "x", "c", "enter"):
        assert key in keys


# -- x: the unit of the axis


async def test_x_goes_through_steps_time_and_tokens(running: Running):
    async with running(unequal(), (120, 40)) as pilot:
        by_step = drawn(chart(pilot, "reward"))
        text = await press(pilot, "x")
        assert live(pilot).view.ruler.unit == "time"
        assert "x axis: time since the first step" in text
        # 40 squared less one is 1599 s, and half an hour the next round time.
        assert " time 0 " in text
        assert " 30m " in text
        by_time = drawn(chart(pilot, "reward"))
        assert by_time != by_step
        text = await press(pilot, "x")
        assert live(pilot).view.ruler.unit == "tokens"
        assert " tokens 0 " in text
        assert " 200k " in text  # 1599 s of 100 tokens/s are 159,900
        await press(pilot, "x")
        assert live(pilot).view.ruler.unit == "step"
        assert drawn(chart(pilot, "reward")) == by_step


async def test_x_stays_with_steps_where_nothing_else_is_known(running: Running):
    async with running(FakeSource(), (120, 40)) as pilot:
        assert "only steps are known yet" in await press(pilot, "x")
        assert live(pilot).view.ruler.unit == "step"


async def test_tokens_are_left_out_where_no_engine_reports_them(running: Running):
    source = FakeSource()
    source.feed([Metrics(s, s, START + s, {"reward/mean": 0.1}) for s in range(1, 20)])
    async with running(source, (120, 40)) as pilot:
        units = []
        for _ in range(3):
            await press(pilot, "x")
            units.append(live(pilot).view.ruler.unit)
        assert units == ["time", "step", "time"]


async def test_a_time_axis_goes_on_with_the_run(running: Running):
    source = unequal()
    async with running(source, (120, 40)) as pilot:
        await press(pilot, "x")
        source.feed([Metrics(41, 41, START + 2000, {"reward/mean": 0.9})])
        await settle(pilot)
        assert live(pilot).view.ruler.place(41) == 1999
        assert " 45m " in screen_text(pilot)


async def test_a_zoom_keeps_its_part_of_the_run_in_another_unit(running: Running):
    async with running(unequal(), (120, 40)) as pilot:
        await press(pilot, "plus", "left_square_bracket")
        low, high = live(pilot).view.domain(live(pilot).extent)
        await press(pilot, "x")
        view = live(pilot).view
        assert view.x.mode == "fixed"
        start, stop = view.domain(live(pilot).extent)
        assert start == view.ruler.place(np.ceil(low))
        assert stop == view.ruler.place(min(np.ceil(high), 40))


# -- c: the crosshair


async def test_the_crosshair_gives_every_chart_its_value_there(running: Running):
    async with running(unequal(), (120, 40)) as pilot:
        await press(pilot, "c", "h", "h")
        cursor = live(pilot).view.cursor
        assert cursor is not None
        assert cursor < 40
        text = screen_text(pilot)
        assert f"reward {0.01 * cursor:.2f}" in text
        assert text.count(f" step {cursor} ") >= 3
        await press(pilot, "l")
        assert live(pilot).view.cursor == cursor + 1
        text = await press(pilot, "x")
        assert live(pilot).view.cursor == cursor + 1, "the step stays where the unit changes"
        assert f" step {cursor + 1} at " in text


async def test_zoom_is_about_the_crosshair(running: Running):
    async with running(source_with(400, 10**9), (120, 40)) as pilot:
        await press(pilot, "c", *["h"] * 20)
        cursor = live(pilot).view.cursor
        assert cursor is not None
        await press(pilot, "plus", "plus", "plus")
        low, high = live(pilot).view.domain(live(pilot).extent)
        assert live(pilot).view.x.mode == "fixed"
        assert low <= cursor <= high
        assert abs((low + high) / 2 - cursor) <= (high - low) / 4
        await press(pilot, *["h"] * 100)
        assert live(pilot).view.cursor == low, "it stops at the edge of what is in view"


# -- s: smoothing, y: log


async def test_the_raw_line_is_a_ghost_behind_its_average(running: Running):
    async with running(source_with(), (120, 40)) as pilot:
        widget = chart(pilot, "clip")
        assert inked(widget._cells, Ink.GHOST) == 0
        text = await press(pilot, "s", "s")
        assert inked(widget._cells, Ink.GHOST) > 10
        assert inked(widget._cells, Ink.LINE) > 10
        assert " ~0." in text, "the average stands beside the value"
        lag = drawn(chart(pilot, "lag")).splitlines()[0]
        assert 0 < lag.index("~") < lag.index("tok/s"), "and beside its own"


async def test_keys_work_on_a_frozen_view_without_thawing_it(running: Running):
    source = source_with(20, 10**9)
    async with running(source, (120, 40)) as pilot:
        await press(pilot, "space")
        source.feed([Metrics(s, s, START + s, {"reward/mean": 9.0}) for s in range(21, 40)])
        await settle(pilot)
        await press(pilot, "s", "y", "x", "plus", "c")
        assert "FROZEN" in screen_text(pilot).splitlines()[0]
        assert live(pilot).view.cursor == 20
        assert " 9 " not in drawn(chart(pilot, "reward"))


async def test_an_enlarged_chart_keeps_view_and_crosshair(running: Running):
    async with running(source_with(), (120, 40)) as pilot:
        await press(pilot, "c", "h", "enter", "h")
        widget = chart(pilot, "clip")
        assert widget.size == (120, 38)
        assert f" step {live(pilot).view.cursor} " in drawn(widget)
        await press(pilot, "escape", "escape")
        assert live(pilot).view.cursor is None
        assert live(pilot).enlarged is None


# -- what is not to be believed


@pytest.mark.parametrize(
    ("link", "word"), [(Link(True, 30.0), "stale"), (Link(True, 0.1, behind=10**6), "loading"), (Link(True, 0.1), "")]
)
async def test_a_chart_says_itself_when_its_newest_point_is_not_the_runs(running: Running, link: Link, word: str):
    source = source_with()
    source.state = link
    async with running(source, (120, 40)) as pilot:
        widget = chart(pilot, "reward")
        top = drawn(widget).splitlines()[0]
        assert all((name in top) == (name == word) for name in ("stale", "loading"))
        assert (inked(widget._cells, Ink.LINE) == 0) == (word == "stale")


async def test_stale_is_said_where_there_is_no_room_for_more(running: Running):
    source = source_with()
    source.state = Link(True, 30.0)
    async with running(source, (120, 40)) as pilot:
        assert "stale" in drawn(chart(pilot, "mismatch")).splitlines()[0]


async def test_a_finished_run_is_not_stale(running: Running):
    source = source_with()
    source.feed([run_state(74, "finished")])
    source.state = Link(True, 30.0)
    async with running(source, (120, 40)) as pilot:
        assert "stale" not in drawn(chart(pilot, "reward"))


# -- references and bands


def paint(data: ChartData, view: ChartView, extent: tuple[int, int], marker: str = "braille") -> Cells:
    cells = Cells(60, 14)
    paint_chart(cells, data, view, extent, GLYPHS[marker])
    return cells


@pytest.mark.parametrize("marker", list(GLYPHS))
def test_a_band_is_a_pattern_behind_the_line(marker: str):
    steps = np.arange(101)
    low, high = (Series.from_arrays(steps, np.full(101, y)).points() for y in (0.2, 0.6))
    line = Line(Series.from_arrays(steps, np.full(101, 0.4)).points())
    alone = paint(ChartData("t", lines=(line,)), ChartView(), (0, 100), marker)
    cells = paint(ChartData("t", lines=(line,), bands=(Band(low, high),)), ChartView(), (0, 100), marker)
    assert inked(cells, Ink.REFERENCE) > 40
    assert inked(cells, Ink.LINE) >= inked(alone, Ink.LINE) // 2
    rows = np.flatnonzero((cells.inks == Ink.REFERENCE).any(axis=1))
    assert len(rows) >= 4


def test_a_reference_lies_by_its_own_clock_and_gives_its_value_at_the_crosshair():
    steps = np.arange(1, 11)
    line = Line(Series.from_arrays(steps, np.full(10, 1.0)).points())
    other = Series.from_arrays(steps, np.linspace(0.0, 0.9, 10)).points()
    mine = Ruler("time", 1, steps, np.arange(10.0) * 10)
    slow = Ruler("time", 1, steps, np.arange(10.0) * 20)
    reference = Line(other, reference=True, short="base", ruler=slow)
    data = ChartData("t", lines=(line, reference))
    view = ChartView(ruler=mine, x=XView(unit="time"), cursor=5)
    cells = paint(data, view, (1, 10))
    assert " base 0.4 " in "".join(map(chr, cells.chars[0].tolist()))
    # The run's ten steps took 90 s; the reference had done five of them by then, and is half as high.
    columns = np.flatnonzero((cells.inks == Ink.REFERENCE).any(axis=0))
    assert columns[-1] > 50
    same = paint(ChartData("t", lines=(line, Line(other, reference=True))), view, (1, 10))
    assert not np.array_equal(cells.inks == Ink.REFERENCE, same.inks == Ink.REFERENCE)


def test_a_hole_is_marked_in_its_column_however_many_points_there_are():
    values = np.ones(1_000_000)
    values[500_000] = NAN
    line = Line(Series.from_arrays(np.arange(1_000_000), values).points())
    cells = paint(ChartData("t", lines=(line,)), ChartView(), (0, 999_999))
    marked = np.flatnonzero(cells.chars[1] == ord("×"))
    assert len(marked) == 1
    assert abs(marked[0] - 33) <= 3


# -- time on the axis


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (5, "5s"),
        (0.5, "0.5s"),
        (90, "1m30"),
        (3600, "1h"),
        (5400, "1h30"),
        (86_400, "1d"),
        (100_000, "1d4h"),
        (1e9, "1G"),
        (NAN, "NaN"),
    ],
)
def test_durations_are_short(seconds: float, text: str):
    assert span(seconds) == text


def test_the_time_axis_grows_in_round_times():
    assert [nice_time(s) for s in (1, 11, 61, 3601, 50_000)] == [10, 15, 90, 5400, 57_600]
    for seconds in np.geomspace(10, 1e8, 500).tolist():
        assert seconds <= nice_time(seconds) <= seconds * 1.6
