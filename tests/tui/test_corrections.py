"""Corrections of the objective on the fixes screen: correctness first, so while the backend fails it is asked twice."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from console.tui.app import ConsoleApp
from console.tui.dialogs.confirm import ConfirmScreen
from console.tui.dialogs.list_dialog import ListDialog
from console.tui.dialogs.picker import GateScreen
from console.tui.screens.fixes.panes import FixTable
from console.tui.screens.fixes.screen import FixesScreen
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.synthetic import FakeSource, run_state

DOWN = ("down",) * 5
"""From the first fix to the row below the last."""


def corrected(*, fixed: bool, **changes: object) -> FakeSource:
    """A run of a trainer that knows corrections; its backend passes where it is `fixed`."""
    source = source_with(74, 45 if fixed else 10**9)
    source.feed([run_state(74, **({"correction": "off", "correction_generation": 3} | changes))])  # type: ignore[arg-type]
    return source


def chosen(pilot: Pilot[None]) -> ConfirmScreen:
    assert isinstance(pilot.app.screen, ConfirmScreen)
    return pilot.app.screen


async def test_a_trainer_without_corrections_says_so(running: Running):
    source = source_with()
    async with running(source) as pilot:
        text = await press(pilot, "4", *DOWN)
        assert pilot.app.screen.query_one(FixTable).on_correction
        assert "this run's trainer says nothing of corrections" in text
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, FixesScreen)
        assert "says nothing of corrections" in screen_text(pilot).splitlines()[-1]


async def test_on_a_backend_that_passes_a_correction_is_asked_for_once(running: Running):
    source = corrected(fixed=True)
    async with running(source) as pilot:
        text = await press(pilot, "4", *DOWN)
        assert "○ correction           off" in text
        assert "backend passes" in text
        text = await press(pilot, "enter")
        assert isinstance(pilot.app.screen, ListDialog)
        assert pilot.app.screen.heading == "correct the objective: how"
        assert "truncated importance sampling" in text
        assert "min(w, cap)" in text
        await press(pilot, "enter")
        assert chosen(pilot).plan.word == ""
        await press(pilot, "right", "enter")
        assert source.sent == [("correction.set", {"value": "tis"}, 3)]


async def test_while_the_backend_fails_it_is_asked_twice_and_a_word_is_typed(running: Running):
    source = corrected(fixed=False)
    async with running(source) as pilot:
        text = await press(pilot, "4", *DOWN)
        assert "backend FAILS: fixes first" in text
        assert "a correction is asked for twice" in " ".join(text.replace("│", " ").split())
        await press(pilot, "enter", "down", "down", "enter")
        assert isinstance(pilot.app.screen, GateScreen)
        words = " ".join("".join(part for part, _ in line) for line in pilot.app.screen.lines(66))
        assert "the backend FAILS parity: mismatch/abs_diff_mean is .4" in words
        assert "IcePop band would hide what a fix repairs" in words
        # Once is not enough, and the word must be the right one.
        await press(pilot, "right", "enter")
        await press(pilot, "right", "enter")
        assert source.sent == []
        await press(pilot, *"icepop", "enter")
        [(verb, args, generation)] = source.sent
        assert (verb, args["value"], generation) == ("correction.set", "icepop", 3)
        assert args["despite"].startswith("fail: mismatch/abs_diff_mean")


@pytest.mark.parametrize("keys", [("enter",), ("escape",), ("right", "left", "enter")])
async def test_the_first_question_stands_on_cancel(running: Running, keys: tuple[str, ...]):
    source = corrected(fixed=False)
    async with running(source) as pilot:
        await press(pilot, "4", *DOWN, "enter", "enter")
        assert isinstance(pilot.app.screen, GateScreen)
        await press(pilot, *keys)
        assert isinstance(pilot.app.screen, FixesScreen)
        assert source.sent == []


async def test_switching_off_is_never_asked_twice(running: Running):
    source = corrected(fixed=False, correction="tis", correction_requested="tis", correction_by="operator ana")
    async with running(source) as pilot:
        text = await press(pilot, "4", *DOWN)
        assert "● correction           tis" in text
        await press(pilot, "enter")
        await press(pilot, "enter")
        assert chosen(pilot).plan.args == {"value": "off"}


async def test_what_is_wanted_and_not_yet_in_force_is_not_shown_as_on(running: Running):
    source = corrected(fixed=True, correction_requested="tis", correction_by="operator ana")
    async with running(source) as pilot:
        assert "◐ correction           off → tis" in await press(pilot, "4")
        source.feed([run_state(75, correction="tis", correction_requested="tis", correction_since=75,
                               correction_by="operator ana")])  # fmt: skip
        await settle(pilot)
        row = next(line for line in screen_text(pilot).split("\n") if "● correction           tis  " in line)
        assert "backend passes" in row
        assert "s75 op:ana" in row


async def test_a_command_line_may_name_the_correction(running: Running):
    source = corrected(fixed=True)
    async with running(source) as pilot:
        assert isinstance(pilot.app, ConsoleApp)
        pilot.app.acting.ask_correction("sequence-mask")
        await settle(pilot)
        assert chosen(pilot).plan.title == "set correction to sequence-mask"
