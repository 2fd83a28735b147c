"""The chart without an app: what is painted into the cells, to the character."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from console.store.model import Mark
from console.store.series.clock import Ruler
from console.store.series.decimate import Envelope, columns, joined
from console.store.series.decimate import envelope as between
from console.store.series.series import Series
from console.tui.chart.data import ChartData, Line
from console.tui.chart.line_chart import ChartView, paint_chart
from console.tui.chart.x_window import XView
from console.tui.paint.axis import nice_max, nice_step, y_range
from console.tui.paint.cells import Cells
from console.tui.paint.clean_text import clean
from console.tui.paint.glyphs import GLYPHS
from console.tui.paint.raster import dots
from console.tui.paint.theme import SELECTED, Ink, palette
from console.tui.paint.units import number

NAN = float("nan")


def line_of(steps: object, values: object, ink: Ink = Ink.LINE, **changes: object) -> Line:
    points = Series.from_arrays(np.array(steps, np.int64), np.array(values, float)).points()
    return Line(points, ink, **changes)  # type: ignore[arg-type]


def envelope(steps: np.ndarray, values: np.ndarray, start: float, stop: float, count: int) -> Envelope:
    return between(steps, values, columns(start, stop, count))


def paint(
    values: list[float],
    width: int = 40,
    height: int = 10,
    marker: str = "braille",
    view: ChartView | None = None,
    **changes: object,
) -> Cells:
    cells = Cells(width, height, GLYPHS[marker].ellipsis)
    steps = np.arange(len(values), dtype=np.int64)
    line = line_of(steps, values, metric="mismatch/abs_diff_mean")
    data = ChartData("mismatch", **({"lines": (line,)} | changes))  # type: ignore[arg-type]
    extent = (0, max(len(values) - 1, 0))
    paint_chart(cells, data, view or ChartView(), extent, GLYPHS[marker])
    return cells


def rows(cells: Cells) -> list[str]:
    return ["".join(map(chr, row)) for row in cells.chars.tolist()]


def inked(cells: Cells, ink: Ink) -> str:
    return "".join(map(chr, cells.chars[cells.inks == ink].tolist()))


def test_braille_numbers_its_dots_as_unicode_does():
    codes = GLYPHS["braille"].marker.codes
    assert [chr(codes[bits]) for bits in (1, 2, 4, 8, 64, 128, 255)] == list("⠁⠈⠂⠐⡀⢀⣿")


def test_a_rising_line_is_drawn_from_corner_to_corner():
    env = joined(envelope(np.array([0, 1], np.int64), np.array([0.0, 1.0]), 0, 1, 8))
    bits = dots(env, 0.0, 1.0, 2, GLYPHS["braille"].marker)
    assert bits.shape == (2, 4)
    assert bits[1, 0] & 64  # bottom left dot
    assert bits[0, 3] & 2  # top right dot
    assert bits[0, 0] == bits[1, 3] == 0


def test_a_dot_of_every_marker_is_where_the_value_is():
    for glyphs in GLYPHS.values():
        marker = glyphs.marker
        env = envelope(np.array([0], np.int64), np.array([1.0]), 0, 1, marker.wide)
        assert dots(env, 0.0, 1.0, 3, marker).tolist() == [[1], [0], [0]]
        assert dots(env, 1.0, 2.0, 3, marker)[2, 0] == 1 << (marker.wide * (marker.high - 1))


def test_what_lies_outside_of_the_range_is_not_drawn_at_its_edge():
    env = envelope(np.array([0], np.int64), np.array([5.0]), 0, 1, 2)
    assert dots(env, 0.0, 1.0, 3, GLYPHS["braille"].marker).sum() == 0


def test_title_value_health_and_label_stand_in_the_frame():
    cells = paint([0.4, 0.47], label="gspo")
    top = rows(cells)[0]
    assert top.startswith("╭ mismatch 0.47! ")
    assert top.endswith(" gspo ╮")
    assert "0.47!" in inked(cells, Ink.ALARM)
    assert "0.011" in inked(paint([0.4, 0.011]), Ink.OK)


def test_the_title_gives_way_to_the_value():
    cells = Cells(14, 4)
    line = line_of([1], [0.0471])
    data = ChartData("a long title", "short one", lines=(line,))
    paint_chart(cells, data, ChartView(), (0, 1), GLYPHS["braille"])
    assert rows(cells)[0] == "╭ sh… 0.0471 ╮"


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_a_nan_is_a_gap_a_mark_and_an_alarm(bad: float):
    cells = paint([0.4, 0.4, bad, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4])
    assert inked(cells, Ink.ALARM).count("×") == 1
    line = next(row for row in rows(cells)[1:-1] if any("⠁" <= char <= "⣿" for char in row))
    drawn = line[6:-1].rstrip()
    assert " " in drawn.strip(), "the line has a hole"
    assert number(bad) + "!" in inked(paint([0.4, bad]), Ink.ALARM)


def test_few_points_are_one_connected_line():
    cells = paint([0.1, 0.3], view=ChartView(x=XView("fixed", 0, 1)), width=60)
    drawn = cells.inks[1:-1] == Ink.LINE
    columns = np.flatnonzero(drawn.any(axis=0))
    assert np.array_equal(columns, np.arange(columns[0], columns[-1] + 1))
    assert len(columns) > 45


def test_before_the_first_step_the_chart_says_what_it_waits_for():
    cells = paint([])
    assert "waiting for the first step" in "".join(rows(cells))
    assert "loading" in "".join(rows(paint([], empty="loading the model")))


def test_log_axis_has_its_decades_and_refuses_where_nothing_is_above_zero():
    cells = paint([0.47, 0.012], view=ChartView(log=True), height=12)
    assert " log ╮" in rows(cells)[0]
    labels = [row[1:6].strip() for row in rows(cells)[1:-1]]
    assert [label for label in labels if label] == ["0.5", "0.1", "0.01"]
    cells = paint([0.0, -1.0], view=ChartView(log=True))
    assert "log: nothing above 0" in rows(cells)[0]


def test_zero_on_a_log_axis_is_a_gap_and_not_an_alarm():
    cells = paint([0.4, 0.4, 0.0, 0.4, 0.04, 0.04], view=ChartView(log=True))
    assert "×" not in inked(cells, Ink.ALARM)


def test_marks_limits_reference_and_ghost_are_drawn_behind_the_line():
    reference = line_of(np.arange(101), np.full(101, 0.2), reference=True)
    line = line_of(np.arange(101), 0.3 + 0.05 * np.sin(np.arange(101.0)))
    cells = Cells(80, 12)
    marks = (Mark(50, "fix", "processed-logprobs on"), Mark(50, "fix", "other"), Mark(20, "sync", "sync"))
    data = ChartData("t", lines=(line, reference), marks=marks, limits=((0.23, Ink.LIMIT_ALARM),))
    paint_chart(cells, data, ChartView(weight=0.9), (0, 100), GLYPHS["braille"])
    assert inked(cells, Ink.FIX_MARK).count("┊") >= 5
    assert inked(cells, Ink.SYNC_MARK).count("┊") >= 5
    assert "processed-logprobs on +1" in "".join(rows(cells))
    assert inked(cells, Ink.LIMIT_ALARM).count("┈") > 60
    assert len(inked(cells, Ink.REFERENCE)) > 60
    assert len(inked(cells, Ink.GHOST)) > 10
    assert len(inked(cells, Ink.LINE)) > 60
    assert "ema 0.9" in rows(cells)[-1]


@pytest.mark.parametrize("marker", list(GLYPHS))
def test_an_alarm_is_a_sign_above_its_step_and_hides_nothing(marker: str):
    line = line_of(np.arange(101), np.where(np.arange(101) < 60, 0.1, 0.4))
    marks = (Mark(60, "error", "clip-jump"), Mark(60, "warn", "own-rule"), Mark(30, "warn", "kl-spike"))
    bare, cells = Cells(80, 12), Cells(80, 12)
    for one, shown in ((bare, ()), (cells, marks)):
        paint_chart(one, ChartData("t", lines=(line,), marks=shown), ChartView(), (0, 100), GLYPHS[marker])
    drawn = (bare.chars != 32) & (bare.inks != Ink.CURSOR)
    assert (cells.chars[drawn] == bare.chars[drawn]).all()
    assert inked(cells, Ink.ALARM) == "!clip-jump +1 "
    assert inked(cells, Ink.WARN) == "!kl-spike "
    text = rows(cells)
    assert text[1].index("!kl-spike") < text[1].index("!clip-jump +1")


def test_signs_are_in_one_row_where_most_have_room_and_none_is_hidden_by_a_line():
    steps = np.arange(101)
    spikes = np.where(steps % 20 == 10, 0.93, 0.3)
    marks = tuple(Mark(step, "error", "kl-spike") for step in (10, 30, 50))
    for values, row in ((1.0 - spikes, 1), (spikes, 6)):
        cells = Cells(60, 8)
        bounds = line_of([0], [0.0]), line_of([0], [0.94])
        data = ChartData("t", lines=(*bounds, line_of(steps, values)), marks=marks)
        paint_chart(cells, data, ChartView(), (0, 100), GLYPHS["ascii"])
        assert rows(cells)[row].count("!") == 3, rows(cells)


def test_the_lower_edge_leaves_out_whole_parts():
    clock = Ruler("time", 1, np.arange(101), np.arange(101) * 60.0)
    line = line_of(np.arange(101), np.full(101, 0.2))
    view = ChartView(cursor=60, weight=0.9, ruler=clock).zoom(0.5, (0, 100))
    for width, edge in (
        (60, "╰ time 35m  step 60 at 1h  ema 0.9  zoom ──────────── 1h25 ╯"),
        (40, "╰ time 35m  step 60  ema 0.9  zoom ────╯"),
        (26, "╰ time 35m  step 60 ─────╯"),
    ):
        cells = Cells(width, 8)
        paint_chart(cells, ChartData("t", lines=(line,)), view, (0, 100), GLYPHS["braille"])
        assert rows(cells)[-1] == edge


@pytest.mark.parametrize(
    ("width", "edge"),
    [
        (26, " step 60  ! kl-spike +1 "),
        (24, " step 60  ! kl-spike… "),
        (60, " 0  step 60  ! kl-spike +1 "),
    ],
)
def test_the_crosshair_says_which_alarm_was_raised_there(width: int, edge: str):
    line = line_of(np.arange(101), np.full(101, 0.2))
    marks = (Mark(60, "warn", "own-rule"), Mark(60, "error", "kl-spike"), Mark(20, "error", "kl-limit"))
    cells = Cells(width, 9)
    view = ChartView(cursor=60, weight=0.9)
    paint_chart(cells, ChartData("t", lines=(line,), marks=marks), view, (0, 100), GLYPHS["braille"])
    assert edge in rows(cells)[-1], rows(cells)[-1]
    assert "ema 0.9" in rows(cells)[-1] or width < 60
    assert "kl-limit" not in rows(cells)[-1]


def test_the_cursor_shows_the_values_at_its_step():
    cells = paint([0.1, 0.2, 0.3, 0.4], view=ChartView(cursor=2))
    assert rows(cells)[0].startswith("╭ mismatch 0.3! ")
    assert " step 2 " in rows(cells)[-1]
    assert inked(cells, Ink.CURSOR).count("┊") == 8


def test_a_secondary_line_has_a_range_of_its_own_from_zero():
    big = line_of(np.arange(11), np.full(11, 1900.0), Ink.SECOND, short="tok/s", secondary=True)
    small = line_of(np.arange(11), np.full(11, 1.2), short="lag")
    cells = Cells(50, 10)
    paint_chart(cells, ChartData("", lines=(small, big)), ChartView(), (0, 10), GLYPHS["braille"])
    assert rows(cells)[0].startswith("╭ lag 1.2 tok/s 1.9k ")
    assert "1.9k" not in "".join(rows(cells)[1:])
    assert len(inked(cells, Ink.SECOND)) > 40


@pytest.mark.parametrize("marker", list(GLYPHS))
@pytest.mark.parametrize("width", [1, 2, 5, 8, 12, 19, 20, 26, 100])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 7, 25])
def test_every_size_is_drawn_in_cells_of_its_own(marker: str, width: int, height: int):
    for values in ([], [0.4], [0.4, NAN, 0.5], [0.0] * 5, [1e300, -1e300], [NAN] * 4):
        for view in (ChartView(), ChartView(log=True, weight=0.9, cursor=1, x=XView("follow", width=4))):
            cells = paint(values, width, height, marker, view)
            strips = cells.strips(palette())
            assert [strip.cell_length for strip in strips] == [width] * height
            assert all(len(strip.text) == width for strip in strips)
            if marker == "ascii":
                assert all(char.isascii() for char in "".join(rows(cells)))


def test_only_cells_that_changed_are_named():
    before, after = paint([0.1, 0.2] * 20), paint([0.1, 0.2] * 20 + [0.15])
    regions = after.changed(before)
    assert 0 < sum(region.area for region in regions) < 40
    assert after.changed(paint([0.1, 0.2] * 20 + [0.15])) == []
    for region in regions:
        rows_differ = after.chars[region.y] != before.chars[region.y]
        assert rows_differ[region.x : region.right].any() or (after.inks != before.inks)[region.y].any()


def test_strips_keep_every_character_and_its_ink():
    cells = Cells(30, 2)
    cells.line(0, 1, [("on", Ink.OK), (" a ", Ink.DIM), ("漢字", Ink.ALARM), ("!", Ink.TEXT)])
    cells.select(0, 0, 30)
    strips = cells.strips(palette())
    assert strips[0].text.rstrip() == " on a 漢字!"
    assert strips[0].cell_length == 30
    styles = {segment.text.strip(): segment.style for segment in strips[0]}
    assert styles["on"] == palette()[SELECTED + Ink.OK]
    assert styles["漢字"] == palette()[SELECTED + Ink.ALARM]


def test_a_wide_character_at_the_edge_is_left_out_whole():
    cells = Cells(3, 1)
    assert cells.text(0, 0, "a漢字") == 2
    assert cells.strips(palette())[0].text == "a… "


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        (["whole"], "whole   "),
        (["whole", "    "], "whole   "),
        (["exactly8"], "exactly8"),
        (["exactly8", " "], "exactly8"),
        (["much too long"], "much to…"),
        (["exactly8", "more"], "exactly…"),
        (["exactly8", " ", "x"], "exactly…"),
        (["six123", "long"], "six123l…"),
        (["a漢字漢字"], "a漢字漢…"),
        (["a漢字漢", "x"], "a漢字漢x"),
        (["bc漢字漢", "x"], "bc漢字 …"),
        (["漢字漢字   "], "漢字漢字"),
    ],
)
def test_a_line_that_goes_on_ends_in_an_ellipsis(parts: list[str], shown: str):
    cells = Cells(10, 1)
    cells.line(0, 0, [(part, Ink.TEXT) for part in parts], 8)
    assert cells.strips(palette())[0].text == shown + "  "
    ascii_cells = Cells(8, 1, GLYPHS["ascii"].ellipsis)
    ascii_cells.line(0, 0, [(part, Ink.TEXT) for part in parts])
    assert ascii_cells.strips(palette())[0].text == shown.replace("…", ">"), "at the edge of the grid as well"


def test_a_title_loses_words_before_letters_and_a_value_is_whole_or_absent():
    lag = line_of([1], [1.22], short="lag")
    rate = line_of([1], [1900.0], short="tok/s", secondary=True)
    wanted = {
        30: "╭ lag 1.22 tok/s 1.9k ───────╮",
        20: "╭ lag 1.22 tok/s ──╮",
        16: "╭ lag 1.22 ─────╮"[:15] + "╮",
    }
    for width, top in wanted.items():
        cells = Cells(width, 4)
        paint_chart(cells, ChartData("", lines=(lag, rate)), ChartView(), (0, 1), GLYPHS["braille"])
        assert rows(cells)[0] == top
    cells = Cells(20, 4)
    data = ChartData("KL old‖new (k3)", "KL old‖new", lines=(line_of([1], [0.0041]),))
    paint_chart(cells, data, ChartView(), (0, 1), GLYPHS["braille"])
    assert rows(cells)[0] == "╭ KL 0.0041 ───────╮"


@pytest.mark.parametrize(
    "text",
    ["\x1b[31mred", "a\nb", "\x9b31m", "\u202eevil", "a\u0301" * 3, "\ud800", "\u200d", "\x07", "\U000e0041", "\u2028"],
)
def test_hostile_text_becomes_one_printable_line(text: str):
    safe = clean(text)
    assert len(safe) == len(text)
    assert all(char.isprintable() for char in safe)
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in safe)


def test_the_y_range_is_a_function_of_the_data_and_moves_from_round_number_to_round_number():
    assert y_range(0.1, 0.9) == y_range(0.2, 0.8) == (0.0, 1.0)
    assert y_range(0.1, 1.3) == (0.0, 1.5)
    assert y_range(NAN, NAN) == (0.0, 1.0)
    assert y_range(0.30, 0.35)[1] - y_range(0.30, 0.35)[0] < 0.2
    random = np.random.default_rng(0)
    values = np.cumsum(random.normal(size=20_000))
    ranges = {y_range(values[:n].min(), values[:n].max()) for n in range(1, 20_000)}
    assert len(ranges) < 30, "a walk of 20,000 steps moves its axis a few times"


@pytest.mark.parametrize(
    "values",
    [
        [5e-324] * 20,
        [1e-310, 2e-310] * 10,
        [-8e307, 8e307] * 10,
        [8e307] * 20,
        [1e-300, 1e300] * 10,
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_what_is_hardly_a_number_is_drawn(values: list[float], log: bool):
    cells = Cells(60, 12)
    view = ChartView(log=log, weight=0.6, cursor=3)
    paint_chart(cells, ChartData("t", lines=(line_of(np.arange(20), values),)), view, (0, 19), GLYPHS["braille"])
    assert rows(cells)[0].startswith("╭ t ")
    assert inked(cells, Ink.CURSOR)


@pytest.mark.parametrize("end", [0.0, -1.0, NAN])
def test_a_log_axis_with_nothing_above_zero_in_view_is_drawn(end: float):
    values = [0.1] * 50 + [end] * 50
    view = ChartView(log=True).zoom(0.25, (0, 99))
    cells = Cells(60, 12)
    paint_chart(cells, ChartData("t", lines=(line_of(np.arange(100), values),)), view, (0, 99), GLYPHS["braille"])
    assert not inked(cells, Ink.LINE)
    assert " follow " in rows(cells)[-1]


def test_two_consoles_attached_at_different_times_see_the_same():
    values = [*([5.0] * 30), *(0.1 + 0.001 * i for i in range(100))]
    series = Series.from_arrays(np.arange(130), np.array(values))
    view = ChartView(x=XView("follow", width=20))
    early, late = Cells(60, 12), Cells(60, 12)
    for n in range(2, 130):
        points = Series.from_arrays(np.arange(n), np.array(values[:n])).points()
        early = Cells(60, 12)
        paint_chart(early, ChartData("m", lines=(Line(points),)), view, (0, n - 1), GLYPHS["braille"])
    points = Series.from_arrays(series.steps[:129], series.values[:129]).points()
    paint_chart(late, ChartData("m", lines=(Line(points),)), view, (0, 128), GLYPHS["braille"])
    assert early.changed(late) == []


def test_a_window_that_follows_does_not_flutter_at_each_move():
    random = np.random.default_rng(3)
    values = np.abs(random.normal(size=2000))
    view = ChartView(x=XView("follow", width=100))
    seen = []
    for n in range(200, 2000):
        points = Series.from_arrays(np.arange(n), values[:n]).points()
        cells = Cells(40, 10)
        paint_chart(cells, ChartData("m", lines=(Line(points),)), view, (0, n - 1), GLYPHS["braille"])
        seen.append((view.domain((0, n - 1))[0], rows(cells)[1][:6]))
    moves = len({start for start, _ in seen})
    changes = sum(one[1] != other[1] for one, other in pairwise(seen))
    within = sum(one[1] != other[1] and one[0] == other[0] for one, other in pairwise(seen))
    assert changes < moves, "of 1800 redraws only some change the axis"
    assert within < moves / 2


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-12, 1e12, 0.4])
@pytest.mark.parametrize("log", [False, True])
def test_a_flat_line_has_a_range(value: float, log: bool):
    low, high = y_range(value, value, log=log)
    assert low <= value <= high
    assert high > low


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.43, "0.43"),
        (0.4312, "0.431"),
        (1.0, "1"),
        (12.34, "12.3"),
        (812, "812"),
        (1900, "1.9k"),
        (10_000, "10k"),
        (99_960, "100k"),
        (1.2e6, "1.2M"),
        (3.4e9, "3.4G"),
        (1e15, "1e15"),
        (0.0043, "0.0043"),
        (4.3e-4, "4.3e-4"),
        (1e-6, "1e-6"),
        (-0.25, "-0.25"),
        (NAN, "NaN"),
        (math.inf, "Inf"),
        (-math.inf, "-Inf"),
    ],
)
def test_numbers_are_short(value: float, text: str):
    assert number(value) == text


def test_the_x_axis_grows_in_chunks():
    assert [nice_max(step) for step in (0, 9, 11, 74, 101, 9_999)] == [10, 10, 12, 80, 120, 10_000]
    for step in range(11, 5_000, 7):
        assert step <= nice_max(step) <= step * 4 / 3
    assert nice_step(1.0, 4) == 0.5


def test_zoom_pan_and_follow_stay_within_the_run():
    view = XView()
    assert view.domain(0, 74) == (0.0, 80.0)
    near = view.zoom(0.5, 0, 74)
    assert near.mode == "follow"
    low, high = near.domain(0, 74)
    assert high - low == 40
    assert low < 74 <= high
    assert near.domain(0, 75) == (low, high), "a chunk, not a crawl"
    assert near.zoom(2.0, 0, 74).mode == "all"
    panned = near.pan(-0.25, 0, 74)
    assert panned.domain(0, 74) == (low - 10, high - 10)
    for _ in range(20):
        panned = panned.pan(-0.25, 0, 74)
    assert panned.domain(0, 74) == (0.0, 40.0)
    for _ in range(20):
        panned = panned.pan(0.25, 0, 74)
    assert panned.domain(0, 74) == (40.0, 80.0)
    closest = view
    for _ in range(20):
        closest = closest.zoom(0.5, 0, 74)
    low, high = closest.domain(0, 74)
    assert 4 <= high - low <= 5
    assert view.follow(0, 1000).domain(0, 1000) == (750.0, 1000.0)


def test_panning_where_there_is_nothing_more_to_see_goes_on_growing_and_following():
    whole = XView()
    assert whole.pan(0.25, 0, 74) is whole
    assert whole.pan(-0.25, 0, 74) is whole
    near = whole.zoom(0.25, 0, 74)
    assert near.mode == "follow"
    assert near.pan(0.25, 0, 74) is near
    assert near.pan(-0.25, 0, 74).mode == "fixed"
    young = near.follow(0, 74)
    assert young.pan(-0.25, 0, 3) is young


def test_a_run_resumed_late_does_not_start_at_zero():
    low, high = XView().domain(5_000, 5_100)
    assert 4_900 <= low <= 5_000
    assert 5_100 <= high <= 5_200
