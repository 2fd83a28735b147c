"""Acting safely: the lease on the run, words that are typed, and how a command ended once its dialog is closed."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from console.tui.app import ConsoleApp
from console.tui.dialogs.confirm import ConfirmScreen
from console.tui.present import lease
from console.tui.screens.live.screen import LiveScreen
from driftline.frames import Lease
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.synthetic import START


def box(pilot: Pilot[None]) -> str:
    """The words of the dialog, without the screen beside it."""
    assert isinstance(pilot.app.screen, ConfirmScreen)
    return " ".join("".join(text for text, _ in line).strip() for line in pilot.app.screen.lines(66))


async def test_the_header_names_who_holds_the_run(running: Running):
    source = source_with()
    async with running(source) as pilot:
        assert screen_text(pilot).splitlines()[0].rstrip().endswith("RW")
        source.hold("bo@box:41")
        await settle(pilot)
        assert screen_text(pilot).splitlines()[0].rstrip().endswith("RW held by bo@box")
        source.feed([Lease()])
        await settle(pilot)
        assert screen_text(pilot).splitlines()[0].rstrip().endswith("RW")
        source.feed([Lease("operator ana", source.session, START, START + 120)])
        await settle(pilot)
        assert screen_text(pilot).splitlines()[0].rstrip().endswith("RW")


async def test_a_viewer_sees_who_acts(running: Running):
    source = source_with(operator=False)
    source.session = ""
    source.hold("bo@box:41")
    async with running(source, (120, 40)) as pilot:
        assert screen_text(pilot).splitlines()[0].rstrip().endswith("RO, bo@box acts")


@pytest.mark.parametrize(
    ("session", "own", "words"),
    [
        ("bo@box:41", "ana@here:7", "bo@box"),
        ("ana@here:9", "ana@here:7", "ana@here:9"),
        ("script", "ana@here:7", "script"),
        ("", "ana@here:7", "operator bo"),
    ],
)
def test_a_holder_is_named_as_shortly_as_it_can_be(session: str, own: str, words: str):
    assert lease.session_name(Lease("operator bo", session, START, START), own) == words


async def test_a_run_in_other_hands_is_taken_over_only_by_a_button_that_says_so(running: Running):
    source = source_with()
    source.hold("bo@box:41")
    async with running(source) as pilot:
        text = await press(pilot, "S")
        assert "bo@box holds the run since 12:13: take over?" in box(pilot)
        assert "▸  Cancel" in text
        assert "take over and sync weights now" in text
        await press(pilot, "enter")
        assert (source.taken, source.sent) == ([], [])
        await press(pilot, "S", "right", "enter")
        assert source.taken == ["bo@box:41"]
        assert [verb for verb, _, _ in source.sent] == ["sync"]


async def test_a_run_taken_while_the_dialog_was_open_is_asked_about_again(running: Running):
    source = source_with()
    async with running(source) as pilot:
        text = await press(pilot, "S")
        assert "take over" not in text
        source.hold("bo@box:41", published=False)
        text = await press(pilot, "right", "enter")
        for _ in range(1000):
            if "take over and sync weights now" in screen_text(pilot):
                break
            await pilot.pause(0.01)
        text = screen_text(pilot)
        assert "operator bo (bo@box:41) has been at the controls: take over?" in box(pilot)
        assert "▸  Cancel" in text
        assert source.sent == []
        await press(pilot, "right", "enter")
        assert source.taken == ["bo@box:41"]
        assert [verb for verb, _, _ in source.sent] == ["sync"]


async def test_the_run_is_not_ended_before_the_word_is_typed(running: Running):
    source = source_with()
    async with running(source) as pilot:
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        app.acting.ask_stop()
        text = await press(pilot, "right", "enter")
        assert "type stop first: this throws work away" in text
        assert "33 requests in flight are thrown away" in text
        # Letters are letters here, also those that are keys elsewhere.
        await press(pilot, "s", "t", "o", "q", "enter")
        assert source.sent == []
        assert isinstance(app.screen, ConfirmScreen)
        assert app.screen.typed == "stoq"
        await press(pilot, "backspace", "p", "enter")
        assert source.sent == [("stop", {}, -1)]


async def test_the_word_alone_does_nothing(running: Running):
    source = source_with()
    async with running(source) as pilot:
        app = pilot.app
        assert isinstance(app, ConsoleApp)
        app.acting.ask_stop()
        await press(pilot, *"stop", "enter")
        assert source.sent == []
        assert isinstance(app.screen, LiveScreen)


@pytest.mark.parametrize(
    ("state", "detail", "words"),
    [
        ("applied", "all engines at v41", "sync weights now: applied, all engines at v41"),
        ("failed", "engine-1 died", "sync weights now: failed, engine-1 died"),
        ("expired", "", "sync weights now: expired"),
    ],
)
async def test_a_closed_dialog_is_followed_by_how_it_ended(running: Running, state: str, detail: str, words: str):
    source = source_with()
    async with running(source) as pilot:
        await press(pilot, "S", "right", "enter", "escape")
        assert words not in screen_text(pilot)
        await press(pilot, "question_mark")
        source.ack("c1", "accepted")
        source.ack("c1", state, detail)  # type: ignore[arg-type]
        await settle(pilot)
        assert words in (await press(pilot, "escape")).splitlines()[-1]


async def test_what_ended_before_the_eyes_is_not_shown_again(running: Running):
    source = source_with()
    async with running(source) as pilot:
        await press(pilot, "S", "right", "enter")
        source.ack("c1", "applied", "all engines at v41")
        await settle(pilot)
        assert "all engines at v41" in screen_text(pilot)
        assert "all engines at v41" not in await press(pilot, "escape")
