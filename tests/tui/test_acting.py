"""Acting on the run: what is refused, what is asked, what is sent, and how a command's life is shown."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from console.connect.source import Link
from console.tui.app import ConsoleApp
from console.tui.dialogs.confirm import ConfirmScreen
from console.tui.dialogs.list_dialog import ListDialog
from console.tui.paint.theme import Ink
from console.tui.screens.base.bars import FooterBar, HeaderBar
from console.tui.screens.live.panes import FixPanel
from console.tui.screens.live.screen import LiveScreen
from driftline.catalog.fixes import FIXES
from driftline.frames import Effect, EngineFix, FixState, Measure, RunStatus
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.synthetic import START, FakeSource, fix_state, run_state


@pytest.mark.parametrize("key", ["F", "A", "S", "P"])
async def test_a_read_only_console_refuses_and_says_how(running: Running, key: str):
    source = source_with(operator=False)
    async with running(source) as pilot:
        text = await press(pilot, key)
        assert "RO" in text.splitlines()[0]
        assert "--operate" in text.splitlines()[-1]
        assert isinstance(pilot.app.screen, LiveScreen)
        assert source.sent == []


@pytest.mark.parametrize("key", ["F", "A", "S", "P"])
@pytest.mark.parametrize("age", [3.5, 100.0])
async def test_a_stale_console_refuses(running: Running, key: str, age: float):
    source = source_with()
    source.state = Link(True, age)
    async with running(source) as pilot:
        text = await press(pilot, key)
        assert "refused: the feed is" in text.splitlines()[-1]
        assert isinstance(pilot.app.screen, LiveScreen)


async def test_a_feed_gone_stale_while_the_dialog_was_open_sends_nothing(running: Running):
    source = source_with()
    async with running(source) as pilot:
        await press(pilot, "S", "right")
        source.state = Link(True, 9.0)
        text = await press(pilot, "enter")
        assert "refused: the feed is 9 s old" in text
        assert source.sent == []


async def test_the_screen_under_a_dialog_says_when_the_feed_is_lost_and_when_it_is_back(running: Running):
    source = source_with()
    async with running(source) as pilot:
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        header = app.current.query_one(HeaderBar)
        await press(pilot, "S")
        assert isinstance(app.screen, ConfirmScreen)
        for age, word in ((9.0, "STALE 9s"), (40.0, "LOST 40s"), (0.1, "LIVE 0.1s")):
            source.state = Link(True, age)
            app.refresh_view()
            await settle(pilot)
            assert word in header.render_line(0).text
        assert isinstance(app.screen, ConfirmScreen)


@pytest.mark.parametrize(
    ("operator", "status", "state", "bright"),
    [
        (True, "running", Link(True, 0.3), True),
        (False, "running", Link(True, 0.3), False),
        (True, "finished", Link(True, 0.3), False),
        (True, "running", Link(True, 9.0), False),
    ],
)
async def test_keys_that_would_be_refused_are_dim(
    running: Running, operator: bool, status: RunStatus, state: Link, bright: bool
):
    source = source_with(20, 10**9, operator=operator)
    source.feed([run_state(20, status)])
    source.state = state
    async with running(source) as pilot:
        footer = pilot.app.screen.query_one(FooterBar)
        cells = footer._cells
        assert cells is not None
        ink = cells.inks[0, "".join(map(chr, cells.chars[0])).index("F fix")]
        assert (ink == Ink.WARN) == bright
        if not bright:
            words = (await press(pilot, "S")).splitlines()[-1]
            assert "refused: " in words or "read-only: " in words


@pytest.mark.parametrize(
    ("key", "word"), [("2", "nN worst"), ("5", "v parity"), ("6", "o order"), ("7", "/ filter"), ("4", "F fix")]
)
async def test_a_small_footer_has_the_keys_that_its_screen_is_for(running: Running, key: str, word: str):
    async with running(source_with(20, 10**9)) as pilot:
        footer = (await press(pilot, key)).splitlines()[-1]
        assert word in footer
        assert "? help" in footer


async def test_a_fix_is_chosen_confirmed_sent_and_followed_to_its_end(running: Running):
    source = source_with(20, 10**9)
    async with running(source) as pilot:
        text = await press(pilot, "F")
        assert isinstance(pilot.app.screen, ListDialog)
        assert pilot.app.screen.heading == "which fix"
        assert "which fix" in text
        text = await press(pilot, "down", "enter")
        assert isinstance(pilot.app.screen, ListDialog)
        assert pilot.app.screen.heading.endswith(": which value")
        for words in ("prefix cache off: which value", "● off", "removed  engines are rebuilt", "within a step"):
            assert words in text, words
        text = await press(pilot, "enter")
        assert isinstance(pilot.app.screen, ConfirmScreen)
        for words in ("set prefix-cache-off to on", "prefix cache off, on 2 engines", "now      off", "▸  Cancel"):
            assert words in text, words
        text = await press(pilot, "right", "enter")
        assert source.sent == [("fix.set", {"fix": "prefix-cache-off", "value": "on"}, 0)]
        assert "queued → sent → accepted → applied" in text
        source.ack("c1", "accepted")
        await settle(pilot)
        dialog = pilot.app.screen
        assert isinstance(dialog, ConfirmScreen)
        assert not dialog.over
        assert "the command goes on" in screen_text(pilot)
        source.feed([fix_state("prefix-cache-off", "on", ("on", "off"), version=10)])
        await settle(pilot)
        assert "○ prefix cache off" in screen_text(pilot) or "◐" not in screen_text(pilot)
        source.feed([fix_state("prefix-cache-off", "on", ("on", "on"), version=10)])
        source.ack("c1", "applied", "on 2/2 engines")
        await settle(pilot)
        assert dialog.over
        assert "on 2/2 engines" in screen_text(pilot)
        text = await press(pilot, "escape")
        assert isinstance(pilot.app.screen, LiveScreen)
        assert "● prefix cache off     on 2/2" in text


@pytest.mark.parametrize(
    ("state", "detail"), [("failed", "engine-1 died"), ("refused", "generation 3"), ("expired", "")]
)
async def test_a_command_that_ends_badly_says_so(running: Running, state: str, detail: str):
    source = source_with()
    async with running(source) as pilot:
        await press(pilot, "S", "right", "enter")
        source.ack("c1", "accepted")
        source.ack("c1", state, detail)  # type: ignore[arg-type]
        await settle(pilot)
        text = screen_text(pilot)
        assert f"→ {state}" in text
        assert detail in text


async def test_a_command_the_hub_does_not_take_says_why(running: Running):
    source = source_with()
    source.refuse = "the hub refused: role viewer"
    async with running(source) as pilot:
        await press(pilot, "S", "right", "enter")
        async with asyncio.timeout(10):
            while "the hub refused: role viewer" not in screen_text(pilot):
                await pilot.pause(0.02)


@pytest.mark.parametrize("keys", [("enter",), ("escape",), ("q",), ("right", "left", "enter"), ("right", "escape")])
async def test_the_focus_is_on_cancel_and_nothing_else_sends(running: Running, keys: tuple[str, ...]):
    source = source_with()
    async with running(source) as pilot:
        await press(pilot, "S")
        await pilot.press(*keys)
        await pilot.pause()
        assert source.sent == []


async def test_sync_and_pause_say_what_they_cost(running: Running):
    source = source_with()
    async with running(source) as pilot:
        text = await press(pilot, "S")
        assert "trainer v36, engines v40, v41" in text
        assert "about 0.11 s each" in text
        await press(pilot, "escape")
        text = await press(pilot, "P")
        assert "pause generation" in text
        assert "tokens/s" in text
        await press(pilot, "right", "enter", "escape")
        source.feed([run_state(74, "paused", paused_by="operator ana")])
        await settle(pilot)
        assert "PAUSED by operator ana" in screen_text(pilot)
        assert "resume generation" in await press(pilot, "P")
        await press(pilot, "right", "enter")
        assert [verb for verb, _, _ in source.sent] == ["pause", "resume"]


async def test_a_fix_that_is_not_available_is_not_offered(running: Running):
    source = source_with()
    async with running(source) as pilot:
        text = await press(pilot, "F", "down", "down", "enter")
        assert "async scheduling off is not available here: not available on cpu" in text
        assert isinstance(pilot.app.screen, LiveScreen)


async def test_with_the_cursor_in_the_fix_panel_no_choice_is_asked(running: Running):
    source = source_with()
    async with running(source) as pilot:
        pilot.app.set_focus(pilot.app.screen.query_one(FixPanel))
        text = await press(pilot, "F")
        assert isinstance(pilot.app.screen, ConfirmScreen)
        assert "set processed-logprobs to off" in text
        await press(pilot, "escape")
        await press(pilot, "down", "F")
        assert isinstance(pilot.app.screen, ListDialog)
        assert pilot.app.screen.heading.endswith(": which value")
        text = await press(pilot, "enter")
        assert "set prefix-cache-off to off" in text


@pytest.mark.parametrize(
    ("fix", "requested", "how", "keys", "value", "cost"),
    [
        ("prefix-cache-off", "off", "live", ("down",), "removed", "rolling restart: one engine after"),
        ("prefix-cache-off", "removed", "engine_restart", (), "off", "rolling restart: one engine after"),
        ("prefix-cache-off", "on", "live", (), "off", "within a step"),
        ("inflight-keep", "on", "next_sync", ("down", "down"), "wait", "with the next weight sync"),
    ],
)
async def test_a_fix_of_three_values_offers_each_with_its_price(
    running: Running, fix: str, requested: str, how: str, keys: tuple[str, ...], value: str, cost: str
):
    source = source_with()
    source.feed([fix_state(fix, requested, (requested, requested), how, 5)])  # type: ignore[arg-type]
    async with running(source) as pilot:
        downs = ["down"] * [f.id for f in FIXES].index(fix)
        text = await press(pilot, "F", *downs, "enter", *keys)
        assert cost in text
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, ConfirmScreen)
        await press(pilot, *pilot.app.screen.plan.word, "right", "enter")
        assert (cost[:7] == "rolling") == (pilot.app.screen.plan.word == "restart")
        assert source.sent == [("fix.set", {"fix": fix, "value": value}, 1)]


async def test_the_wanted_value_is_not_sent_again(running: Running):
    source = source_with()
    async with running(source) as pilot:
        text = await press(pilot, "F", "down", "enter", "down")
        assert "wanted now" in text
        text = await press(pilot, "enter")
        assert "prefix cache off is wanted on already" in text
        assert source.sent == []


def states_of(*engines: EngineFix, fix: str = "fp32-lm-head", requested: str = "on") -> FixState:
    return FixState(fix, requested, 1, "operator ana", START, "next_sync", engines)


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (
            fix_state("prefix-cache-off", "removed", ("removed", "removed"), version=7),
            "● prefix cache off     removed 2/2 v7",
        ),
        (fix_state("inflight-keep", "wait", ("wait", "wait"), "next_sync", 7), "○ in-flight keep       wait 2/2 v7"),
        (fix_state("inflight-keep", "on", ("on", "on"), "next_sync", 7), "● in-flight keep       on 2/2  v7"),
        (
            fix_state("prefix-cache-off", "removed", ("removed", "off"), "engine_restart"),
            "◐ prefix cache off     removed 1/2 → engine-1 rolling restart",
        ),
        (
            states_of(
                EngineFix("engine-0", "on", "next_sync"),
                EngineFix("engine-1", "", "next_sync", detail="restarting"),
                EngineFix("trainer", "on", "next_sync"),
            ),
            "◐ fp32 lm_head         on 1/2  → engine-1 restarting",
        ),
        (
            states_of(EngineFix("engine-0", "on", "next_sync"), EngineFix("trainer", "off", "next_sync")),
            "◐ fp32 lm_head         on 1/1  → trainer next sync",
        ),
        (
            states_of(EngineFix("engine-0", "on", "next_sync", 9), EngineFix("trainer", "on", "next_sync", 9)),
            "● fp32 lm_head         on 1/1  v9  op:ana",
        ),
        (
            states_of(
                EngineFix("engine-0", "off", "next_sync"),
                EngineFix("engine-1", "", "next_sync", detail="dead: oom"),
                requested="off",
            ),
            "◐ fp32 lm_head         off 1/2 → engine-1 dead: oom",
        ),
    ],
)
async def test_every_state_of_a_fix_reads_as_what_it_is(running: Running, state: FixState, line: str):
    source = source_with()
    source.feed([state])
    async with running(source, (160, 40)) as pilot:
        assert line in screen_text(pilot)


def effect(before: float, after: float, low: float, high: float, **changes: object) -> Effect:
    measure = Measure("mismatch/abs_diff_mean", before, after, low, high, 1200, 3400)
    if low == low:
        units = {"unit": "step", "units_before": 20, "units_after": 14}
        measure = msgspec.structs.replace(measure, change=after - before, ratio=after / before, **units)
    made = Effect("e1", (("processed-logprobs", "off", "on"),), 45, 22, START, measures=(measure,), done=True)
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize(
    ("frame", "short", "long"),
    [
        (
            effect(0.5, 0.04, -0.47, -0.45),
            "Δ −92 %",
            "0.5 to 0.04, at the change, against the trend -0.47 to -0.45 (95 %), 20 and 14 steps, "
            "1,200 and 3,400 tokens",
        ),
        (effect(0.5, 0.49, -0.1, 0.08), "Δ −2 %?", "against the trend -0.1 to 0.08"),
        (
            effect(0.5, 0.04, float("nan"), float("nan"), done=False),
            "Δ −92 %?",
            "1,200 and 3,400 tokens, still counting",
        ),
        (effect(0.5, float("nan"), float("nan"), float("nan"), done=False), "Δ measuring", ""),
        (effect(0.5, 0.6, 0.05, 0.2), "Δ +20 %", ""),
    ],
)
async def test_the_measured_effect_stands_beside_its_fix(running: Running, frame: Effect, short: str, long: str):
    source = source_with()
    source.feed([frame])
    async with running(source, (160, 44)) as pilot:
        line = next(line for line in screen_text(pilot).splitlines() if "processed logprobs   " in line)
        assert short in line
        pilot.app.set_focus(pilot.app.screen.query_one(FixPanel))
        flat = " ".join((await press(pilot, "enter")).replace("│", " ").split())
        assert long in flat


async def test_an_effect_of_a_value_that_is_gone_is_not_shown(running: Running):
    source = source_with()
    source.feed([effect(0.5, 0.04, -0.47, -0.45), fix_state("processed-logprobs", "off", ("off", "off"), version=30)])
    async with running(source, (160, 44)) as pilot:
        assert "Δ −92 %" not in screen_text(pilot)


async def test_an_unsettled_fix_is_never_shown_as_on(running: Running):
    source = source_with(20, 10**9)
    source.feed([fix_state("fp32-lm-head", "on", ("on", "off"), "next_sync", 10)])
    source.feed([fix_state("processed-logprobs", "on", ("", ""))])
    async with running(source, (120, 40)) as pilot:
        text = screen_text(pilot)
        assert "◐ fp32 lm_head         on 1/2  → engine-1 next sync" in text
        assert "◐ processed logprobs   on 0/2  → being applied" in text
        assert "●" not in text


@pytest.mark.parametrize("status", ["stopping", "finished", "failed"])
async def test_a_run_that_ends_is_not_acted_on(running: Running, status: str):
    source = source_with()
    source.feed([run_state(74, status)])  # type: ignore[arg-type]
    async with running(source) as pilot:
        assert f"refused: the run is {status}" in await press(pilot, "P")


async def test_before_the_first_state_nothing_can_be_done(running: Running):
    async with running(FakeSource()) as pilot:
        assert "refused: the run has not reported its state yet" in await press(pilot, "S")
