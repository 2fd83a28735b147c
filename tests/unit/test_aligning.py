"""Bringing the backend home: what is set, in which order, what it is worth, how it goes, and back again."""

from __future__ import annotations

import math
from typing import Literal

import pytest

from console.aligning import effect, record
from console.aligning.course import Course
from console.aligning.plan import REFERENCE, SYNC, Gain, Wanted, batches, cost, measured, plan, undo, when, without
from console.aligning.wanted import other_actions, shares, wanted
from console.diagnosis.model import Action, Attribution, Cause, Diagnosis, Ranked, Share
from driftline.frames import Command, Effect, EngineFix, FixState, How, Measure

MISMATCH = "mismatch/abs_diff_mean"


def state(
    fix: str, requested: str = "off", how: How = "live", effective: str | None = None, generation: int = 0
) -> FixState:
    said = requested if effective is None else effective
    engines = tuple(EngineFix(f"engine-{i}", said, how) for i in range(2))
    return FixState(fix, requested, generation, "config", 0.0, how, engines)


def defaults(**changes: FixState) -> dict[str, FixState]:
    states = [
        state("processed-logprobs"),
        state("prefix-cache-off", generation=3),
        state("async-scheduling-off", how="not_available", effective=""),
        state("inflight-keep", how="next_sync"),
        state("fp32-lm-head", how="next_sync"),
    ]
    return {one.fix: one for one in states} | {one.fix: one for one in changes.values()}


def switch(fix: str, before: str, after: str, *, was: float, became: float, more: tuple[str, ...] = ()) -> Effect:
    low, high = became - was - 0.01, became - was + 0.01
    one = Measure(MISMATCH, was, became, low, high, 1000, 1000, became - was)
    return Effect("e", ((fix, before, after), *((other, "off", "on") for other in more)), 10, 5, 0.0, measures=(one,))


def cause(name: str, action: Action, layer: Literal["semantics", "inference path"] = "semantics") -> Ranked:
    return Ranked(name, Cause(name, name, layer, "step 0", (), "", action, "", 1), 0.9)


RAW = cause("raw-logprobs", Action("fix", "switch processed-logprobs on", "processed-logprobs", "on"))
CACHE = cause("stale-cache", Action("fix", "no cached prefix", "prefix-cache-off", "on"), "inference path")


# -- what is set, and in which order


def test_the_reference_set_live_first_then_what_a_sync_carries() -> None:
    made = plan(defaults(), {}, trainer=True)
    assert [one.fix for one in made.settings] == ["processed-logprobs", "prefix-cache-off", "fp32-lm-head"]
    assert made.sync
    assert made.title == "align: 3 fixes, 1 sync"
    orders = batches(made)
    assert [[one.what for one in batch] for batch in orders] == [
        ["processed-logprobs on"], ["prefix-cache-off on"], ["fp32-lm-head on", "sync weights"],
    ]  # fmt: skip
    assert orders[1][0].generation == 3


def test_what_is_in_force_is_left_alone() -> None:
    made = plan(
        defaults(a=state("processed-logprobs", "on"), b=state("fp32-lm-head", "on", "next_sync")), {}, trainer=True
    )
    assert [one.fix for one in made.settings] == ["prefix-cache-off"]
    assert not made.sync
    assert plan({}, {}, Wanted({}), trainer=True).empty


def test_without_a_prefix_cache_its_reads_are_off_already() -> None:
    assert "prefix-cache-off" not in {
        one.fix for one in plan(defaults(a=state("prefix-cache-off", "removed")), {}, trainer=True).settings
    }


def test_a_fix_that_waits_for_a_sync_has_one_made() -> None:
    waiting = state("fp32-lm-head", "on", "next_sync", effective="off")
    made = plan(defaults(a=waiting), {}, Wanted({"fp32-lm-head": "on"}), trainer=True)
    assert made.settings == ()
    assert made.sync


def test_no_sync_is_asked_of_a_run_without_a_trainer() -> None:
    made = plan(defaults(), {}, trainer=False)
    assert not made.sync
    assert when(made.settings[-1], sync=made.sync) == "with the next sync"


