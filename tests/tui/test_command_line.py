"""The command line, the palette, several runs, looks and own keys, pressed in a headless terminal."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual.events import Key
from textual.pilot import Pilot

from console.connect.source import Link
from console.tui.app import ConsoleApp
from console.tui.command.history import History
from console.tui.dialogs.confirm import ConfirmScreen
from console.tui.dialogs.help import HelpScreen
from console.tui.dialogs.palette import Palette
from console.tui.dialogs.runs import RunsScreen
from console.tui.paint.theme import palette
from console.tui.screens.base.command_line import CommandLine
from console.tui.widgets.filter_line import FilterLine
from driftline.rundir import create
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.synthetic import FakeSource, history, run_state

KEYS = {" ": "space", "-": "minus", ".": "full_stop", ":": "colon", "|": "vertical_line"}


def app_of(pilot: Pilot[None]) -> ConsoleApp:
    assert isinstance(pilot.app, ConsoleApp)
    return pilot.app


def line_of(pilot: Pilot[None]) -> CommandLine:
    return app_of(pilot).current.query_one(CommandLine)


async def typed(pilot: Pilot[None], text: str, *after: str) -> str:
    return await press(pilot, *(KEYS.get(char, char) for char in text), *after)


def second() -> FakeSource:
    source = FakeSource(run="other-1")
    source.feed([*history(60)[:-3], run_state(60, run="other-1"), *history(60)[-2:]])
    return source


async def watched(pilot: Pilot[None]) -> None:
    """Wait until every run that is watched has been taken in."""
    for watch in app_of(pilot).watches:
        source = watch.source
        assert isinstance(source, FakeSource)
        async with asyncio.timeout(20):
            while watch.model.head < source.head:
                await pilot.pause(0.01)


async def burst(pilot: Pilot[None], text: str) -> None:
    """Keys that come at once, as a slow link hands them over: nothing is processed in between."""
    driver = pilot.app._driver
    assert driver is not None
    for char in text:
        event = Key({"\r": "enter", ":": "colon", "/": "slash", " ": "space"}.get(char, char), char)
        event.set_sender(pilot.app)
        driver.send_message(event)
    await settle(pilot)


async def test_a_line_that_comes_at_once_is_typed_and_not_taken_for_keys(running: Running):
    source = source_with()
    async with running(source) as pilot:
        await burst(pilot, ":mark See Parity xq7")
        assert not isinstance(pilot.app.screen, ConfirmScreen)
        assert line_of(pilot).line.text == "mark See Parity xq7"
        await burst(pilot, "\r")
        assert [sent[:2] for sent in source.sent] == [("mark", {"text": "See Parity xq7"})]
        await press(pilot, "7")
        await burst(pilot, "/S 4 q")
        assert app_of(pilot).current.query_one(FilterLine).text == "S 4 q"


async def test_a_long_hint_does_not_push_what_was_typed_out_of_sight(running: Running):
    async with running(source_with()) as pilot:
        last = (await typed(pilot, ":fix  processed-logprobs")).splitlines()[-1]
        assert last.startswith(":fix  processed-logprobs  off | on"), last


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_line_takes_the_place_of_the_footer_and_gives_it_back(running: Running, size: tuple[int, int]):
    async with running(source_with(), size) as pilot:
        before = screen_text(pilot).splitlines()
        focused = pilot.app.focused
        text = await typed(pilot, ":q")
        assert text.splitlines()[-1].startswith(":q  quit")
        assert text.splitlines()[:-2] == before[:-2], "the screen stays"
        assert (await press(pilot, "escape")).splitlines()[-1] == before[-1]
        assert pilot.app.focused is focused
        await typed(pilot, ":", "backspace")
        assert not line_of(pilot).is_open


async def test_the_screen_goes_on_under_the_line(running: Running):
    source = source_with()
    async with running(source) as pilot:
        await typed(pilot, ":th")
        source.feed([run_state(88)])
        await settle(pilot)
        assert "step 88/90" in screen_text(pilot)


async def test_a_fix_by_name_asks_first(running: Running):
    source = source_with(fixed_from=10**9)
    async with running(source) as pilot:
        await typed(pilot, ":fix proc", "tab")
        assert line_of(pilot).line.text == "fix processed-logprobs "
        await typed(pilot, "o", "tab")
        assert line_of(pilot).line.text == "fix processed-logprobs off", "two begin with o: the first, then the next"
        await press(pilot, "tab")
        assert line_of(pilot).line.text == "fix processed-logprobs on"
        text = await press(pilot, "enter")
        assert isinstance(pilot.app.screen, ConfirmScreen)
        assert "set processed-logprobs to on" in text
        assert source.sent == []
        await press(pilot, "right", "enter")
        async with asyncio.timeout(20):
            while not source.sent:
                await pilot.pause(0.01)
        assert source.sent[0][:2] == ("fix.set", {"fix": "processed-logprobs", "value": "on"})


@pytest.mark.parametrize("command", ["sync", "pause", "stop", "fix processed-logprobs on"])
async def test_nothing_acts_without_a_confirmation(running: Running, command: str):
    source = source_with(fixed_from=10**9)
    async with running(source) as pilot:
        await typed(pilot, f":{command}", "enter")
        assert isinstance(pilot.app.screen, ConfirmScreen)
        await press(pilot, "enter")  # Cancel has the focus
        assert source.sent == []


@pytest.mark.parametrize("command", ["sync", "pause", "stop", "fix processed-logprobs on", "mark hello"])
async def test_a_read_only_console_does_nothing(running: Running, command: str):
    source = source_with(operator=False)
    async with running(source, (120, 40)) as pilot:
        assert "read-only" in await typed(pilot, f":{command}", "enter")
        assert source.sent == []


async def test_a_mark_is_sent_and_said(running: Running):
    source = source_with()
    async with running(source) as pilot:
        await typed(pilot, ":mark lr halved", "enter")
        async with asyncio.timeout(20):
            while "marked: lr halved" not in screen_text(pilot):
                await pilot.pause(0.01)
        assert source.sent == [("mark", {"text": "lr halved"}, -1)]


async def test_a_wrong_line_stays_and_says_why(running: Running):
    async with running(source_with()) as pilot:
        text = await typed(pilot, ":goto 5000", "enter")
        assert "step 5000 has not been; the newest is 74" in text
        assert line_of(pilot).is_open
        assert "has not been" not in await press(pilot, "backspace")


async def test_goto_puts_the_crosshair_on_the_step(running: Running):
    async with running(source_with(), (120, 40)) as pilot:
        text = await typed(pilot, ":goto 45", "enter")
        assert app_of(pilot).live.view.cursor == 45
        assert "step 45" in text


async def test_history_is_walked_with_up_and_down(running: Running, tmp_path: Path):
    async with running(source_with(), history=History(tmp_path / "history")) as pilot:
        await typed(pilot, ":goto 12", "enter")
        await typed(pilot, ":goto 13", "enter")
        await typed(pilot, ":got", "up", "up")
        assert line_of(pilot).line.text == "goto 12"
        await press(pilot, "down", "down")
        assert line_of(pilot).line.text == "got"
    assert (tmp_path / "history").read_text() == "goto 12\ngoto 13\n"


async def test_export_takes_table_format_and_steps(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[tuple[str, str, object]] = []
    monkeypatch.setattr(
        "console.export.export", lambda run, out, table, steps: written.append((out.name, table, steps))
    )
    async with running(source_with(), run=create(tmp_path, "demo")) as pilot:
        await typed(pilot, ":export csv events steps 3..9", "enter")
        async with asyncio.timeout(20):
            while not written:
                await pilot.pause(0.01)
    assert written == [("events-step3-9.csv", "events", (3, 9))]


async def test_a_theme_is_changed_at_once_everywhere(running: Running):
    async with running(source_with()) as pilot:
        for name in ("light", "okabe-ito", "mono", "contrast", "dark-16", "auto"):
            text = await typed(pilot, f":theme {name}", "enter")
            app = app_of(pilot)
            assert f"theme {app.look.name}" in text
            strip = app.screen._compositor.render_strips()[0]
            used = {segment.style.color for segment in strip if segment.style is not None and segment.text.strip()}
            assert used <= {style.color for style in palette(app.look.name) if style is not None}, name


async def test_a_theme_that_the_terminal_cannot_show_has_a_stand_in(running: Running):
    async with running(source_with(), (120, 40), sixteen=True) as pilot:
        assert "theme light-16" in await typed(pilot, ":theme light", "enter")


async def test_the_marker_is_changed_at_once(running: Running):
    async with running(source_with()) as pilot:
        assert "╭" in screen_text(pilot)
        text = await typed(pilot, ":marker ascii", "enter")
        assert text.isascii() or not set("╭╮╰╯│─⠤⡀●○") & set(text)
        assert "╭" in await typed(pilot, ":marker braille", "enter")


async def test_the_palette_runs_what_needs_nothing_more(running: Running):
    async with running(source_with()) as pilot:
        text = await press(pilot, "ctrl+p")
        assert isinstance(pilot.app.screen, Palette)
        assert ":goto STEP" in await typed(pilot, "step view")
        await press(pilot, "enter")
        assert line_of(pilot).line.text == "goto "
        await press(pilot, "escape", "ctrl+p")
        text = await typed(pilot, "smoothing")
        assert "smoothing: off" in text
        await press(pilot, "enter")
        assert app_of(pilot).live.view.weight == 0.6
        await press(pilot, "ctrl+p")
        await typed(pilot, ":sync", "enter")
        assert isinstance(pilot.app.screen, ConfirmScreen)


async def test_the_palette_says_when_nothing_fits_and_q_is_a_letter(running: Running):
    async with running(source_with()) as pilot:
        await press(pilot, "ctrl+p")
        assert "nothing fits" in await typed(pilot, "qqqq", "enter")
        assert isinstance(pilot.app.screen, Palette)
        await press(pilot, "escape")
        assert app_of(pilot).current.is_current


async def test_runs_are_listed_switched_and_overlaid(running: Running):
    other = second()
    async with running(source_with(), (120, 40), more=[(other, None)]) as pilot:
        await watched(pilot)
        text = await press(pilot, "w")
        assert isinstance(pilot.app.screen, RunsScreen)
        assert "demo-7f3a" in text
        assert "60/90" in text
        text = await press(pilot, "down", "o", "escape")
        assert text.count("-- other-1") == 6, "named in every chart that has the metric"
        assert "-- other-1" not in await press(pilot, "o"), "the next one is none"
        await press(pilot, "o")
        assert app_of(pilot).overlay is app_of(pilot).watches[1]
        text = await typed(pilot, ":run oth", "enter")
        assert "other-1  step 60" in text
        assert app_of(pilot).overlay is None, "a run is not drawn over itself"
        await typed(pilot, ":overlay demo", "enter")
        assert "-- demo-7f3a" in await typed(pilot, ":unused", "escape")
        await typed(pilot, ":overlay off", "enter")
        assert app_of(pilot).overlay is None


async def test_an_overlay_is_aligned_by_the_unit_and_smoothed_alike(running: Running):
    async with running(source_with(), (120, 40), more=[(second(), None)]) as pilot:
        await watched(pilot)
        await press(pilot, "o", "s")
        for unit in ("time", "tokens", "step"):
            text = await press(pilot, "x")
            assert app_of(pilot).live.view.ruler.unit == unit
            assert text.count("-- o") == 6, "named in every chart, shortened where there is little room"


async def test_acting_goes_to_the_run_on_show_and_names_it(running: Running):
    first, other = source_with(), second()
    async with running(first, (120, 40), more=[(other, None)]) as pilot:
        await watched(pilot)
        await typed(pilot, ":run other-1", "enter")
        assert "run other-1: 2 engines" in await press(pilot, "S")
        await press(pilot, "right", "enter")
        async with asyncio.timeout(20):
            while not other.sent:
                await pilot.pause(0.01)
        assert first.sent == []


async def test_a_lost_run_does_not_disturb_the_others(running: Running):
    first, other = source_with(), second()
    async with running(first, (120, 40), more=[(other, None)]) as pilot:
        await watched(pilot)
        other.state = Link(True, 90.0)
        await press(pilot, "o")
        assert "LIVE" in screen_text(pilot).splitlines()[0]
        assert "LOST 90s" in await press(pilot, "w")
        first.feed([run_state(81)])
        assert "step 81/90" in await press(pilot, "escape")


async def test_alone_a_run_has_nothing_to_overlay(running: Running):
    async with running(source_with(), (120, 40)) as pilot:
        assert "no other run is watched" in await press(pilot, "o")
        assert "driftline attach RUN RUN" in await press(pilot, "w")


async def test_own_keys_move_dispatch_footer_and_help(running: Running):
    async with running(source_with(), (200, 60), keys={"live.follow": "F5", "screens.sync": "F9"}) as pilot:
        text = screen_text(pilot)
        assert "F5 follow" in text
        assert "F9 sync" in text
        await press(pilot, "f")
        assert app_of(pilot).live.view.x.mode == "all", "the old key does nothing any more"
        await press(pilot, "f5")
        assert app_of(pilot).live.view.x.mode == "follow"
        text = await press(pilot, "question_mark")
        assert isinstance(pilot.app.screen, HelpScreen)
        assert "F5         follow the newest steps" in text
        await press(pilot, "escape", "f9")
        assert isinstance(pilot.app.screen, ConfirmScreen)


async def test_a_tiny_terminal_has_no_command_line(running: Running):
    async with running(source_with(), (80, 24)) as pilot:
        await typed(pilot, ":th")
        await pilot.resize_terminal(20, 5)
        await settle(pilot)
        assert not line_of(pilot).is_open
        await press(pilot, "colon")
        assert not line_of(pilot).is_open


@pytest.mark.parametrize("hostile", ["[red]x[/red]", "\x1b]52;c;AAAA\x07", "‮evil", "\ud800", "[@click=app.exit]x[/]"])
async def test_what_is_pasted_is_text(running: Running, hostile: str):
    async with running(source_with()) as pilot:
        await press(pilot, "colon")
        line_of(pilot)._edit(line_of(pilot).line.insert(hostile))
        text = await press(pilot, "enter")
        assert "no command" in text
        assert not set("\x1b\x07‮\ud800") & set(text)
