"""Every key of the screens sync, engines and events, pressed in a headless terminal; and what each state says."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widget import Widget

from console.connect.source import Link
from console.settings.keys import KEYS
from console.tui.app import ConsoleApp
from console.tui.paint.glyphs import GLYPHS
from console.tui.screens.engines.screen import EnginesScreen
from console.tui.screens.engines.table import EngineTable
from console.tui.screens.events.list import EventList
from console.tui.screens.events.screen import EventsScreen
from console.tui.screens.sync.panes import Gantt, SyncList
from console.tui.screens.sync.screen import SyncScreen
from console.tui.screens.sync.view import TIMES, PhaseRow, phase_lines
from console.tui.widgets.filter_line import FilterLine
from driftline.frames import Event, RunStatus
from driftline.rundir import create
from tests.tui.conftest import Running, press, screen_text, settle
from tests.tui.sync_runs import beats, failed, large, many, sync, synced
from tests.tui.synthetic import START, FakeSource, engines, run_state

Found = TypeVar("Found", bound=Widget)


def pane(pilot: Pilot[None], kind: type[Found]) -> Found:
    return pilot.app.screen.query_one(kind)


def number(pilot: Pilot[None]) -> int:
    chosen = pane(pilot, SyncList).chosen
    assert chosen is not None
    return chosen.number


# -- sync


async def test_sync_shows_all_of_a_sync(running: Running):
    async with running(synced(), (120, 40)) as pilot:
        text = await press(pilot, "3")
        for words in (
            "37 of 37, newest", "v36→37", "2/2", "111 ms", "64.0 MB each at 0.9 GB/s", "held 32 sequences",
            "640 tokens straddle", "cache freed by 2", "digests equal 00000025",
            "slowest engine-0 by 7.7 ms more than the median", "P░░░░", "C▒ cache reset", "median", "p99",
            "74 by engine over the run", "trainer v36", "v37 x1", "skew 1", "steps by mean lag, last 74", "+7.7 ms",
        ):  # fmt: skip
            assert words in text, words


async def test_sync_keys_choose_a_sync_and_follow_the_newest(running: Running):
    source = synced()
    async with running(source, (120, 40)) as pilot:
        await press(pilot, "3")
        assert number(pilot) == 37
        await press(pilot, "N", "N")
        assert number(pilot) == 35
        await press(pilot, "n")
        assert "sync-36, step 72" in screen_text(pilot)
        await press(pilot, "up", "k", "down")
        assert number(pilot) == 35
        source.feed(sync(38))
        await settle(pilot)
        assert number(pilot) == 35  # what is looked at stays
        assert "35 of 38" in screen_text(pilot)
        await press(pilot, "g")
        assert number(pilot) == 1
        await press(pilot, "pagedown")
        assert 1 < number(pilot) < 20
        await press(pilot, "pageup")
        assert number(pilot) == 1
        await press(pilot, "G")
        assert number(pilot) == 38
        source.feed(sync(39))
        await settle(pilot)
        assert number(pilot) == 39


async def test_a_failed_sync_says_why_in_words_and_is_found_again(running: Running):
    source = failed()
    source.feed([frame for n in range(22, 30) for frame in sync(n)])
    async with running(source, (80, 24)) as pilot:
        text = await press(pilot, "3", "x")
        assert number(pilot) == 21
        for words in ("! sync-21", "1/2", "FAILED", "DIFFER", "! engine-1 failed: the digest differs", "1 failed"):
            assert words in text, words
        assert "the digests" not in text
        text = await press(pilot, "G")
        assert "FAILED" not in text.split("phases")[0].split("sync-29, step")[1]


@pytest.mark.parametrize("width", [35, 47, 76])
def test_a_phase_is_there_whole_or_not_at_all(width: int):
    rows = [PhaseRow(phase, 0.0072, 0.0413, 12.3, []) for phase in TIMES]
    lines = phase_lines(rows, width, 4, GLYPHS["braille"])
    for line in lines:
        text = "".join(part for part, _ in line)
        assert len(text) <= width
        assert text.rstrip().endswith(("total", "7.2 ms", "41 ms", "12 s", "12.3 s")), text


async def test_no_sync_yet(running: Running):
    async with running(FakeSource()) as pilot:
        text = await press(pilot, "3", "x", "N", "n", "g", "G", "Y")
        assert "no weight sync yet; S starts one" in text
    async with running(FakeSource(operator=False)) as pilot:
        assert "no weight sync yet; an operator starts one with S" in await press(pilot, "3")
    source = FakeSource()
    source.feed([run_state(3, "failed")])
    async with running(source) as pilot:
        assert "the run has failed without a weight sync" in await press(pilot, "3")


async def test_a_sync_that_goes_on_is_said(running: Running):
    source = FakeSource()
    source.feed([run_state(3), *engines(2, phase="syncing")])
    async with running(source) as pilot:
        assert "syncing now: engine-0, engine-1" in await press(pilot, "3")
        source.feed(engines(2))
        asked = source.command("sync", {}, -1)
        source.ack(asked, "accepted")
        await settle(pilot)
        assert "sync asked for by operator ana: accepted" in screen_text(pilot)


async def test_old_and_coming_figures_are_said(running: Running):
    source = synced()
    source.state = Link(True, 8.0)
    async with running(source) as pilot:
        assert "37 of 37, OLD" in await press(pilot, "3")
        source.state = Link(True, 0.2, 9000)
        await settle(pilot)
        assert "37 of 37, loading" in screen_text(pilot)


async def test_64_engines_are_scrolled_worst_first(running: Running):
    async with running(large(), (80, 24)) as pilot:
        text = await press(pilot, "3", "tab")
        assert "engine-63" in text
        assert "64 worst first" in text
        chart = pane(pilot, Gantt)
        assert pilot.app.screen.focused is chart
        await press(pilot, *["down"] * 10)
        assert chart.cursor == 10
        await press(pilot, "pagedown")
        assert chart.cursor > 10
        text = await press(pilot, "enter")
        assert text.count("engine-") > 12
        await press(pilot, "escape", "pageup", "up")
        assert chart.cursor < 15


async def test_copying_goes_to_the_clipboard_and_to_a_file(running: Running, tmp_path: Path):
    run = create(tmp_path, "demo")
    async with running(synced(), (120, 40), run=run) as pilot:
        text = await press(pilot, "3", "Y")
        assert "sync-37 copied (OSC 52" in text
        copied = (run.snapshots / "copied.txt").read_text()
        assert copied.startswith("sync-37 step 74")
        assert "engine-0: pause 31 ms load" in copied
        assert (run.snapshots / "copied.txt").stat().st_mode & 0o077 == 0
        assert pilot.app.clipboard == copied.rstrip("\n")


# -- engines


async def test_engines_shows_every_figure_and_what_is_not_there(running: Running):
    async with running(synced(), (200, 60)) as pilot:
        text = await press(pilot, "6")
        for words in (
            "engine-0", "running", "v37", " 1 ", "█░░░░", "34%", "tok/s", "node-a", "100", "cpu", "0.32.0", "restarts",
            "GPU not available here: no GPU reported", "last sync v37", "prefix hit", "KV use", "the newest",
        ):  # fmt: skip
            assert words in text, words
        assert "GPU busy" not in text


async def test_engines_dead_first_and_sorted(running: Running):
    async with running(large(), (80, 24)) as pilot:
        text = await press(pilot, "6")
        table = pane(pilot, EngineTable)
        assert [row.state.engine for row in table.items[:4]] == ["engine-5", "engine-0", "engine-1", "engine-2"]
        assert "! engine-5" in text
        assert "killed by signal 9" in text
        rates = await press(pilot, "o")
        assert "order: tokens/s" in rates
        speeds = [row.state.tokens_per_s for row in table.items[1:]]
        assert speeds == sorted(speeds, reverse=True)
        await press(pilot, "r")
        speeds = [row.state.tokens_per_s for row in table.items[1:]]
        assert speeds == sorted(speeds)
        assert table.items[0].state.phase == "dead"
        await press(pilot, "r", "o")
        assert table.order == "KV use"
        await press(pilot, "o", "o")
        assert [row.behind for row in table.items[1:]] == sorted((row.behind for row in table.items[1:]), reverse=True)
        await press(pilot, "o")
        assert table.order == "name"


async def test_engines_keys_choose_an_engine_and_its_history(running: Running):
    async with running(large(), (120, 40)) as pilot:
        await press(pilot, "6", "G")
        table = pane(pilot, EngineTable)
        assert table.chosen is not None
        assert table.chosen.state.engine == "engine-63"
        assert "╭ engine-63" in screen_text(pilot)
        await press(pilot, "up", "k", "down", "pageup")
        assert 0 < table.cursor < 62
        text = await press(pilot, "g", "pagedown", "t")
        assert "the whole run" in text
        screen = pilot.app.screen
        assert isinstance(screen, EnginesScreen)
        assert screen.whole
        await press(pilot, "t", "Y")
        assert not screen.whole
        assert pilot.app.clipboard.startswith("engine-")


async def test_engines_have_a_map_and_say_what_differs(running: Running):
    """More of both: test_many_engines.py."""
    async with running(large(), (80, 24)) as pilot:
        await press(pilot, "6", "m")
        assert not pane(pilot, EngineTable).display
        await press(pilot, "m")
        assert pane(pilot, EngineTable).display
        assert "what differs between 63 engines" in await press(pilot, "d")


async def test_an_engine_that_fell_silent_is_said(running: Running):
    source = FakeSource()
    source.feed([run_state(3), *engines(3)])
    source.feed([run_state(4), engines(3)[0], engines(3)[2]], time=START + 60)
    async with running(source, (120, 40)) as pilot:
        text = await press(pilot, "6")
        table = pane(pilot, EngineTable)
        assert table.items[0].state.engine == "engine-1"
        assert "! engine-1 silent 60" in text.replace("60.0 s", "60")
        assert "silent for 60" in await press(pilot, "g")


@pytest.mark.parametrize("status", ["finished", "failed"])
async def test_engines_of_a_run_that_has_ended_are_ended_and_not_silent(running: Running, status: RunStatus):
    source = FakeSource()
    dead = msgspec.structs.replace(engines(3)[2], phase="dead", detail="killed by signal 9")
    source.feed([run_state(3), *engines(2), dead])
    # What is recorded after the end moves the hub's clock on, and no engine reports any more.
    source.feed([run_state(4, status), Event(START, "info", "mark", "over", 4)], time=START + 60)
    async with running(source, (120, 40)) as pilot:
        live = screen_text(pilot)
        assert "engine-0 v41 ended with the run" in live
        assert "3 engines ended" in live
        text = await press(pilot, "6")
        table = pane(pilot, EngineTable)
        assert [(row.state.engine, row.ended) for row in table.items] == [
            ("engine-2", False), ("engine-0", True), ("engine-1", True),
        ]  # fmt: skip
        assert "! engine-2" in text
        assert "killed by signal 9" in text
        detail = await press(pilot, "G")
        assert "ended with the run, running before" in detail
        assert "silent" not in text + detail
        assert "figures are old" not in text + detail
        source.feed([run_state(5), *engines(2)], time=START + 61)
        await settle(pilot)
        assert not any(row.ended for row in table.items), "resumed"


async def test_engines_before_any_has_reported(running: Running):
    source = FakeSource()
    source.feed([run_state(0, "starting", detail="engine-0: loading weights")])
    async with running(source) as pilot:
        text = await press(pilot, "6", "o", "r", "t", "g", "G", "Y")
        assert "engines are starting: engine-0: loading weights" in text


async def test_an_engine_stays_chosen_when_others_come(running: Running):
    source = FakeSource()
    source.feed([run_state(3), *many(4)])
    async with running(source, (120, 40)) as pilot:
        await press(pilot, "6", "down", "down")
        source.feed(many(40))
        await settle(pilot)
        chosen = pane(pilot, EngineTable).chosen
        assert chosen is not None
        assert chosen.state.engine == "engine-2"


# -- events


def happened() -> FakeSource:
    source = failed()
    asked = source.command("fix.set", {"fix": "processed-logprobs", "value": "on"}, 1)
    source.ack(asked, "accepted")
    source.ack(asked, "applied", "2/2 engines")
    return source


async def test_events_shows_everything_and_folds_syncs(running: Running):
    async with running(happened(), (120, 40)) as pilot:
        text = await press(pilot, "7")
        for words in (
            "20 weight syncs, the newest v20", "!! step 42", "sync.failed v21: engine-1: the digest differs",
            "fix.set processed-logprobs on, by operator ana", "command.applied", "engine.running engine-0 running",
            "times in UTC", "life of fix.set processed-logprobs on", "accepted", "2/2 engines", "run.start",
        ):  # fmt: skip
            assert words in text, words
        text = await press(pilot, "u")
        assert "20 weight syncs" not in text
        assert "sync.done v20 on 2 engines" in text
        assert "folded into one line" in await press(pilot, "u")


async def test_events_filter_is_tried_as_it_is_typed(running: Running):
    async with running(happened(), (80, 24)) as pilot:
        text = await press(pilot, "7", "slash", *["l", "v", "l", "equals_sign"])
        assert "unknown field 'lvl'; one of: level, kind, producer, step" in text
        line = pane(pilot, FilterLine)
        await press(pilot, "enter")
        assert line.is_open  # a wrong one is not kept
        text = await press(pilot, "ctrl+u", *"level", "greater_than_sign", "equals_sign", *"warn", "enter")
        assert not line.is_open
        assert "2 of 29, filter level>=warn" in text
        assert "sync.failed" in text
        assert "run.start" not in text
        # esc goes back to what was before, and once more takes the filter away.
        text = await press(pilot, "slash", "space", *"mismatch")
        assert "1 of 29" in text
        assert "2 of 29, filter level>=warn" in await press(pilot, "escape")
        assert "29, times in UTC" in await press(pilot, "escape")


async def test_letters_in_the_filter_are_no_keys(running: Running):
    source = happened()
    async with running(source, (80, 24)) as pilot:
        await press(pilot, "7", "slash", *"qFSPe1gGY", "question_mark", "left", "backspace", "home", "delete", "end")
        assert pane(pilot, FilterLine).text == "FSPe1gG?"
        assert isinstance(pilot.app.screen, EventsScreen)
        assert len(source.sent) == 1  # the one that it began with
        await press(pilot, "ctrl+w")
        assert pane(pilot, FilterLine).text == ""


async def test_events_follow_and_stay(running: Running):
    source = happened()
    async with running(source, (80, 24)) as pilot:
        await press(pilot, "7")
        rows = pane(pilot, EventList)
        source.feed([Event(START, "warn", "mark", "the newest")])
        await settle(pilot)
        assert rows.chosen is not None
        assert rows.chosen.last.text == "the newest"
        await press(pilot, "up", "k")
        held = rows.chosen
        source.feed([Event(START, "info", "mark", f"one more {n}") for n in range(30)])
        await settle(pilot)
        assert rows.chosen is held
        assert "32 newer below, G follows" in screen_text(pilot)
        await press(pilot, "G")
        assert "one more 29" in screen_text(pilot)
        await press(pilot, "g")
        assert rows.cursor == 0
        await press(pilot, "pagedown", "pageup", "down")
        assert rows.cursor == 1


async def test_an_event_is_opened_and_closed(running: Running):
    async with running(happened(), (80, 24)) as pilot:
        text = await press(pilot, "7", "enter")
        assert "life of fix.set processed-logprobs on, by operator ana" in text
        assert "run.start" in text
        text = await press(pilot, "enter")
        assert "run.start" not in text  # alone on the screen
        text = await press(pilot, "escape", "escape")
        assert "life of" not in text


async def test_rows_that_the_log_forgets_do_not_move_what_is_looked_at(running: Running):
    source = FakeSource()
    source.feed([Event(START, "info", "mark", f"event {n}") for n in range(10_500)])
    async with running(source, (80, 24)) as pilot:
        await press(pilot, "7", "pageup", "pageup")
        rows = pane(pilot, EventList)
        assert rows.chosen is not None
        held = rows.chosen.last.text
        source.feed([Event(START, "info", "mark", f"later {n}") for n in range(700)])
        await settle(pilot)
        assert rows.chosen.last.text == held
        assert len(rows.items) == 10_000


async def test_what_passes_the_filter_is_exported(running: Running, tmp_path: Path):
    run = create(tmp_path, "demo")
    async with running(happened(), (80, 24), run=run) as pilot:
        await press(pilot, "7", "slash", *"kind", "equals_sign", *"sync", "enter", "e")
        for _ in range(1000):
            if "exported to" in screen_text(pilot):
                break
            await asyncio.sleep(0.01)
            await settle(pilot)
        assert "21 events exported to" in screen_text(pilot)
    (path,) = run.snapshots.glob("events-*.ndjson")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 21  # folded ones are all there
    assert {row["kind"] for row in rows} == {"sync.done", "sync.failed"}
    assert json.loads(rows[0]["data"])["sync"] == "sync-1"
    meta = json.loads(path.with_name(path.name + ".meta.json").read_text())
    assert meta["driftline.filter"] == "kind=sync"


async def test_export_without_a_directory_is_a_sentence(running: Running):
    async with running(happened(), (120, 40)) as pilot:
        assert "not on this machine; in a shell here: driftline export" in await press(pilot, "7", "e")


async def test_a_hostile_event_is_copied_as_one_printable_line(running: Running, monkeypatch: pytest.MonkeyPatch):
    source = FakeSource()
    bad = "\x1b]52;c;cm0gLXJm\x07\x9b31m‮rm -rf /\r\n[red]x[/]"
    source.feed([Event(START, "info", "mark", bad, data={"n\x1b": bad})])
    async with running(source, (80, 24)) as pilot:
        written: list[str] = []
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        await press(pilot, "7", "enter")
        monkeypatch.setattr(app, "_driver", SimpleNamespace(write=written.append))
        app.screen.action_copy()
        monkeypatch.undo()
        (sent,) = written
        assert sent.startswith("\x1b]52;c;")
        assert sent.endswith("\x07")
        body = sent.removeprefix("\x1b]52;c;").removesuffix("\x07")
        text = base64.b64decode(body, validate=True).decode()
        assert text.isprintable()
        assert "rm -rf" in text


async def test_another_run_or_an_earlier_time_forgets(running: Running):
    async with running(happened(), (80, 24)) as pilot:
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        for tab, kind in (("3", SyncScreen), ("6", EnginesScreen), ("7", EventsScreen)):
            await press(pilot, tab, "g")
            screen = app.screen
            assert isinstance(screen, kind)
            screen.forget()
            await settle(pilot)
        assert "sync.failed" in screen_text(pilot)


@pytest.mark.parametrize("tab", ["3", "6", "7"])
@pytest.mark.parametrize(
    ("size", "marker"),
    [((60, 15), "braille"), ((200, 60), "block"), ((80, 24), "ascii")],
    ids=["60x15", "200x60", "ascii"],
)
async def test_every_size_and_marker_is_drawn(running: Running, tab: str, size: tuple[int, int], marker: str):
    async with running(large(), size, marker=marker) as pilot:
        text = await press(pilot, tab, "space", "down", "space", "tab", "shift+tab")
        assert [len(line) for line in text.split("\n")] == [size[0]] * size[1]
        if marker == "ascii":
            assert not set(text) & set("░█▓▒▪▁▂▃▄▅▆▇╭▸")


def test_every_key_of_these_screens_is_pressed_here():
    here = Path(__file__).read_text()
    for key in KEYS:
        if key.where in ("sync", "engines", "events"):
            assert any(f'"{name}"' in here for name in key.keys), key


@pytest.mark.parametrize("count", [2, 64])
async def test_live_feeds_go_through_all_screens(running: Running, count: int):
    source = FakeSource()
    async with running(source, (120, 40)) as pilot:
        for turn, tab in enumerate(("3", "6", "7", "1") * 2):
            source.feed([run_state(turn), *sync(turn + 1, count=count), *beats(3, count)])
            await press(pilot, tab)
        assert len(pilot.app.model.syncs.syncs) == 8  # type: ignore[attr-defined]