def test_what_cannot_be_switched_or_needs_a_restart_is_said_and_not_sent() -> None:
    restart = state("processed-logprobs", how="engine_restart")
    made = plan(
        defaults(a=restart), {}, Wanted({"processed-logprobs": "on", "async-scheduling-off": "on"}), trainer=True
    )
    assert made.settings == ()
    why = {one.fix: one.why for one in made.skipped}
    assert "rolling restart: driftline fix set processed-logprobs on" in why["processed-logprobs"]
    assert "not available here" in why["async-scheduling-off"]
    gone = plan({}, {}, Wanted({"fp32-lm-head": "on"}), trainer=True)
    assert [one.why for one in gone.skipped] == ["not reported by this run"]


def test_the_cost_is_the_pause_of_the_last_sync() -> None:
    made = plan(defaults(), {}, trainer=True)
    assert "about 0.11 s" in cost(made, 0.11)
    assert "not measured yet" in cost(made, None)
    assert cost(plan(defaults(), {}, Wanted({"processed-logprobs": "on"}), trainer=True), 0.1).startswith("none")


# -- what it is worth


def test_a_gain_is_attributed_else_measured_else_not_known() -> None:
    effects = {"prefix-cache-off": switch("prefix-cache-off", "on", "off", was=0.01, became=0.04)}
    asked = Wanted(REFERENCE.values, shares={"semantics": Gain(0.15, 0.14, 0.16, "attribution")})
    gains = {one.fix: one.gain for one in plan(defaults(), effects, asked, trainer=True).settings}
    assert str(gains["processed-logprobs"]) == "−.15 (.14 to .16)"
    assert gains["prefix-cache-off"].nats == pytest.approx(0.03)
    assert gains["prefix-cache-off"].low == pytest.approx(0.02)
    assert str(gains["prefix-cache-off"]) == "−.03 (.02 to .04) measured"
    assert str(gains["fp32-lm-head"]) == "not known"


def test_switching_a_fix_on_measures_the_same_gain_as_switching_it_off() -> None:
    gain = measured("processed-logprobs", switch("processed-logprobs", "off", "on", was=0.16, became=0.004))
    assert gain.nats == pytest.approx(0.156)
    assert gain.low == pytest.approx(0.146)
    assert gain.high == pytest.approx(0.166)


def test_an_effect_of_several_fixes_is_no_ones_gain() -> None:
    together = switch("processed-logprobs", "off", "on", was=0.16, became=0.004, more=("fp32-lm-head",))
    assert math.isnan(measured("processed-logprobs", together).nats)
    assert math.isnan(measured("processed-logprobs", None).nats)
    same = switch("prefix-cache-off", "on", "removed", was=0.1, became=0.1)
    assert math.isnan(measured("prefix-cache-off", same).nats)


# -- what a diagnosis asks for


def test_a_named_cause_asks_for_its_fix_and_what_is_not_ruled_out_goes_along() -> None:
    found = Diagnosis("cause", "raw logprobs", 0.97, ("raw-logprobs",), (RAW, CACHE), actions=(RAW.cause.action,))  # type: ignore[union-attr]
    asked = wanted(found)
    assert dict(asked.values) == {"processed-logprobs": "on", "prefix-cache-off": "on"}
    made = plan(defaults(), {}, asked, trainer=True)
    assert {one.fix: one.named for one in made.settings} == {"processed-logprobs": True, "prefix-cache-off": False}
    assert made.why == "raw logprobs"
    assert not made.sync


def test_a_cause_that_a_sync_repairs_asks_for_one() -> None:
    found = Diagnosis("cause", "engine-1 missed version 41", 0.9, actions=(Action("sync", "send the weights again"),))
    made = plan(defaults(), {}, wanted(found), trainer=True)
    assert (made.settings, made.sync) == ((), True)
    assert made.title == "align: 1 sync"


def test_without_a_cause_it_is_the_reference_set_and_where_nothing_is_wrong_nothing() -> None:
    assert wanted(None) is REFERENCE
    unknown = wanted(Diagnosis("unknown", "not one that I know.", 0.8))
    assert unknown.values == REFERENCE.values
    assert unknown.why.startswith("not one that I know; so every fix")
    assert plan(defaults(), {}, wanted(Diagnosis("normal", "nothing wrong", 0.99)), trainer=True).empty


def test_a_guess_is_not_acted_on() -> None:
    guess = Diagnosis("cause", "top-p in the engine", 0.17, ("top-p",), (RAW,), actions=(RAW.cause.action,))  # type: ignore[union-attr]
    assert wanted(guess).values == REFERENCE.values
    assert wanted(guess).why.startswith("only 17 % sure that top-p in the engine; so every fix")
    assert other_actions(guess) == []


