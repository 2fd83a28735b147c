"""The fixes screen: which fix helps most, what is known of each, and who did what."""

from __future__ import annotations

import math

import msgspec
import pytest

from console.tui.dialogs.confirm import ConfirmScreen
from console.tui.dialogs.list_dialog import ListDialog
from console.tui.paint.glyphs import GLYPHS
from console.tui.screens.fixes import view as views
from console.tui.screens.fixes.panes import Audit, Detail, FixTable
from console.tui.screens.fixes.screen import FixesScreen
from driftline.catalog.fixes import BY_ID
from driftline.frames import Ack, Command, Effect, Event, Measure
from tests.tui.conftest import Running, press, screen_text, settle, source_with
from tests.tui.synthetic import START, FakeSource, fix_state, run_state

G = GLYPHS["braille"]
MISMATCH, CLIP, KL = (metric for metric, _ in views.MEASURED)


def interval(measure: Measure) -> Measure:
    """With the rest of what a trainer reports beside an interval: here the ratio's is that of the difference."""
    if not math.isfinite(measure.low):
        return measure
    change, ratios = measure.after - measure.before, [1 + one / measure.before for one in (measure.low, measure.high)]
    return msgspec.structs.replace(
        measure, change=change, ratio=1 + change / measure.before, ratio_low=ratios[0], ratio_high=ratios[1],
        unit="step", units_before=20, units_after=14,
    )  # fmt: skip


def measured(
    fix: str, before: str, after: str, mismatch: tuple[float, float, float, float], **changes: object
) -> Effect:
    first, last, low, high = mismatch
    measures = (
        interval(Measure(MISMATCH, first, last, low, high, 1200, 3400)),
        interval(Measure(CLIP, 0.12, 0.11, -0.03, 0.01, 1200, 3400)),
        Measure(KL, 0.05, math.nan, math.nan, math.nan, 1200, 0),
    )
    made = Effect(f"e-{fix}", ((fix, before, after),), 45, 22, START, "operator ana", 20, 20, measures, True)
    return msgspec.structs.replace(made, **changes)


def acted() -> FakeSource:
    """Two fixes measured, one of them by switching it off; a command that was refused, and a take over."""
    source = source_with()
    source.feed([measured("processed-logprobs", "off", "on", (0.47, 0.038, -0.44, -0.42))])
    source.feed([measured("fp32-lm-head", "on", "off", (0.03, 0.04, 0.006, 0.014))])
    source.feed([fix_state("inflight-keep", "on", ("on", "off"), "next_sync")])
    for i, (fix, state, detail) in enumerate(
        (
            ("processed-logprobs", "applied", "on 2/2 engines"),
            ("async-scheduling-off", "refused", "not available on cpu"),
            ("inflight-keep", "accepted", ""),
        )
    ):
        args = {"fix": fix, "value": "on"}
        source.feed([Command(f"a{i}", "fix.set", args, 0, START + 60, "operator ana")])
        source.feed([Ack(f"a{i}", "queued", START + 10 * i), Ack(f"a{i}", state, START + 10 * i + 2.5, detail)])  # type: ignore[arg-type]
    text = "operator ana (ana@here:7) took over from operator bo (bo@box:41)"
    source.feed([Event(START, "warn", "writer.taken", text)], time=START + 15)
    return source


def test_a_gain_is_a_share_of_the_value_without_the_repair():
    fix = BY_ID["processed-logprobs"]
    one = views.gain(fix, measured(fix.id, "off", "on", (0.5, 0.05, -0.46, -0.44)), MISMATCH)
    assert one is not None
    assert (one.share.change, one.share.low, one.share.high) == pytest.approx((-0.9, -0.92, -0.88))
    assert one.sure
    # Taken away again, it says the same of the repair.
    back = views.gain(fix, measured(fix.id, "on", "off", (0.05, 0.5, 0.35, 0.575)), MISMATCH)
    assert back is not None
    assert (back.share.change, back.share.low, back.share.high) == pytest.approx((-0.9, -0.92, -0.875))
    assert back.reverse
    # Of a set only if all of it was taken away.
    for other, reverse in ((("inflight-keep", "off", "on"), False), (("inflight-keep", "on", "off"), True)):
        changes = ((fix.id, "on", "off"), other)
        both = views.gain(fix, measured(fix.id, "on", "off", (0.05, 0.5, 0.35, 0.575), changes=changes), MISMATCH)
        assert both is not None
        assert (both.fixes, both.reverse) == (2, reverse)


