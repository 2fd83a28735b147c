"""D: an active round from the cause screen: asked with its cost, shown under way, cancelled, and what comes of it."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from console.connect.source import Link
from console.diagnosis.rounds import FRESH
from console.tui.dialogs.confirm import ConfirmScreen
from console.tui.screens.parity.screen import ParityScreen
from driftline.frames import Command, Event
from tests.tui import diagnoses
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.diagnoses import app_of, no_pause, until
from tests.tui.synthetic import START, FakeSource, fix_state, metrics, run_state, token_frame

pytestmark = [pytest.mark.diagnosis, pytest.mark.usefixtures("no_pause")]
__all__ = ["no_pause"]
WAYS = ("D", "right", "enter")


def wrong() -> FakeSource:
    """A run on vLLM's defaults at step 40, version 40."""
    source = source_with(40, 10**9)
    source.feed([run_state(40, version=40)])
    return source


async def asked(pilot: Pilot[None], source: FakeSource) -> None:
    """Ask for a round, and have it taken up."""
    await press(pilot, "5", *WAYS)
    await until(pilot, lambda: bool(source.sent) and isinstance(pilot.app.screen, ParityScreen))
    source.ack("c1", "accepted")
    source.ack("c1", "accepted", diagnoses.COST)
    await settle(pilot)


async def answered(pilot: Pilot[None], source: FakeSource, **changes: str | float) -> str:
    """Ask for a round and answer it."""
    await asked(pilot, source)
    source.ack("c1", "applied", data=diagnoses.figures(40, **changes))
    return await until(pilot, lambda: "98 % sure" in screen_text(pilot) or "96 % sure" in screen_text(pilot))


async def test_it_is_asked_with_what_it_costs_and_three_keys_send_it(running: Running):
    source = wrong()
    async with running(source) as pilot:
        text = await press(pilot, "5", "D")
        for words in (
            "measure the cause", "no round has been made in this run", "324 requests of one token", "not measured yet",
            "nothing is trained, sent, switched or", "▸  Cancel",
        ):  # fmt: skip
            assert words in text, words
        await press(pilot, "escape")
        assert source.sent == []
        await asked(pilot, source)
        assert source.sent == [("diagnose", {"tokens": "96"}, -1)]


async def test_under_way_it_is_said_with_its_cost_and_the_key_cancels_it(running: Running):
    source = wrong()
    async with running(source) as pilot:
        await asked(pilot, source)
        text = screen_text(pilot)
        assert "D cancels  active round: at the next step: 324 requests of one token" in text
        source.ack("c1", "accepted", "under way")
        await settle(pilot)
        text = screen_text(pilot)
        assert "active round: under way; 324 requests" in text
        await press(pilot, "D")
        await until(pilot, lambda: len(source.sent) == 2)
        assert source.sent[1] == ("diagnose", {"cancel": "c1"}, -1)
        source.ack("c1", "failed", "cancelled by operator ana")
        source.ack("c2", "applied")
        await settle(pilot)
        text = screen_text(pilot)
        assert "D measures it  active round cancelled by operator ana" in text
        assert not app_of(pilot).model.rounds.made


async def test_its_answer_has_the_cause_its_certainty_and_the_measured_shares(running: Running):
    source = wrong()
    async with running(source, (120, 40)) as pilot:
        source.feed([token_frame(step) for step in range(1, 41)])
        text = await answered(pilot, source)
        for words in (
            "active round of version 40, the newest", "before temperature and penalties",
            "semantics .35 (.31 to .38), 85 %",
            "inference path .057 (.052 to .063), 14 %", "1.62 s in all; engine-0 324 requests in 1.37 s",
            "+3.9  engine-0's logprobs do not change", "A aligns: processed-logprobs on",
        ):  # fmt: skip
            assert words in text, words
        assert "96 % sure" in text, "two causes, each .98"
        await press(pilot, "A")
        text = screen_text(pilot)
        assert "−.35 (.31 to .38)" in text, "the gain of a fix is its layer's measured share"


async def test_without_token_pairs_a_round_answers_too(running: Running):
    source = wrong()
    async with running(source) as pilot:
        text = await answered(pilot, source)
        assert "active round of version 40" in text