def test_a_share_is_expected_of_the_fix_that_is_named_and_of_no_other() -> None:
    layers = (Share("semantics", 0.15, 0.14, 0.16), Share("inference path", 0.02, 0.01, 0.03))
    found = Diagnosis(
        "cause", "top-p", 0.97, ("top-p",), (RAW, CACHE), attribution=Attribution(0.17, layers, "passive", 9),
        actions=(Action("setting", "set top_p to 1"), CACHE.cause.action),  # type: ignore[union-attr]
    )  # fmt: skip
    made = plan(defaults(), {}, wanted(found), trainer=True)
    gains = {one.fix: (one.named, str(one.gain)) for one in made.settings}
    assert gains == {"processed-logprobs": (False, "not known"), "prefix-cache-off": (True, "−.02 (.01 to .03)")}


def test_what_is_left_out_is_not_sent_and_the_sync_goes_with_what_needs_it() -> None:
    made = plan(defaults(), {}, trainer=True)
    assert made.names == ("processed-logprobs", "prefix-cache-off", "fp32-lm-head", SYNC)
    less = without(made, {"prefix-cache-off"})
    assert [one.what for batch in batches(less) for one in batch] == [
        "processed-logprobs on", "fp32-lm-head on", "sync weights",
    ]  # fmt: skip
    assert without(made, {"fp32-lm-head"}).title == "align: 2 fixes", "no sync for fixes that are live"
    late = without(made, {SYNC})
    assert (late.sync, when(late.settings[-1], sync=late.sync)) == (False, "with the next sync")
    assert without(made, set(made.names)).empty
    assert without(made, ()) == made
    asked = plan(defaults(), {}, Wanted({"fp32-lm-head": "on"}, sync=True), trainer=True)
    assert without(asked, {"fp32-lm-head"}).sync, "asked for whatever is set"
    back = without(undo({"processed-logprobs": ("on", "off"), "fp32-lm-head": ("on", "off")}, defaults(), trainer=True),
                   {"fp32-lm-head"})  # fmt: skip
    assert ([one.fix for one in back.settings], back.sync, back.undoes) == (["processed-logprobs"], False, True)


def test_what_is_expected_follows_what_is_left_out() -> None:
    share = Gain(0.3, 0.2, 0.4, "attribution")
    update = Gain(0.05, 0.04, 0.06, "attribution")
    effects = {"prefix-cache-off": switch("prefix-cache-off", "on", "off", was=0.01, became=0.04)}
    shared = Wanted(
        {"processed-logprobs": "on", "prefix-cache-off": "on", "fp32-lm-head": "on"}, sync=True,
        shares={"semantics": share, "weight-update path": update}, named=frozenset({"processed-logprobs"}),
    )  # fmt: skip
    made = plan(defaults(), effects, shared, trainer=True)
    assert made.sync_gain == update
    assert made.together == "−.38, and 1 not known"
    assert without(made, {"processed-logprobs"}).together == "−.08, and 1 not known"
    assert without(made, {"fp32-lm-head", SYNC}).together == "−.33"
    assert without(made, {"processed-logprobs", "prefix-cache-off", SYNC}).together == ""


def test_shares_go_by_layer_and_other_actions_are_named() -> None:
    found = Attribution(
        0.16, (Share("semantics", 0.15, 0.14, 0.16), Share("weight update", 0.01, 0, 0.02)), "passive", 9
    )
    assert shares(found)["semantics"] == Gain(0.15, 0.14, 0.16, "attribution")
    assert shares(found)["weight-update path"].nats == 0.01
    assert shares(None) == {}
    setting = Action("setting", "set the trainer's temperature to .7", setting="trainer.temperature")
    assert other_actions(Diagnosis("cause", "", 1, actions=(setting,))) == ["set the trainer's temperature to .7"]
    assert other_actions(None) == []


# -- back again


def commands(*marks: dict[str, str]) -> list[Command]:
    return [Command(f"c{i}", "mark", args) for i, args in enumerate(marks)]