@pytest.mark.parametrize(
    ("effect", "text"),
    [
        (None, "not measured yet: switch it"),
        (measured("fp32-lm-head", "off", "on", (0.5, math.nan, math.nan, math.nan), done=False), "measuring"),
        (measured("fp32-lm-head", "off", "on", (0.5, 0.05, -0.46, -0.44)), "−90 % (−92 to −88)"),
        (measured("fp32-lm-head", "off", "on", (0.5, 0.49, -0.1, 0.08)), "−2 % (−20 to +16) ?"),
        (measured("fp32-lm-head", "off", "on", (0.5, 0.05, math.nan, math.nan)), "−90 % ?"),
        (
            measured("fp32-lm-head", "off", "on", (0.5, 0.05, -0.46, -0.44),
                     changes=(("fp32-lm-head", "off", "on"), ("inflight-keep", "off", "on"))),
            "2 fixes: −90 % (−92 to −88)",
        ),
    ],
)  # fmt: skip
def test_a_gain_says_no_more_than_was_measured(effect: Effect | None, text: str):
    fix = BY_ID["fp32-lm-head"]
    assert views.gain_text(views.gain(fix, effect, MISMATCH), effect, available=True)[0] == text


JOINT = tuple((fix, "off", "on") for fix in ("processed-logprobs", "prefix-cache-off", "inflight-keep", "fp32-lm-head"))


@pytest.mark.parametrize("width", [80, 100, 110, 120])
async def test_an_effect_is_whole_in_the_table_at_every_width(running: Running, width: int):
    """Sign, size and interval, and how many fixes changed with it: also of a fix that waits for something."""
    source = acted()
    effect = measured("processed-logprobs", "off", "on", (0.5, 0.0001, -0.4999, -0.4998), changes=JOINT)
    source.feed([effect, fix_state("fp32-lm-head", "off", ("on", "off"), "next_sync")])
    source.feed([measured("fp32-lm-head", "off", "on", (0.5, 0.05, -0.46, -0.44))])
    async with running(source, size=(width, 24)) as pilot:
        lines = (await press(pilot, "4")).split("\n")
        row = next(line for line in lines if "processed logprobs" in line and "on 2/2" in line)
        assert "4 fixes: −99.9 % (−99.9 to −99.9)" in row
        assert "most" not in row
        waits = next(line for line in lines if "fp32 lm_head" in line and "most:" not in line)
        assert "engine-0 next sync" in waits
        assert "−90 % (−92 to −88)" in waits
        head = next(line for line in lines if "Δ mismatch (95 %)" in line)
        assert head.index("Δ") == row.index("4 fixes"), "the column stands under its head"


async def test_what_was_measured_is_the_first_thing_that_is_shown_of_a_fix(running: Running):
    source = acted()
    tokens = measured("processed-logprobs", "off", "on", (0.47, 0.038, -0.44, -0.42))
    many = tuple(
        msgspec.structs.replace(measure, tokens_before=1_234_567, tokens_after=98_765_432)
        for measure in tokens.measures
    )
    source.feed([msgspec.structs.replace(tokens, measures=many)])
    async with running(source, size=(80, 24)) as pilot:
        text = await press(pilot, "4")
        assert "Δ −.43 (95 %: −.44 to −.42)  20 and 14 steps" in text
        after = text.partition(" effect ")[2]
        assert after.index("KL") < after.index("what ") < after.index("who did what")


async def test_of_a_run_that_is_over_no_operator_is_asked_to_switch_anything(running: Running):
    source = source_with(20, 10**9)
    source.feed([run_state(20, "finished")])
    async with running(source, (80, 24)) as pilot:
        text = await press(pilot, "4")
        assert "no effect was measured" in text
        assert "switch" not in text


async def test_which_fix_helps_most_is_said_and_the_order_follows(running: Running):
    async with running(acted()) as pilot:
        text = await press(pilot, "4")
        assert isinstance(pilot.app.screen, FixesScreen)
        assert "helps mismatch most: processed logprobs −92 % (−94 to −89)" in text
        table = pilot.app.screen.query_one(FixTable)
        assert [view.id for view in table.views] == list(BY_ID)
        await press(pilot, "down", "down", "down", "down")
        assert table.chosen == "fp32-lm-head"
        text = await press(pilot, "o")
        assert "what lowers it most first" in text.splitlines()[-1]
        assert [view.id for view in table.views][:2] == ["processed-logprobs", "fp32-lm-head"]
        assert table.chosen == "fp32-lm-head", "the cursor stays on its fix"
        assert "catalogue" in (await press(pilot, "o")).splitlines()[-1]


async def test_the_effect_of_a_set_is_shown_once_and_makes_no_fix_the_best(running: Running):
    source = acted()
    effect = measured("processed-logprobs", "off", "on", (0.5, 0.05, -0.46, -0.44), changes=JOINT[:3:2])
    source.feed([effect, measured("fp32-lm-head", "off", "on", (0.5, 0.49, -0.1, 0.08))])
    async with running(source, (120, 40)) as pilot:
        text = await press(pilot, "4")
        assert "mismatch, 2 fixes: −90 % (−92 to −88); none was measured alone" in text
        assert "helps mismatch most" not in text
        assert "● most" not in text
        table = text.partition("who did what")[0]
        assert table.count("−90 % (−92 to −88)") == 2, "the first line and one row"
        assert "as a set with inflight-keep on" in text
        assert "at the change, against the trend" in text
        source.feed([fix_state("inflight-keep", "on", ("on", "on"), "next_sync")])
        await press(pilot, "down", "down", "down")
        text = screen_text(pilot)
        assert "with processed logprobs" in text
        assert "measured for the set: see processed logprobs" in text
        # A fix with a smaller effect that was measured alone is the best of those.
        source.feed([measured("fp32-lm-head", "off", "on", (0.5, 0.4, -0.15, -0.05))])
        await settle(pilot)
        assert "helps mismatch most: fp32 lm_head −20 % (−30 to −10)" in screen_text(pilot)
        await press(pilot, "o")
        assert [view.id for view in pilot.app.screen.query_one(FixTable).views][:2] == [
            "fp32-lm-head", "processed-logprobs",
        ]  # fmt: skip


