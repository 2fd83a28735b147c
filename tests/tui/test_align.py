"""A: the whole way by keys, what is refused, how it goes on when its dialog is closed, and back again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from console.connect.source import Link
from console.tui.app import ConsoleApp
from console.tui.dialogs.align import AlignScreen
from console.tui.screens.base.run_screen import RunScreen
from tests.tui import diagnoses
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.synthetic import FakeSource, fix_state, metrics

FIXES = ("processed-logprobs", "prefix-cache-off", "fp32-lm-head")


def app_of(pilot: Pilot[None]) -> ConsoleApp:
    assert isinstance(pilot.app, ConsoleApp)
    return pilot.app


def dialog(pilot: Pilot[None]) -> AlignScreen:
    assert isinstance(pilot.app.screen, AlignScreen)
    return pilot.app.screen


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await pilot.pause(0.01)
            app_of(pilot).refresh_view()
    await settle(pilot)


def sent(source: FakeSource) -> list[str]:
    return [f"{args['fix']} {args['value']}" if verb == "fix.set" else verb for verb, args, _ in source.sent]


def young() -> FakeSource:
    """A run on vLLM's defaults whose head changes with a sync."""
    source = source_with(40, 10**9)
    source.feed([fix_state("fp32-lm-head", "off", ("off", "off"), "next_sync")])
    return source


async def obey(pilot: Pilot[None], source: FakeSource) -> None:
    """Answer every command as a trainer would: fixes of a sync with that sync."""
    answered = 0
    staged: list[tuple[str, str, str]] = []

    def carry_out(number: str, fix: str, value: str) -> None:
        how = "next_sync" if fix == "fp32-lm-head" else "live"
        source.feed([fix_state(fix, value, (value, value), how, version=20, step=40)])  # type: ignore[arg-type]
        source.ack(number, "applied", f"{value} on 2/2 engines")

    async with asyncio.timeout(30):
        while "sync" not in sent(source) or answered < len(source.sent):
            await pilot.pause(0.005)
            app_of(pilot).refresh_view()
            for place, (verb, args, _) in enumerate(source.sent[answered:], answered + 1):
                number = f"c{place}"
                if verb == "fix.set" and args["fix"] == "fp32-lm-head":
                    staged.append((number, args["fix"], args["value"]))
                elif verb == "fix.set":
                    carry_out(number, args["fix"], args["value"])
                else:
                    for one in staged if verb == "sync" else ():
                        carry_out(*one)
                    source.ack(number, "applied")
            answered = len(source.sent)
    await settle(pilot)


async def test_three_keys_bring_a_run_home_at_80x24(running: Running):
    source = young()
    async with running(source) as pilot:
        text = await press(pilot, "A")
        for words in ("align: 3 fixes, 1 sync", "off → on", "with the sync", "not known", "about 0.11 s", "▸  Cancel"):
            assert words in text, words
        assert source.sent == []
        await press(pilot, "right", "enter")
        await obey(pilot, source)
        assert sent(source) == ["mark", *(f"{fix} on" for fix in FIXES), "sync"]
        text = screen_text(pilot)
        assert text.count("applied") == 4
        assert "still counting" in text
        source.feed([metrics(step, fixed_from=40) for step in range(41, 60)])
        await until(pilot, lambda: "means of 10 steps before, 10 since" in screen_text(pilot))
        text = screen_text(pilot)
        assert "mismatch       .4" in text
        assert "still counting" not in text
        assert "u undo  esc close" in text


async def test_u_sets_it_back_after_it_was_asked(running: Running):
    source = young()
    async with running(source) as pilot:
        await press(pilot, "A", "right", "enter")
        assert "undo" not in screen_text(pilot), "not while commands are under way"
        await obey(pilot, source)
        source.sent.clear()
        text = await press(pilot, "u")
        assert "undo the alignment: 3 fixes, 1 sync" in text
        assert "on → off" in text
        assert source.sent == []
        await press(pilot, "escape")
        assert "there is no alignment" not in screen_text(pilot)


async def test_undo_by_the_command_line(running: Running):
    source = young()
    async with running(source) as pilot:
        text = await press(pilot, "colon", *"align", "space", *"undo", "enter")
        assert "no alignment to undo" in text
        await press(pilot, "colon", *"align", "enter", "right", "enter")
        await obey(pilot, source)
        await press(pilot, "escape")
        text = await press(pilot, "colon", *"align", "space", *"undo", "enter")
        assert "undo the alignment: 3 fixes, 1 sync" in text