def test_an_alignment_is_found_in_the_journal_and_set_back() -> None:
    made = plan(defaults(), {}, trainer=True)
    note = record.mark(made)
    assert note["text"] == "align: processed-logprobs on, prefix-cache-off on, fp32-lm-head on and a sync"
    noted = record.found([Command("x", "sync", {}), *commands({"text": "mine"}, note)])
    assert noted is not None
    on = defaults(
        a=state("processed-logprobs", "on"),
        b=state("prefix-cache-off", "on"),
        c=state("fp32-lm-head", "on", "next_sync"),
    )
    back = undo(noted, on, trainer=True)
    assert [(one.fix, one.value) for one in back.settings] == [
        ("processed-logprobs", "off"), ("prefix-cache-off", "off"), ("fp32-lm-head", "off"),
    ]  # fmt: skip
    assert back.sync
    assert back.title == "undo the alignment: 3 fixes, 1 sync"
    assert record.found(commands(record.mark(back), note)) is None


def test_what_was_set_to_something_else_since_stays() -> None:
    noted = {"prefix-cache-off": ("off", "on"), "processed-logprobs": ("off", "on")}
    now = defaults(a=state("prefix-cache-off", "removed"), b=state("processed-logprobs", "off"))
    back = undo(noted, now, trainer=True)
    assert back.settings == ()
    assert [(one.fix, one.why) for one in back.skipped] == [("prefix-cache-off", "has been set to removed since")]


@pytest.mark.parametrize("text", ["", "nonsense", "fp32-lm-head:off", "warp-drive:off>on", "fp32-lm-head:off>maybe"])
def test_a_record_of_something_else_is_none(text: str) -> None:
    assert record.found(commands({"text": "x", record.ALIGN: text})) is None


# -- how it goes


def test_each_batch_waits_for_the_one_before_it() -> None:
    course = Course(plan(defaults(), {}, trainer=True), 40)
    (first,) = course.due()
    assert course.due() == []
    course.sent(first, "c1")
    assert course.ids == ["c1"]
    course.heard("c1", "accepted")
    assert course.due() == []
    course.heard("c1", "applied", "on 2/2 engines")
    (second,) = course.due()
    course.sent(second, "c2")
    course.heard("c2", "applied")
    head, sync = course.due()
    course.sent(head, "c3")
    course.sent(sync, "c4")
    course.look(44)
    assert course.ended is None
    course.heard("c4", "applied")
    assert not course.over
    course.heard("c3", "applied")
    course.look(45)
    assert course.over
    assert course.ended == 45
    assert course.standing == "all applied"
    course.look(56)
    assert not course.watched
    course.look(57)
    assert course.watched


def test_a_failure_ends_it_and_what_is_under_way_is_waited_for() -> None:
    course = Course(plan(defaults(), {}, Wanted({"fp32-lm-head": "on"}), trainer=True), 1)
    head, sync = course.due()
    course.sent(head, "c1")
    course.sent(sync, "c2")
    course.heard("c2", "failed", "engine-1 died")
    assert not course.over
    course.heard("c1", "expired", "its deadline passed before a sync came")
    assert course.over
    assert course.due() == []
    assert course.standing == "0 of 2 applied; sync weights: failed: engine-1 died"


def test_a_command_that_the_hub_does_not_take_ends_it_and_the_next_is_not_sent() -> None:
    course = Course(plan(defaults(), {}, Wanted({"fp32-lm-head": "on"}), trainer=True), 1)
    head, sync = course.due()
    course.refused(head, "role viewer")
    assert course.state(sync) == "waiting"
    assert course.over
    assert course.error == "role viewer"
    assert course.due() == []


# -- what came of it


def test_the_effect_is_of_the_steps_before_and_of_those_after_what_is_in_flight() -> None:
    values = [(step, 0.2 if step <= 44 else 0.01) for step in range(1, 70)]
    found = effect.changes({MISMATCH: values, "reward/mean": []}, 40, 42)
    assert [one.title for one in found] == ["mismatch"]
    assert found[0].before == pytest.approx(0.2)
    assert found[0].after == pytest.approx(0.01)
    assert effect.sentence(found) == "mismatch .2 → .01 (means of 10 and 10 steps)"
    assert effect.documents(found)[MISMATCH]["steps"] == {"before": 10, "after": 10}


def test_an_effect_that_is_not_there_yet_is_a_dash() -> None:
    found = effect.changes({MISMATCH: [(1, 0.2), (2, 0.2)]}, 2, None)
    assert str(found[0]) == "mismatch .2 → –"
    assert effect.sentence([]) == "the run reports no mismatch, clip fraction or reward"
