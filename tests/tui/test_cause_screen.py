"""The cause screen: token pairs are asked for, the answer follows them off the screen's thread, keys open dialogs."""

from __future__ import annotations

import threading

import pytest
from textual.pilot import Pilot

from console.diagnosis.facts import Facts
from console.diagnosis.model import Diagnosis
from console.diagnosis.rounds import Standing
from console.tui.dialogs.confirm import ConfirmScreen
from console.tui.paint.bars import lying, parts
from console.tui.paint.glyphs import GLYPHS
from console.tui.paint.theme import Ink
from console.tui.screens.parity import cause_view
from console.tui.screens.parity.cause_panes import standing_out
from console.tui.screens.parity.cause_view import Answer, Asked
from console.tui.screens.parity.screen import ParityScreen
from console.tui.watch.diagnosing import Diagnosing
from tests.tui import diagnoses
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.diagnoses import app_of, no_pause, until
from tests.tui.synthetic import FakeSource, token_frame

pytestmark = [pytest.mark.diagnosis, pytest.mark.usefixtures("no_pause")]
__all__ = ["no_pause"]
GLYPH = GLYPHS["braille"]


async def shown(pilot: Pilot[None], found: Diagnosis) -> str:
    await press(pilot, "5")
    app_of(pilot).showing.diagnosing.found = found
    await settle(pilot)
    return screen_text(pilot)


async def test_token_pairs_are_asked_for_at_the_first_look_and_not_before(running: Running):
    source = source_with()
    async with running(source) as pilot:
        assert not source.tokens_on
        await press(pilot, "5")
        await until(pilot, lambda: source.tokens_on)
        assert "no token pairs have been reported yet" in screen_text(pilot)
        assert "published limits" in screen_text(pilot), "what is known has the rest of the screen"


async def test_a_diagnosis_is_made_of_what_comes_beside_the_screen(running: Running, monkeypatch: pytest.MonkeyPatch):
    threads: list[threading.Thread] = []

    def made(self: Diagnosing, facts: Facts, stands: Standing) -> None:
        threads.append(threading.current_thread())
        self.found, self._busy = diagnoses.cause(), False

    monkeypatch.setattr(Diagnosing, "diagnose", made)
    source = source_with()
    async with running(source) as pilot:
        await press(pilot, "5")
        source.feed([token_frame(step) for step in range(60, 75)])
        await until(pilot, lambda: "97 % sure" in screen_text(pilot))
        assert threads
        assert all(one is not threading.main_thread() for one in threads)
        before = len(threads)
        await press(pilot, "down", "up")
        assert len(threads) == before, "not made anew while nothing has come"


async def test_a_recording_that_jumps_is_diagnosed_anew():
    one = Diagnosing(clock=lambda: 0.0)
    one.found = diagnoses.cause()
    one.restart()
    assert one.found is None


async def test_what_cannot_be_diagnosed_is_said_and_nothing_ends(running: Running, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object, **__: object) -> Diagnosis:
        raise ZeroDivisionError("no tokens")

    monkeypatch.setattr("console.diagnosis.watch.Watch.diagnosis", fails)
    source = source_with()
    async with running(source) as pilot:
        await press(pilot, "5")
        source.feed([token_frame(70)])
        await until(pilot, lambda: "no diagnosis: ZeroDivisionError: no tokens" in screen_text(pilot))


async def test_the_answer_its_certainty_and_what_is_normal_here(running: Running):
    async with running(source_with(40, 10**9), (120, 40)) as pilot:
        text = await shown(pilot, diagnoses.cause())
        for words in (
            "the engine reports logprobs before the temperature", "97 % sure; 12,288 token pairs", "normal? no",
            "driftline's own loop", "semantics .18 (.17 to .2), 97 %", "A aligns: processed-logprobs on",
            "+6.1", "−0.4", "ruled out", "token ids shifted by one", "by the trainer's probability",
        ):  # fmt: skip
            assert words in text, words


async def test_two_causes_stand_with_their_own_evidence(running: Running):
    async with running(source_with(40, 10**9), (120, 40)) as pilot:
        text = await shown(pilot, diagnoses.two_causes())
        assert text.count("▸ ") >= 2
        assert "inference path .03" in text
        assert "A aligns: processed-logprobs on, prefix-cache-off on" in text
        assert "alone F processed-logprobs on" in text


async def test_an_engine_apart_is_seen_in_its_picture(running: Running):
    async with running(source_with(40, 10**9)) as pilot:
        text = await shown(pilot, diagnoses.one_engine())
        assert "A aligns: a weight sync" in text
        line = next(one for one in text.splitlines() if "engine-1    .22" in one)
        assert line.count("█") > 3
        assert "of 25 %" in text


async def test_a_fix_that_is_on_already_is_not_asked_for_again(running: Running):
    async with running(source_with()) as pilot:
        text = await shown(pilot, diagnoses.cause())
        assert "A aligns" not in text
        assert "wanted already, or in force" in text


async def test_nothing_wrong_asks_for_nothing(running: Running):
    async with running(source_with(40, 10**9)) as pilot:
        text = await shown(pilot, diagnoses.healthy())
        assert "normal? ● yes" in text
        assert "A aligns" not in text


async def test_a_guess_is_shown_as_one_and_asks_for_the_reference_set(running: Running):
    async with running(source_with(40, 10**9)) as pilot:
        text = await shown(pilot, diagnoses.guess())
        assert "◐ perhaps: the engine renormalises" in text
        assert "31 % sure" in text
        assert "A aligns: processed-logprobs on, prefix-cache-off on" in text
        assert "to do" not in text


