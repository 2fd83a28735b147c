"""Effects of fixes and phases of syncs as `fix list` and `sync` show them."""

from __future__ import annotations

import json
import math

import msgspec
import pytest

from console.cli.verbs.fix import _document, _effect_line, _line
from console.cli.verbs.operate import phases
from console.formatting import to_json
from console.status.fix_effects import effect_document, effect_line, relative
from console.status.summary import summarise
from driftline.frames import Effect, EngineFix, FixState, Measure, Span

CHANGE = ("processed-logprobs", "off", "on")
STEPS = {"unit": "step", "units_before": 20, "units_after": 20}
MISMATCH = Measure("mismatch/abs_diff_mean", 0.16, 0.004, -0.17, -0.15, 5210, 4880, -0.158, 0.025, 0.02, 0.031, **STEPS)
CLIP = Measure("policy/clip_fraction", 0.3, 0.02, -0.31, -0.25, 5000, 4800, -0.28, 0.067, 0.05, 0.09, **STEPS)
KL = Measure("policy/kl_new_old", 0.05, 0.001, -0.06, -0.04, 5000, 4800, -0.049, 0.02, 0.01, 0.04, **STEPS)
OLD = Measure("mismatch/abs_diff_mean", 0.1, 0.5, 0.3, 0.5, 9, 9)
"""As a version before 0.2 recorded it."""


NUMBERS = ("before", "after", "change", "ci", "ratio", "ratio_ci", "unit", "units", "note", "tokens")


def effect(**changes: object) -> Effect:
    full = Effect("45-1-x", (CHANGE,), 45, 45, 9.0, "op:ana", 20, 20, (MISMATCH, CLIP, KL), done=True)
    return msgspec.structs.replace(full, **changes)


def state(fix: str = "processed-logprobs", value: str = "on", *engines: EngineFix) -> FixState:
    return FixState(fix, value, 1, "op:ana", 1.0, "live", engines or (EngineFix("engine-0", value, "live", 45, 45),))


def test_the_line_for_people() -> None:
    assert effect_line(effect()) == (
        "mismatch .16 -> .004, -.16 at the change, against the trend "
        "(95 % -.17 to -.15; 20 and 20 steps, 5,210/4,880 tokens)"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"done": False, "steps_after": 3}, "tokens); so far, 3 steps after"),
        ({"measures": (), "detail": "nothing to compare"}, "not measured; nothing to compare"),
        (
            {"changes": (CHANGE, ("fp32-lm-head", "off", "on"))},
            "2 fixes together (processed-logprobs on, fp32-lm-head on); mismatch .16",
        ),
        (
            {"measures": (Measure("mismatch/abs_diff_mean", 0.16, math.nan, math.nan, math.nan, 52, 0),)},
            "mismatch .16 -> - (no interval yet; 52/0 tokens)",
        ),
        ({"measures": (OLD,)}, "95 % +.3 to +.5 by sequence, which is too narrow"),
        (
            {"measures": (msgspec.structs.replace(OLD, low=math.nan, high=math.nan, note="too few to say: 1"),)},
            "(too few to say: 1; 9/9 tokens)",
        ),
    ],
)
def test_the_line_says_what_is_missing_or_mixed_in(changes: dict[str, object], says: str) -> None:
    assert says in effect_line(effect(**changes))


def test_the_document_has_the_documented_keys_and_strict_json() -> None:
    missing = Measure("mismatch/abs_diff_mean", 0.16, math.nan, math.nan, math.nan, 52, 0)
    for one in (effect(), effect(measures=(missing,)), effect(measures=())):
        document = json.loads(to_json(effect_document(one)), parse_constant=pytest.fail)
        assert list(document) == [
            "metric", *NUMBERS, "steps", "clip", "kl", "changes", "joint", "done", "step", "version", "by", "time",
            "id", "detail",
        ]  # fmt: skip
        assert list(document["clip"]) == ["metric", *NUMBERS]
    full = effect_document(effect())
    assert (full["before"], full["after"], full["ci"]) == (0.16, 0.004, [-0.17, -0.15])
    assert full["tokens"] == {"before": 5210, "after": 4880}
    assert full["kl"]["ci"] == [-0.06, -0.04]
    assert (full["change"], full["ratio"], full["ratio_ci"]) == (-0.158, 0.025, [0.02, 0.031])
    assert (full["unit"], full["units"], full["joint"]) == ("step", {"before": 20, "after": 20}, False)
    assert full["changes"] == [{"fix": "processed-logprobs", "before": "off", "after": "on"}]
    assert effect_document(effect(measures=(missing,)))["ci"][0] != full["ci"][0]


