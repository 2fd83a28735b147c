"""The tokens screen: every key, every state, and that a token's text can do nothing but be read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot

from console.tui.app import ConsoleApp
from console.tui.screens.tokens.panes import ContextPane, OutlierTable, WorstList
from console.tui.screens.tokens.screen import TokensScreen
from driftline.frames import Frame, Tokens, floats
from driftline.rundir import RunDir
from tests.tui.conftest import Running, screen_text, settle
from tests.tui.synthetic import FakeSource, history, token_frame
from tests.tui.tours import tokens_tour


def token_source(frames: Iterable[Frame] | None = None, steps: int = 12) -> FakeSource:
    source = FakeSource()
    source.feed(history(20))
    source.feed([token_frame(step) for step in range(1, steps + 1)] if frames is None else frames)
    return source


async def calm(pilot: Pilot[None]) -> str:
    """Wait until the tokens were asked for and everything is on screen."""
    await settle(pilot)
    app = pilot.app
    assert isinstance(app, ConsoleApp)
    source = app.source
    assert isinstance(source, FakeSource)
    for _ in range(2000):
        waiting = source.tokens_on and (source._token_queue or app.showing.tokens.head < source.tokens_given)
        if app.showing.tokens_asked and not waiting:
            break
        await pilot.pause(0.005)
    assert app.showing.tokens_asked
    await pilot.pause()
    app.refresh_view()
    await pilot.pause()
    return screen_text(pilot)


async def press(pilot: Pilot[None], *keys: str) -> str:
    await pilot.press(*keys)
    return await calm(pilot)


def screen(pilot: Pilot[None]) -> TokensScreen:
    shown = pilot.app.screen
    assert isinstance(shown, TokensScreen)
    return shown


def chosen(pilot: Pilot[None]) -> tuple[int, int, float]:
    """Step, position and difference of the token in the context."""
    token = screen(pilot).query_one(ContextPane).token
    assert token is not None
    return token.sequence.step, token.position, token.diff


async def typed(pilot: Pilot[None], text: str) -> str:
    await pilot.press("slash")
    await pilot.press(*("space" if char == " " else char for char in text))
    return await calm(pilot)


async def test_tokens_are_not_asked_for_before_they_are_looked_at(running: Running):
    source = token_source()
    async with running(source) as pilot:
        assert not source.tokens_on
        shown = await press(pilot, "2")
        assert source.tokens_on
        assert "worst tokens" in shown
        await press(pilot, "1")
        assert source.tokens_on, "the past would have to be sent again"


async def test_the_worst_is_shown_first_in_its_text_with_both_logprobs(running: Running):
    frames = [token_frame(step) for step in range(1, 13)]
    async with running(token_source(frames)) as pilot:
        shown = await press(pilot, "2")
        step, position, diff = chosen(pilot)
        assert abs(diff) == max(abs(d) for frame in frames for d in differences(frame))
        assert f"Δ {diff:+.3f}" in shown
        assert re.search(rf"pos {position}/24 +step {step} ", shown)
        assert "reverse" in shown
        assert "[" in shown
        # A number is whole or not there.
        assert "mean|Δ|" in shown


def differences(frame: Tokens) -> list[float]:
    return (floats(frame.trainer) - floats(frame.rollout)).tolist()


async def test_n_and_its_capital_go_through_the_ranking_and_g_and_its_capital_to_the_ends(running: Running):
    async with running(token_source()) as pilot:
        await press(pilot, "2")
        seen = [chosen(pilot)]
        for _ in range(4):
            await press(pilot, "n")
            seen.append(chosen(pilot))
        sizes = [abs(diff) for *_, diff in seen]
        assert sizes == sorted(sizes, reverse=True)
        assert len(set(seen)) == 5
        await press(pilot, "N", "N")
        assert chosen(pilot) == seen[2]
        await press(pilot, "down")
        assert chosen(pilot) == seen[3]
        await press(pilot, "k")
        assert chosen(pilot) == seen[2]
        shown = await press(pilot, "G")
        assert "1000/1000" in shown
        assert "a filter shows others" in await press(pilot, "n")
        await press(pilot, "g")
        assert chosen(pilot) == seen[0]
        assert "this is the worst" in await press(pilot, "N")


async def test_what_was_chosen_stays_while_worse_ones_come_and_the_top_follows(running: Running):
    source = token_source()
    async with running(source) as pilot:
        await press(pilot, "2")
        await press(pilot, "n")
        before = chosen(pilot)
        source.feed([token_frame(99, apart=0.5)])
        await calm(pilot)
        assert chosen(pilot) == before
        await press(pilot, "g")
        assert chosen(pilot)[0] == 99
        source.feed([token_frame(100, apart=50.0)])
        await calm(pilot)
        assert chosen(pilot)[0] == 100, "the worst is followed"


async def test_left_and_right_walk_through_the_text(running: Running):
    async with running(token_source()) as pilot:
        await press(pilot, "2")
        step, position, _ = chosen(pilot)
        screen(pilot).query_one(ContextPane).focus()
        await press(pilot, "right", "l")
        assert chosen(pilot)[:2] == (step, position + 2)
        await press(pilot, "h")
        shown = await press(pilot, "left", "left")
        assert chosen(pilot)[:2] == (step, position - 1)
        assert "context" in shown


async def test_enter_opens_the_text_and_esc_goes_back(running: Running):
    async with running(token_source()) as pilot:
        await press(pilot, "2")
        shown = await press(pilot, "enter")
        assert "worst tokens" not in shown
        assert "[chosen]" in shown
        assert "worst tokens" in await press(pilot, "escape")


async def test_sequences_take_the_place_of_the_tokens_and_go_back(running: Running):
    async with running(token_source()) as pilot:
        await press(pilot, "2")
        shown = await press(pilot, "o")
        assert "five worst tokens" in shown
        assert "worst tokens ─" not in shown
        table = screen(pilot).query_one(OutlierTable)
        first = screen(pilot).query_one(ContextPane).token.sequence.number
        assert table.at == 0
        await press(pilot, "j")
        assert table.at == 1
        sequence = screen(pilot).query_one(ContextPane).token.sequence
        assert sequence.number != first
        assert abs(chosen(pilot)[2]) == pytest.approx(sequence.max)
        for word in ("max|Δ|", "|ΣΔ|", "mean|Δ|"):
            assert f"by {word}" in await press(pilot, "s")
        assert "five worst" not in await press(pilot, "escape")


async def test_with_room_everything_is_shown_and_o_goes_between(running: Running):
    async with running(token_source(), size=(120, 40)) as pilot:
        shown = await press(pilot, "2")
        for words in ("worst tokens", "context", "sequences", "five worst", "by position", "Δ = trainer - rollout"):
            assert words in shown
        await press(pilot, "o")
        assert isinstance(screen(pilot).focused, OutlierTable)
        await press(pilot, "o")
        assert isinstance(screen(pilot).focused, WorstList)


async def test_a_filter_is_in_force_while_it_is_typed_and_esc_clears_it(running: Running):
    async with running(token_source()) as pilot:
        await press(pilot, "2")
        shown = await typed(pilot, "step=7 engine=engine-1")
        assert "/ step=7 engine=engine-1" in shown
        await press(pilot, "enter")
        for _ in range(3):
            assert chosen(pilot)[0] == 7
            await press(pilot, "n")
        assert "match step=7 engine=engine-1" in screen_text(pilot)
        await press(pilot, "g", "escape")
        assert "newest" in screen_text(pilot)


async def test_a_wrong_filter_is_reported_and_the_last_right_one_stays(running: Running):
    async with running(token_source(), size=(120, 40)) as pilot:
        await press(pilot, "2")
        shown = await typed(pilot, "step=7 vresion>3")
        assert "unknown field 'vresion'" in shown
        assert "match step=7" in shown
        await press(pilot, "escape")
        assert "newest" in screen_text(pilot), "back to what was in force before"


async def test_nothing_matches(running: Running):
    async with running(token_source()) as pilot:
        await press(pilot, "2")
        await typed(pilot, "engine=engine-9")
        shown = await press(pilot, "enter")
        assert "tokens match: engine=engine-9" in shown
        assert "esc clears the filter" in shown
        assert "no token matches" in await press(pilot, "n")
        assert "there is no token to copy" in await press(pilot, "Y")


async def test_a_frozen_view_stands_still_and_can_be_walked_through(running: Running):
    source = token_source()
    async with running(source) as pilot:
        await press(pilot, "2")
        before = chosen(pilot)
        await press(pilot, "space")
        source.feed([token_frame(100, apart=50.0)])
        await calm(pilot)
        assert chosen(pilot) == before
        await press(pilot, "n", "N", "n")
        assert chosen(pilot)[0] != 100
        await press(pilot, "g", "space")
        assert chosen(pilot)[0] == 100


async def test_copying_writes_the_token_and_its_text(running: Running, tmp_path: Path):
    run = RunDir(tmp_path)
    async with running(token_source(), run=run) as pilot:
        await press(pilot, "2")
        step, position, diff = chosen(pilot)
        shown = await press(pilot, "Y")
        path = run.snapshots / f"token-step{step}-pos{position}.txt"
        text = path.read_text()
        assert "OSC 52" in shown
        assert f"diff trainer-rollout (nats): {diff}" in text
        assert "reverse" in text.split("context")[1]
        assert pilot.app.clipboard == text.rstrip("\n")


async def test_a_key_that_may_not_read_tokens(running: Running):
    source = token_source()
    source.no_tokens = "the hub of run demo-7f3a: this key may not read raw tokens"
    async with running(source) as pilot:
        shown = await press(pilot, "2")
        assert "this key may not read raw tokens" in shown
        assert "no-tokens" in shown
        source.no_tokens = ""
        await press(pilot, "1")
        assert "step" in await press(pilot, "2"), "asked again when it is looked at again"
        assert chosen(pilot)


async def test_nothing_was_reported(running: Running):
    async with running(token_source([])) as pilot:
        shown = await press(pilot, "2")
        assert "no token logprobs have been reported yet" in shown
        assert "Probe.tokens" in shown


async def test_the_past_is_still_looked_through(running: Running):
    source = token_source([])
    source.tokens_behind = 4321
    async with running(source) as pilot:
        assert "4,321 frames of the recent past" in await press(pilot, "2")


async def test_without_text_there_are_ids(running: Running):
    frames = [token_frame(step, pieces=False) for step in range(1, 4)]
    async with running(token_source(frames)) as pilot:
        shown = await press(pilot, "2")
        assert re.search(r"#1\d{3}", shown)
        assert re.search(r"\[.?.?1\d{3}.?\]", shown)


async def test_age_is_named_and_kept_apart(running: Running):
    async with running(token_source()) as pilot:
        await press(pilot, "2")
        await typed(pilot, "lag=2")
        shown = await press(pilot, "enter")
        step, *_ = chosen(pilot)
        assert f"sampled by v{step - 2}, trainer at v{step}: stale by 2" in shown
        await press(pilot, "escape")
        await typed(pilot, "lag=0")
        assert "not stale" in await press(pilot, "enter")


async def test_another_version_in_a_sequence_is_marked_where_it_began(running: Running):
    async with running(token_source(), size=(120, 40)) as pilot:
        await press(pilot, "2")
        await typed(pilot, "lag=2")
        shown = await press(pilot, "enter")
        step, *_ = chosen(pilot)
        assert f"│v{step - 2}│" in shown
        assert f"│v{step}│" in shown


EVIL = (
    "[@click=app.exit]x[/]", "\x1b[2J\x1b]0;owned\x07", "\u202etxt", "[/nope]", "\x9b31m", "a\u0301" * 40, "",
    "\u200b" * 9, "漢字" * 30, "x" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (60, 15)], ids=str)
@pytest.mark.slow
async def test_hostile_text_is_only_read(running: Running, size: tuple[int, int]):
    frame = token_frame(3)
    pieces = tuple(EVIL[i % len(EVIL)] for i in range(frame.n))
    words = tuple(EVIL[i % len(EVIL)] for i in range(8))
    source = token_source([msgspec.structs.replace(frame, pieces=pieces, prompts=words, engines=words)])
    async with running(source, size=size) as pilot:
        await press(pilot, "2")
        for key in ("n", "n", "o", "j", "enter", "escape", "G", "g", "Y"):
            shown = await press(pilot, key)
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u200b]", shown)
            assert all(len(line.rstrip()) <= size[0] for line in shown.split("\n"))
            strips = pilot.app.screen._compositor.render_strips()
            assert not any("@click" in s.style.meta for strip in strips for s in strip if s.style is not None)
        assert pilot.app.is_running


async def test_another_run_has_tokens_of_its_own(running: Running):
    async with running(token_source()) as pilot:
        await press(pilot, "2", "n")
        app = pilot.app
        other = token_source([token_frame(77)])
        watch = app.watching(other, None)
        app.watches.append(watch)
        app.reading.read(watch)
        app.show_watch(watch)
        await calm(pilot)
        assert chosen(pilot)[0] == 77


async def test_any_pane_can_have_all_the_room(running: Running):
    async with running(token_source(), size=(120, 40)) as pilot:
        await press(pilot, "2")
        screen(pilot).query_one("#spread").focus()
        shown = await press(pilot, "enter")
        assert "worst tokens" not in shown
        assert "position" in shown
        assert screen(pilot).query_one("#spread").size.width == 120
        await press(pilot, "escape")
        assert screen(pilot).query_one("#spread").size.width < 60


async def test_a_tour_sees_all_of_it(running: Running):
    async with running(token_source()) as pilot:
        seen = "".join(await tokens_tour(pilot))
        for words in ("worst tokens", "five worst", "[chosen]", "copied", "FROZEN"):
            assert words in seen