async def test_what_driftline_cannot_do_is_said_in_words(running: Running):
    async with running(source_with(40, 10**9)) as pilot:
        text = await shown(pilot, diagnoses.setting())
        assert "to do set top_p to 1" in text
        assert "A aligns" not in text


async def test_f_opens_the_dialog_of_the_fix_that_is_named_and_the_list_in_the_table(running: Running):
    source = source_with(40, 10**9)
    async with running(source) as pilot:
        await shown(pilot, diagnoses.cause())
        await press(pilot, "F")
        assert isinstance(pilot.app.screen, ConfirmScreen)
        assert pilot.app.screen.plan.title == "set processed-logprobs to on"
        await press(pilot, "escape", "v")
        assert "which fix" in await press(pilot, "F")


async def test_v_and_escape_go_between_the_two_views(running: Running):
    async with running(source_with(40, 10**9)) as pilot:
        await shown(pilot, diagnoses.cause())
        text = await press(pilot, "v")
        assert "no reference run" in text
        assert "97 % sure" not in text
        assert "97 % sure" in await press(pilot, "escape")
        assert "the chart is beside the parity table: v shows it" in (await press(pilot, "y")).splitlines()[-1]
        assert isinstance(pilot.app.screen, ParityScreen)
        assert not pilot.app.screen.table_shown


async def test_judging_and_a_reference_show_the_table(running: Running):
    async with running(source_with(40, 10**9)) as pilot:
        await press(pilot, "5", "colon", *"judge", "space", *"all", "enter")
        assert isinstance(pilot.app.screen, ParityScreen)
        assert pilot.app.screen.table_shown


async def test_a_picture_takes_the_whole_screen_and_gives_it_back(running: Running):
    async with running(source_with(40, 10**9)) as pilot:
        before = await shown(pilot, diagnoses.cause())
        text = await press(pilot, "tab", "enter")
        assert "by the trainer's probability" in text
        assert "evidence" not in text
        assert await press(pilot, "escape") == before


@pytest.mark.parametrize("width", [24, 40, 58, 78, 118])
def test_lines_keep_to_their_width_and_their_inks(width: int):
    for make in (diagnoses.cause, diagnoses.two_causes, diagnoses.parts_missing, diagnoses.not_known):
        view = Answer(make(), Asked(asked=True))
        for rows in (cause_view.answer(view, GLYPH, width, 40), cause_view.evidence(make(), width, ruled_out=True)):
            for row in rows:
                assert sum(len(text) for text, _ in row) <= max(width, 30), row
        first = cause_view.answer(view, GLYPH, width, 40)[0]
        assert first[0][1] in (Ink.ALARM, Ink.WARN, Ink.TEXT)


@pytest.mark.parametrize("height", [1, 2, 3, 5, 8, 40])
def test_the_answer_and_what_to_do_have_room_first(height: int):
    rows = cause_view.answer(Answer(diagnoses.cause(), Asked(asked=True), None, "read-only"), GLYPH, 78, height)
    text = "\n".join("".join(part for part, _ in row) for row in rows)
    assert len(rows) <= height
    assert "the engine reports logprobs" in text
    if height >= 3:
        assert "to do switch processed logprobs on" in text


def test_an_empty_screen_says_at_most_four_lines():
    for asked in (
        Asked(), Asked(asked=True), Asked(asked=True, refused="this key may not"), Asked(asked=True, behind=12),
        Asked(tokens=9),
        Asked(asked=True, recorded=True), Asked(error="no diagnosis: X: y"),
    ):  # fmt: skip
        for width in (58, 78, 118):
            assert 1 <= len(cause_view.answer(Answer(None, asked), GLYPH, width, 20)) <= 4, (asked, width)


def test_one_bar_in_parts_has_exactly_its_width():
    for name in ("braille", "ascii"):
        glyphs = GLYPHS[name]
        for shares in ([1.0], [0.97, 0.03], [0.999, 1e-6, 1e-6], [0.2, 0.3, 0.5]):
            drawn = parts(shares, 40, glyphs)
            assert sum(map(len, drawn)) == 40
            assert all(drawn), "each part is seen"
            assert len({one[0] for one in drawn}) == len(shares), "and differ without colour"
    assert parts([], 40, GLYPH) == []
    assert parts([0.0], 40, GLYPH) == [""]
    assert lying(0.0, 10, GLYPH) == ""
    assert len(lying(1e-6, 10, GLYPH)) == 1
    assert lying(2.0, 10, GLYPH) == "█" * 10


def test_what_stands_out():
    assert standing_out((0.005, 0.22)) == {1}
    assert standing_out((0.19, 0.2)) == set()
    assert standing_out((float("nan"), 1.0)) == set()
    assert standing_out(()) == set()


async def test_tokens_refused_says_why_and_what_would_bring_them(running: Running):
    source = FakeSource()
    source.no_tokens = "this key may not read tokens"
    async with running(source) as pilot:
        await press(pilot, "5")
        await until(pilot, lambda: "this key may not read tokens" in screen_text(pilot))
        assert "--no-tokens" in screen_text(pilot)


def test_the_strongest_evidence_has_the_first_picture():
    for make in (diagnoses.cause, diagnoses.one_engine, diagnoses.healthy, diagnoses.parts_missing):
        chosen = cause_view.pictures(make())
        assert len(chosen) == min(3, len(make().profiles))
        assert len({one.instrument for one in chosen}) == len(chosen)
    assert cause_view.pictures(diagnoses.one_engine())[0].instrument == "engine"
    assert cause_view.pictures(None) == []