def test_a_fix_carries_the_effect_of_its_newest_change_and_null_without_one() -> None:
    both = effect(changes=(CHANGE, ("fp32-lm-head", "off", "on")))
    found = summarise([state(), effect(step=3), both])
    assert found.effects == {"processed-logprobs": both, "fp32-lm-head": both}
    assert _document("processed-logprobs", found.fixes["processed-logprobs"], both)["effect"] == effect_document(both)
    assert _document("prefix-cache-off", None, None)["effect"] is None
    assert effect_document(both)["joint"]


def test_the_effect_of_a_set_is_printed_once() -> None:
    both = effect(changes=(("fp32-lm-head", "off", "on"), CHANGE))
    found = summarise([state(), both])
    assert _effect_line(found, "processed-logprobs", both).startswith("2 fixes together")
    assert _effect_line(found, "fp32-lm-head", both) == "measured together with processed-logprobs: see there"
    alone = summarise([state(), both, effect(id="46-2-x")])
    assert _effect_line(alone, "processed-logprobs", alone.effects["processed-logprobs"]).startswith("mismatch")
    assert _effect_line(alone, "fp32-lm-head", both).startswith("2 fixes together"), "its first fix has a newer one"


NAN = math.nan


@pytest.mark.parametrize(
    ("before", "after", "ratios", "text", "back"),
    [
        (0.5, 0.05, (0.1, 0.08, 0.12), "−90 % (−92 to −88)", "×10 (×8.3 to ×12)"),
        (0.5, 0.001, (0.002, 0.0011, 0.0041), "−99.8 % (−99.8 to −99.5)", "×500 (×244 to ×909)"),
        (0.5, 1e-9, (2e-9, 1.1e-9, 3e-9), "−99.9 % (−99.9 to −99.9)", "×500M (×333M to ×909M)"),
        (0.5, 0.0, (0.0, NAN, NAN), "to 0", None),
        (0.0, 0.5, (NAN, NAN, NAN), None, None),
        (0.0, 0.0, (NAN, NAN, NAN), None, None),
        (0.5, 0.5, (1.0, 0.8, 1.25), "+0 % (−20 to +25)", "+0 % (−20 to +25)"),
        (0.05, 0.5, (10.0, 8.0, 12.5), "×10 (×8 to ×12)", "−90 % (−92 to −88)"),
        (0.5, 0.05, (NAN, NAN, NAN), "−90 %", "×10"),
        (0.5, NAN, (NAN, NAN, NAN), None, None),
    ],
)
def test_a_relative_change_has_no_bound_that_cannot_be(
    before: float, after: float, ratios: tuple[float, float, float], text: str | None, back: str | None
) -> None:
    measure = Measure("m", before, after, -1.0, -0.1, 9, 9, after - before, *ratios)
    for reverse, want in ((False, text), (True, back)):
        found = relative(measure, reverse=reverse)
        assert (str(found) if found is not None else None) == want
        assert found is None or (found.sure and not found.low < -1 and not found.high < -1)


def test_a_fix_on_both_sides_counts_the_engines_and_names_the_trainer() -> None:
    sides = EngineFix("engine-0", "on", "next_sync", 4, 4), EngineFix("trainer", "on", "next_sync", 4, 4)
    said = _line("fp32-lm-head", state("fp32-lm-head", "on", *sides))
    assert "on  1/1  and the trainer" in said
    assert _line("prefix-cache-off", state("prefix-cache-off", "removed")).startswith("●")
    assert _line("inflight-keep", state("inflight-keep", "wait")).startswith("○")


def test_a_sync_s_row_has_phases_rate_digest_and_what_only_the_acknowledgement_says() -> None:
    def span(phase: str, seconds: float, result: str = "") -> Span:
        return Span("sync-7", "engine-0", phase, 1.0, seconds, 4, 5, 5, 2_000_000, 3, straddling=17, result=result)

    frames = [
        span("pause", 0.03), span("load", 0.02), span("verify", 0.01, "d1"), span("reset", 0.0, "freed"),
        span("resume", 0.001), span("total", 0.061),
    ]  # fmt: skip
    reported = {"engine-0.held_s": 0.06, "engine-0.attempts": 2, "engine-0.aborted": 0, "engine-1.held_s": 9.0}
    (row,) = phases(frames, "sync-7", reported)
    assert row == {
        "engine": "engine-0", "version_before": 4, "version_after": 5, "pause_s": 0.03, "load_s": 0.02,
        "verify_s": 0.01, "reset_s": 0.0, "resume_s": 0.001, "total_s": 0.061, "held_s": 0.06, "aborted": 0,
        "attempts": 2, "verified": None,
        "bytes": 2_000_000, "gb_per_s": pytest.approx(0.1), "in_flight": 3, "straddling": 17,
        "digest": "d1", "reset": "freed", "ok": True, "detail": "",
    }  # fmt: skip
    (bare,) = phases([span("load", 0.02)], "", {})
    assert (bare["held_s"], bare["verify_s"], bare["digest"]) == (None, None, None)