async def test_a_failure_is_one_sentence(running: Running):
    source = wrong()
    async with running(source) as pilot:
        await asked(pilot, source)
        source.ack("c1", "failed", "no engine could be probed: engine-0: it does not serve")
        await settle(pilot)
        assert "active round failed: no engine could be probed" in screen_text(pilot)
        await press(pilot, "D")
        assert isinstance(pilot.app.screen, ConfirmScreen)


async def test_it_says_how_old_it_is_and_counts_no_longer_when_it_is_too_old(running: Running):
    source = wrong()
    async with running(source, (120, 40)) as pilot:
        source.feed([token_frame(step) for step in range(30, 41)])
        await answered(pilot, source)
        source.feed([run_state(43, version=43)])
        await until(pilot, lambda: "active round of version 40, 3 versions ago" in screen_text(pilot))
        source.feed([run_state(41 + FRESH, version=41 + FRESH)])
        text = await until(pilot, lambda: "counts no longer" in screen_text(pilot))
        assert f"{FRESH + 1} versions ago: counts no longer, the weights have moved on" in text
        await until(pilot, lambda: "96 % sure" not in screen_text(pilot))


async def test_a_switched_fix_and_another_mismatch_end_it(running: Running):
    source = wrong()
    async with running(source, (120, 40)) as pilot:
        await answered(pilot, source)
        source.feed([fix_state("processed-logprobs", "on", ("on", "on"), version=41, step=41)])
        await until(pilot, lambda: "processed-logprobs on came after it" in screen_text(pilot))
    source = wrong()
    async with running(source, (120, 40)) as pilot:
        await answered(pilot, source)
        source.feed([metrics(step, fixed_from=40) for step in range(41, 50)])
        await until(pilot, lambda: "the mismatch has fallen since" in screen_text(pilot))


async def test_one_that_the_run_has_made_by_itself_says_for_what(running: Running):
    source = wrong()
    async with running(source, (120, 40)) as pilot:
        await press(pilot, "5")
        data = diagnoses.figures(40, reason="mismatch/abs_diff_mean .41 above .05 in 2 of 3 steps")
        source.feed([Event(START, "warn", "diagnosis.round", "active round", 40, data)])
        await until(pilot, lambda: "by itself: mismatch/abs_diff_mean .41 above .05" in screen_text(pilot))
        source.feed([Event(START, "warn", "diagnosis.round-failed", "nothing to probe", 40)])
        await until(pilot, lambda: "active round failed: nothing to probe" in screen_text(pilot))


async def test_one_that_another_operator_has_asked_for_is_shown_as_well(running: Running):
    source = wrong()
    async with running(source) as pilot:
        await press(pilot, "5")
        source.feed([Command("x1", "diagnose", {"tokens": "400"}, issuer="operator bo")])
        source.ack("x1", "applied", data=diagnoses.figures(40))
        await until(pilot, lambda: "active round of version 40" in screen_text(pilot))


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"framework": "TRL 1.2.0"}, "the trainer is TRL 1.2.0"), ({"synthetic": True}, "the trainer is a simulator")],
)
async def test_another_frameworks_run_is_refused_with_the_reason(
    running: Running, changes: dict[str, object], why: str
):
    source = wrong()
    source.feed([run_state(40, version=40, **changes)])
    async with running(source) as pilot:
        assert "measures it" not in await press(pilot, "5")
        assert why in (await press(pilot, "D")).splitlines()[-1]
        assert source.sent == []


async def test_a_console_that_only_looks_and_a_recording_ask_for_none(running: Running):
    source = source_with(40, 10**9, operator=False)
    async with running(source) as pilot:
        assert "measures it" not in await press(pilot, "5")
        assert "read-only" in (await press(pilot, "D")).splitlines()[-1]
    source = wrong()
    source.state = Link(True, 0.0, replay="PAUSED")
    async with running(source) as pilot:
        await press(pilot, "5")
        assert "recording" in (await press(pilot, "D")).splitlines()[-1]


async def test_the_screen_answers_keys_while_the_hub_is_asked(running: Running):
    source = wrong()
    async with running(source) as pilot:
        source.holder = "bo@there:9"
        await press(pilot, "5", *WAYS)
        assert isinstance(pilot.app.screen, ConfirmScreen), "the lease is another session's: asked for taking over"
        assert source.sent == []
