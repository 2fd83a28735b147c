"""Engines of several frameworks side by side, what differs between them, fixes that some have; and 256 of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from console.store.model import RunModel
from console.tui.dialogs.engine_diff import EngineDiffScreen
from console.tui.paint.glyphs import GLYPHS
from console.tui.present import engine_rows
from console.tui.present.engine_rows import Level
from console.tui.screens.engines.map import EngineMap
from console.tui.screens.engines.screen import EnginesScreen
from console.tui.screens.engines.table import EngineTable
from console.tui.screens.live.panes import EnginePanel, FixPanel
from driftline.text import natural
from tests.tui import engine_runs
from tests.tui.conftest import Running, make_app, press, screen_text, settle
from tests.tui.screen_compare import Compare
from tests.tui.synthetic import FakeSource

SIZES = [(80, 24), (120, 40)]
SCREENS: dict[str, tuple[Callable[[], FakeSource], tuple[str, ...]]] = {
    "off-live": (engine_runs.off_everywhere, ()),
    "unmeasured-live": (lambda: engine_runs.off_everywhere(mismatch=False), ()),
    "mixed-live": (engine_runs.mixed, ()),
    "mixed-fixes": (engine_runs.mixed, ("4",)),
    "mixed-engines": (engine_runs.mixed, ("6",)),
    "mixed-differences": (engine_runs.mixed, ("6", "d")),
    "many-live": (engine_runs.many, ()),
    "many-map": (engine_runs.many, ("6", "down", "right", "right", "right")),
    "many-table": (engine_runs.many, ("6", "m")),
    "many-differences": (engine_runs.many, ("6", "d")),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", SCREENS)
def test_screen(screen_compare: Compare, name: str, size: tuple[int, int]):
    source, keys = SCREENS[name]

    async def before(pilot):
        await settle(pilot)
        for key in keys:
            await press(pilot, key)

    assert screen_compare(make_app(source()), terminal_size=size, run_before=before)


def pane(pilot, kind):
    return pilot.app.screen.query_one(kind)


# -- first what costs most


async def test_what_is_off_and_costs_something_is_the_first_thing_that_is_read(running: Running):
    async with running(engine_runs.off_everywhere(), (120, 40)) as pilot:
        text = screen_text(pilot)
        assert "processed-logprobs is off on 8/8: mismatch .41 now; press F" in text
        panel = pane(pilot, FixPanel)
        assert [row.fix.id for row in panel.rows[:2]] == ["processed-logprobs", "prefix-cache-off"]
        await press(pilot, "F")
        assert type(pilot.app.screen).__name__ != "LiveScreen", "the key that is named asks for the switch"


async def test_a_price_that_has_not_been_measured_is_not_made_up(running: Running):
    async with running(engine_runs.off_everywhere(mismatch=False), (120, 40)) as pilot:
        assert "processed-logprobs off, not measured yet; press F" in screen_text(pilot)
    source = engine_runs.off_everywhere()
    source.operator = False
    async with running(source, (120, 40)) as pilot:
        text = screen_text(pilot)
        assert "mismatch .41 now" in text
        assert "press F" not in text, "a read-only console does not ask for an act"


async def test_the_chosen_fix_stays_chosen_when_the_order_changes(running: Running):
    source = engine_runs.off_everywhere()
    async with running(source, (120, 40)) as pilot:
        panel = pane(pilot, FixPanel)
        pilot.app.screen.set_focus(panel)
        await press(pilot, "down")
        assert panel.chosen == "prefix-cache-off"
        source.feed([engine_runs.fix("processed-logprobs", ["on"] * 8)])
        await settle(pilot)
        assert panel.rows[0].fix.id == "prefix-cache-off", "the first is not off any more"
        assert panel.chosen == "prefix-cache-off"


# -- partial fixes, differences


async def test_a_fix_that_some_engines_have_and_others_do_not_report_says_so(running: Running):
    async with running(engine_runs.mixed(), (120, 40)) as pilot:
        live = screen_text(pilot)
        assert "on 3/8" in live
        assert "unknown on 2" in live
        fixes = await press(pilot, "4")
        assert "on 3/8" in fixes
        assert "off on 3; unknown on 2" in fixes
        assert "3 of 8: engine-0 to engine-2 on" in " ".join(fixes.split())


async def test_what_differs_is_one_key_away_and_follows_the_run(running: Running):
    source = engine_runs.mixed()
    async with running(source, (120, 40)) as pilot:
        text = await press(pilot, "6", "d")
        assert isinstance(pilot.app.screen, EngineDiffScreen)
        assert "what differs between 8 engines" in text
        assert "3 of 8 processed_logprobs;  3 of 8 raw_logprobs;  2 of 8 not reported" in text
        assert "not reported by 2 of 8 (engine-6, engine-7)" in text
        source.feed([engine_runs.engine(8)], producer="engine-8")
        await settle(pilot)
        assert "what differs between 9 engines" in screen_text(pilot)
        await press(pilot, "down", "down", "up", "escape")
        assert isinstance(pilot.app.screen, EnginesScreen)


async def test_who_is_joined_and_how_stands_with_each_engine(running: Running):
    async with running(engine_runs.mixed(), (120, 40)) as pilot:
        text = await press(pilot, "6")
        assert "plugin verl 0.6.0" in text
        assert "plugin SkyRL 0.4.1" in text
        assert "joined by plugin in verl 0.6.0, key engine-* since 12:03:20" in text


# -- very many


async def test_many_engines_are_a_map_in_natural_order(running: Running):
    async with running(engine_runs.many(), (120, 40)) as pilot:
        await press(pilot, "6")
        chart = pane(pilot, EngineMap)
        names = [row.state.engine for row in chart.items]
        assert names == sorted(names, key=natural)
        assert names[2:4] == ["engine-2", "engine-3"]
        assert not pane(pilot, EngineTable).display
        text = await press(pilot, "down", "right", "right")
        assert chart.chosen is not None
        assert chart.chosen.state.engine == "engine-66", "a row of 64, then two to the right"
        assert "╭ engine-66" in text
        await press(pilot, "G")
        assert chart.chosen.state.engine == "engine-255"
        await press(pilot, "g", "left", "up", "pagedown")
        assert chart.chosen.state.engine == "engine-255"
        text = await press(pilot, "o")
        assert "the map is in the order of names" in text
        await press(pilot, "m")
        table = pane(pilot, EngineTable)
        assert table.display
        assert not chart.display
        assert table.chosen is not None
        assert table.chosen.state.engine == "engine-255", "the same engine is chosen"
        await press(pilot, "m")
        assert chart.display
        assert chart.chosen.state.engine == "engine-255"


async def test_an_engine_of_the_map_stays_chosen_when_others_come(running: Running):
    source = engine_runs.many(100)
    async with running(source, (120, 40)) as pilot:
        await press(pilot, "6", "right", "right")
        source.feed([engine_runs.engine(number, engine=f"a-{number}") for number in range(5)])
        await settle(pilot)
        chosen = pane(pilot, EngineMap).chosen
        assert chosen is not None
        assert chosen.state.engine == "engine-2"


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (200, 60)])
@pytest.mark.parametrize("marker", ["ascii", "braille"])
async def test_the_map_is_drawn_at_every_size(running: Running, size: tuple[int, int], marker: str):
    async with running(engine_runs.many(1000, 1), size, marker=marker) as pilot:
        text = await press(pilot, "6", "G", "enter", "up", "escape")
        assert [len(line) for line in text.split("\n")] == [size[0]] * size[1]
        if marker == "ascii":
            assert not set(text) & set("░█▓▒▪▁▂▃▄▅▆▇╭▸")


async def test_the_live_screen_has_the_worst_and_a_distribution(running: Running):
    async with running(engine_runs.many(), (120, 40)) as pilot:
        text = screen_text(pilot)
        assert "3 dead  3 silent  5 syncing" in text
        assert "tok/s " in text
        assert "median" in text
        assert "engine-13 v41 dead" in text
        rows = pane(pilot, EnginePanel).engines
        worst = engine_rows.worst(rows, 9)
        assert [row.level for row in worst] == sorted(row.level for row in worst)
        assert [row.state.engine for row in worst[:3]] == ["engine-13", "engine-110", "engine-207"]


def test_a_slow_engine_is_one_that_is_slow_beside_the_others():
    model = model_of(12)
    rows = {row.state.engine: row for row in engine_rows.by_name(model)}
    assert rows["engine-11"].level is Level.NOTABLE, "210 of some 900 tokens a second"
    assert "tok/s" in rows["engine-11"].why
    assert rows["engine-0"].level is Level.FINE


def test_histograms_say_what_they_are_of():
    rows = engine_rows.by_name(model_of(64))
    glyphs = GLYPHS["braille"]
    speed, lag, use = engine_rows.quantities(rows)
    line = "".join(text for text, _ in engine_rows.histogram_line(speed, 60, glyphs))
    assert line.strip().startswith("tok/s")
    assert "median" in line
    assert len(line) <= 60
    assert "median" in "".join(text for text, _ in engine_rows.histogram_line(lag, 60, glyphs))
    empty = engine_rows.Quantity("KV use", ())
    assert "not reported" in "".join(text for text, _ in engine_rows.histogram_line(empty, 60, glyphs))
    same = engine_rows.Quantity("KV use", (0.5, 0.5))
    assert "50% on all 2" in "".join(text for text, _ in engine_rows.histogram_line(same, 60, glyphs))
    assert use.values


# -- in bounded time


def model_of(count: int) -> RunModel:
    model = RunModel()
    for stamped in engine_runs.many(count).drain(100_000):
        model.apply(stamped)
    return model


def seconds(act: Callable[[], object], turns: int = 15) -> float:
    """The least of several turns: what else the machine does only ever adds."""
    act()
    gc.collect()
    found = []
    for _ in range(turns):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return min(found)


def test_the_rows_of_256_engines_cost_no_more_than_their_number():
    few, many = model_of(4), model_of(256)
    ratio = seconds(lambda: engine_rows.by_name(many)) / seconds(lambda: engine_rows.by_name(few))
    assert ratio < 4 * 64, "64 times as many"