async def test_it_goes_on_when_its_dialog_is_closed_and_says_how_it_ended(running: Running):
    source = young()
    async with running(source) as pilot:
        await press(pilot, "A", "right", "enter", "escape")
        assert isinstance(pilot.app.screen, RunScreen)
        assert "an alignment of this run is under way" in (await press(pilot, "A")).splitlines()[-1]
        await obey(pilot, source)
        source.feed([metrics(step, fixed_from=40) for step in range(41, 60)])
        await until(pilot, lambda: "align: 3 fixes, 1 sync: mismatch" in screen_text(pilot).splitlines()[-1])


async def test_a_command_that_fails_ends_it(running: Running):
    source = young()
    async with running(source) as pilot:
        await press(pilot, "A", "right", "enter")
        await until(pilot, lambda: len(source.sent) == 2)
        source.ack("c2", "failed", "engine-1 died")
        await until(pilot, lambda: dialog(pilot).course is not None and bool(dialog(pilot).course.error))  # type: ignore[union-attr]
        assert "processed-logprobs on: failed: engine-1 died" in screen_text(pilot)
        assert sent(source) == ["mark", "processed-logprobs on"]


async def test_a_hub_that_refuses_says_why(running: Running):
    source = young()
    source.refuse = "the hub refused: role viewer"
    async with running(source) as pilot:
        await press(pilot, "A", "right", "enter")
        await until(pilot, lambda: "the hub refused: role viewer" in screen_text(pilot))


@pytest.mark.parametrize("keys", [("enter",), ("escape",), ("right", "left", "enter"), ("right", "escape"), ("u",)])
async def test_the_focus_is_on_cancel_and_nothing_else_sends(running: Running, keys: tuple[str, ...]):
    source = young()
    async with running(source) as pilot:
        await press(pilot, "A", *keys)
        assert source.sent == []


async def test_a_read_only_console_and_a_stale_one_refuse(running: Running):
    source = source_with(operator=False)
    async with running(source) as pilot:
        assert "--operate" in (await press(pilot, "A")).splitlines()[-1]
    source = source_with()
    source.state = Link(True, 9.0)
    async with running(source) as pilot:
        assert "refused: the feed is" in (await press(pilot, "A")).splitlines()[-1]


async def test_a_feed_gone_stale_while_the_dialog_was_open_sends_nothing(running: Running):
    source = young()
    async with running(source) as pilot:
        await press(pilot, "A", "right")
        source.state = Link(True, 9.0)
        assert "refused: the feed is 9 s old" in await press(pilot, "enter")
        assert source.sent == []


async def test_another_sessions_lease_is_taken_over_when_asked(running: Running):
    source = young()
    source.hold("bo@there:9")
    async with running(source) as pilot:
        text = await press(pilot, "A")
        assert "take over and align" in text
        await press(pilot, "right", "enter")
        await obey(pilot, source)
        assert source.taken == ["bo@there:9"]


async def test_what_a_diagnosis_asks_for_is_set_and_no_more(running: Running):
    source = young()
    async with running(source) as pilot:
        app_of(pilot).showing.diagnosing.found = diagnoses.cause()
        text = await press(pilot, "A")
        assert "align: 1 fix" in text
        assert "−.18 (.17 to .2)" in text
        assert "prefix-cache-off" not in text
        await press(pilot, "escape")
        app_of(pilot).showing.diagnosing.found = diagnoses.healthy()
        text = await press(pilot, "A")
        assert "align: nothing to do" in text
        assert "nothing wrong beyond the numeric floor" in text
        app_of(pilot).showing.diagnosing.found = diagnoses.one_engine()
        text = await press(pilot, "escape", "A")
        assert "align: 1 sync" in text
        await press(pilot, "escape")
        app_of(pilot).showing.diagnosing.found = diagnoses.setting()
        text = await press(pilot, "A")
        assert "set top_p to 1" in text


async def test_space_leaves_a_row_out_and_what_is_expected_follows(running: Running):
    source = young()
    async with running(source) as pilot:
        app_of(pilot).showing.diagnosing.found = diagnoses.two_causes()
        text = await press(pilot, "A")
        assert "together −.18" in text
        text = await press(pilot, "down", "down", "space")
        assert "○ prefix-cache-off     off → on left out" in text
        assert "together −.15" in text
        text = await press(pilot, "space")
        assert "● prefix-cache-off" in text
        await press(pilot, "up", "space", "down", "space")
        text = screen_text(pilot)
        assert "all of it is left out" in text
        await press(pilot, "right", "enter")
        assert source.sent == []
        await press(pilot, "A", "down", "space", "right", "enter")
        await until(pilot, lambda: len(source.sent) == 2)
        assert sent(source) == ["mark", "prefix-cache-off on"]


async def test_the_sync_can_be_left_out_too(running: Running):
    source = young()
    async with running(source) as pilot:
        text = await press(pilot, "A", *["down"] * 4, "space")
        assert "○ sync weights" in text
        assert "align: 3 fixes " in text
        assert "with the next" in text