async def test_the_effect_can_be_shown_in_other_metrics(running: Running):
    async with running(acted()) as pilot:
        await press(pilot, "4")
        text = await press(pilot, "v")
        assert "no effect on clip is sure yet" in text
        assert "−8 % (−25 to +8) ?" in text
        assert "effects shown in KL" in await press(pilot, "v")
        assert "shown in mismatch" in await press(pilot, "v")


async def test_what_is_chosen_is_shown_in_full(running: Running):
    async with running(acted(), (120, 40)) as pilot:
        text = await press(pilot, "4")
        for words in ("why", "wanted", "on by op:ana", "engine-0 on since v", "before", "after", "1,200 tokens",
                      "95 %: −.44 to −.42", "too few tokens on one side", "semantics"):  # fmt: skip
            assert words in text, words
        text = await press(pilot, "down")
        assert "switched, and the run has not yet said what changed" in text


async def test_a_fix_that_was_switched_and_not_measured_is_not_to_be_switched(running: Running):
    source = source_with(10)
    source.feed([fix_state("processed-logprobs", "off", seen) for seen in ((), ("off",), ("off", "off"))])
    async with running(source) as pilot:
        text = await press(pilot, "4")
        assert "no effect measured yet: switch a fix" in text
        assert "switched, " not in text
        source.feed([fix_state("processed-logprobs", "on", seen, version=11) for seen in (("on", "off"), ("on", "on"))])
        await settle(pilot)
        text = screen_text(pilot)
        assert "switched, not measured yet" in text
        assert "switched, and the run has not yet said what changed" in text
        assert "switch a fix to" not in text


async def test_the_audit_trail_has_every_command_and_take_over_newest_first(running: Running):
    async with running(acted(), (200, 60)) as pilot:
        await press(pilot, "4")
        entries = pilot.app.screen.query_one(Audit).entries
        assert [(entry.what, entry.state) for entry in entries] == [
            ("fix inflight-keep on", "accepted"), ("took over from operator bo (bo@box:41)", "taken"),
            ("fix async-scheduling-off on", "refused"), ("fix processed-logprobs on", "applied"),
        ]  # fmt: skip
        text = screen_text(pilot)
        assert "refused" in text
        assert "not available on cpu" in text
        assert "op:ana    taken    took over from operator bo (bo@box:41)" in text


async def test_the_audit_trail_scrolls_and_stays_while_news_come(running: Running):
    source = acted()
    async with running(source) as pilot:
        await press(pilot, "4", "tab", "tab")
        audit = pilot.app.screen.query_one(Audit)
        assert pilot.app.focused is audit
        await press(pilot, "down")
        first = audit.entries[audit.top]
        source.feed([Command("z", "sync", {}, -1, 0.0, "operator bo"), Ack("z", "applied", START + 99)])
        await settle(pilot)
        assert audit.entries[audit.top] == first
        await press(pilot, "up")
        assert audit.top == 1


@pytest.mark.parametrize("key", ["enter", "F"])
async def test_the_chosen_fix_is_switched(running: Running, key: str):
    source = acted()
    async with running(source) as pilot:
        await press(pilot, "4")
        text = await press(pilot, key)
        assert isinstance(pilot.app.screen, ConfirmScreen)
        assert "set processed-logprobs to off" in text
        await press(pilot, "escape", "down", key)
        assert isinstance(pilot.app.screen, ListDialog)
        assert pilot.app.screen.heading.endswith(": which value")


async def test_enter_on_another_pane_enlarges_it(running: Running):
    async with running(acted()) as pilot:
        await press(pilot, "4", "tab", "enter")
        detail = pilot.app.screen.query_one(Detail)
        assert detail.size.height == 22
        assert not pilot.app.screen.query_one(FixTable).display
        await press(pilot, "escape")
        assert pilot.app.screen.query_one(FixTable).display


async def test_a_chosen_fix_scrolls_where_it_does_not_fit(running: Running):
    async with running(acted()) as pilot:
        text = await press(pilot, "4", "tab")
        assert "more below" in text
        detail = pilot.app.screen.query_one(Detail)
        await press(pilot, "down")
        assert detail.top == 1
        await press(pilot, "up", "up")
        assert detail.top == 0


async def test_before_anything_is_reported_the_screen_says_so(running: Running):
    async with running(FakeSource()) as pilot:
        text = await press(pilot, "4")
        assert "not reported yet" in text
        assert "no one has acted on this run" in text
