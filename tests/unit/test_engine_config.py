"""What differs between engines, how far a fix reaches over them, and what is said first of fixes that are off."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from console.status import costly_fixes, engine_config, fix_coverage
from console.status.costly_fixes import costly, sentences
from console.status.engine_lines import engine_lines
from console.status.fix_coverage import coverage
from console.status.summary import Summary, document, line
from driftline.frames import Effect, EngineFix, EngineState, FixState, Measure
from driftline.text import natural, spans
from engine.plugin import report
from engine.plugin.report import CoreFacts, Facts, WorkerFacts

FIX = "processed-logprobs"
FACTS = Facts(
    CoreFacts(
        "cuda", "0.32.0", True, True, False, sampling_defaults={"top_p": 0.9}, sampling_source="model", runner="V1"
    ),
    (WorkerFacts((report.RAW,), "bfloat16", ("float32",), True, ""),),
    "",
)


def engine(name: str, settings: str = "", **changes: object) -> EngineState:
    made = {"phase": "running", "version": 3, "time": 1.0, "backend": "cuda", "vllm": "0.32.0", "settings": settings}
    return EngineState(name, **(made | changes))  # type: ignore[arg-type]  # fields by name


def fix(values: dict[str, str], requested: str = "off", by: str = "", fix_id: str = FIX, how: str = "live") -> FixState:
    engines = tuple(EngineFix(name, value, how) for name, value in values.items())  # type: ignore[arg-type]  # a test's word
    return FixState(fix_id, requested, 0, by, 1.0, how, engines)  # type: ignore[arg-type]  # as above


# -- names


def test_names_are_in_natural_order() -> None:
    names = ["engine-10", "engine-2", "engine", "b-1-x", "engine-2x", "engine-1"]
    assert sorted(names, key=natural) == ["b-1-x", "engine", "engine-1", "engine-2", "engine-2x", "engine-10"]
    assert sorted(["9" * 400, "1", "é", ""], key=natural)[0] == ""


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["a"], ["a"]),
        (["engine-1", "engine-0"], ["engine-0", "engine-1"]),
        (["engine-2", "engine-0", "engine-1", "engine-9"], ["engine-0 to engine-2", "engine-9"]),
        (["engine-9", "engine-10", "engine-11"], ["engine-9 to engine-11"]),
        (["a-1", "b-2", "b-3"], ["a-1", "b-2", "b-3"]),
    ],
)
def test_names_that_follow_each_other_are_one_word(names: list[str], expected: list[str]) -> None:
    assert spans(names) == expected


# -- what differs


def test_the_plugins_own_line_is_read_word_for_word() -> None:
    found = engine_config.settings(report.settings(FACTS))
    assert found == {
        "logprobs": "raw_logprobs", "head": "float32", "body": "bfloat16", "prefix cache": "on",
        "async scheduling": "on", "cascade attention": "off", "sampling defaults": "top_p 0.9 (model)",
        "model runner": "V1",
    }  # fmt: skip
    assert engine_config.settings("logprobs x; a new word") == {"logprobs": "x", "also": "a new word"}
    assert engine_config.settings("") == {}


def test_only_what_differs_by_groups_of_equal_engines() -> None:
    raw = report.settings(FACTS)
    processed = report.settings(
        replace(FACTS, workers=(replace(FACTS.workers[0], logprobs_modes=(report.PROCESSED,)),))
    )
    engines = {name: engine(name, processed) for name in ("engine-10", "engine-2", "engine-3", "engine-4", "engine-5")}
    engines |= {name: engine(name, raw, vllm="0.28.0") for name in ("engine-0", "engine-1", "engine-6")}
    found = engine_config.differences(engines, {})
    assert found.keys == ("vLLM", "logprobs")
    assert found.line("logprobs") == "logprobs: 5 of 8 processed_logprobs; 3 of 8 raw_logprobs"
    assert [group.names for group in found.groups] == [
        "engine-2 to engine-5, engine-10",
        "engine-0, engine-1, engine-6",
    ]
    assert found.groups[1].values == {"vLLM": "0.28.0", "logprobs": "raw_logprobs"}
    assert found.same["head"] == "float32"
    assert found.silent == ()


def test_what_some_do_not_report_is_no_difference_but_not_known() -> None:
    engines = {"a": engine("a", "logprobs raw_logprobs; prefix cache on"), "b": engine("b", via="bridge")}
    engines["c"] = engine("c", phase="dead", vllm="0.1")
    found = engine_config.differences(engines, {FIX: fix({"a": "off"})})
    assert found.engines == 2, "what is dead is set like nothing"
    assert found.keys == ()
    assert found.silent == ((("b",), ("logprobs", "prefix cache", FIX)), (("a",), ("joined by",)))
    said = engine_config.lines(found)
    assert said[0] == "nothing differs: all are set alike"
    assert said[1] == f"not reported by 1 of 2 (b): logprobs, prefix cache, {FIX}"


@pytest.mark.parametrize("count", [0, 1])
def test_of_one_engine_nothing_differs(count: int) -> None:
    engines = {name: engine(name) for name in ["a"][:count]}
    assert "nothing to compare" in engine_config.lines(engine_config.differences(engines, {}))[0]


def test_who_is_joined_and_how() -> None:
    one = engine("a", via="plugin", framework="verl 0.6.0", key="producer engine-*")
    assert engine_config.joined_as(one) == "plugin in verl 0.6.0, key engine-*"
    assert engine_config.joined_as(engine("a", key="producer trainer")) == "key trainer"
    assert engine_config.joined_as(engine("a")) == ""


# -- how far a fix reaches


def test_a_fix_on_some_and_unknown_on_others_is_partial() -> None:
    values = dict(zip("abcdefgh", ["on", "on", "on", "off", "off", "off", "", ""], strict=True))
    found = coverage(fix(values))
    assert (found.partial, found.of_all, found.text) == (True, "on 3/8", "on 3/8, off 3, unknown on 2")
    assert fix_coverage.document(fix(values)) == {"engines": 8, "values": {"off": 3, "on": 3}, "unknown": 2}


@pytest.mark.parametrize(
    ("values", "requested", "by", "partial", "text"),
    [
        ({"a": "off", "b": "off"}, "off", "", False, "off 2/2"),
        ({"a": "on", "b": "on"}, "on", "ana", False, "on 2/2"),
        ({"a": "off", "b": ""}, "off", "", True, "off 1/2, unknown on 1"),
        ({"a": "off", "b": "on"}, "off", "ana", True, "off 1/2, on 1"),
        ({"a": "", "b": ""}, "", "", True, " 0/2, unknown on 2"),
        ({"a": "on", "trainer": "off"}, "on", "ana", False, "on 1/1"),
        ({}, "off", "", False, "off 0/0"),
    ],
)
def test_coverage(values: dict[str, str], requested: str, by: str, partial: bool, text: str) -> None:
    found = coverage(fix(values, requested, by))
    assert (found.partial, found.text) == (partial, text)


def test_the_status_line_and_its_json_say_what_is_partial() -> None:
    summary = Summary(engines={name: engine(name) for name in ("engine-10", "engine-2")})
    summary.fixes[FIX] = fix({"engine-2": "on", "engine-10": ""})
    assert f"{FIX} on 1/2, unknown on 1" in line("r", summary, live=True)
    made = document("r", "p", summary, live=True)
    assert [one["engine"] for one in made["engines"]] == ["engine-2", "engine-10"]
    assert made["fixes"][0]["coverage"] == {"engines": 2, "values": {"on": 1}, "unknown": 1}
    assert made["differences"]["silent"] == [{"engines": ["engine-10"], "keys": [FIX]}]
    lines = engine_lines(summary, 5.0)
    assert lines[0].startswith("engine-2   running v3  0 tok/s  cuda vLLM 0.32.0")
    assert lines[2] == f"fix {FIX}: on 1/2, unknown on 1"


# -- off and costly

OFF = fix({"a": "off", "b": "off"})


def measured(before: str, after: str, values: tuple[float, float], low: float = 0.1, also: str = "") -> Effect:
    changes = ((FIX, before, after), *(((also, before, after),) if also else ()))
    return Effect("e", changes, 9, 4, 1.0, measures=(Measure(costly_fixes.MISMATCH, *values, low, 0.5, 9, 9),))


def said(fixes: dict[str, FixState], effects: dict[str, Effect], mismatch: float | None) -> str:
    return next(iter(sentences(costly(fixes, effects, mismatch), mismatch, "F")), "")


def test_what_is_off_everywhere_is_said_with_the_mismatch_of_now() -> None:
    assert said({FIX: OFF}, {}, 0.19) == f"{FIX} is off on 2/2: mismatch .19 now; press F"
    assert said({FIX: OFF}, {}, None) == f"{FIX} is off on 2/2: price not measured yet; press F"
    assert said({FIX: OFF}, {}, math.nan) == f"{FIX} is off on 2/2: price not measured yet; press F"
    assert said({FIX: OFF}, {}, 0.004) == "", "a healthy mismatch is no price"
    assert said({FIX: fix({"a": "on", "b": "off", "c": ""})}, {}, 0.19).startswith(f"{FIX} is off on 1/3")


@pytest.mark.parametrize(
    "state",
    [
        fix({"a": "on", "b": "on"}),
        fix({"a": "", "b": ""}),
        fix({"a": "off"}, how="not_available"),
        fix({"a": "salted"}, fix_id="prefix-cache-off"),
        fix({"a": "off"}, fix_id="inflight-keep"),
    ],
    ids=["on", "not known", "not to be switched", "kept apart by version", "not about logprobs"],
)
def test_what_is_not_off_or_cannot_be_helped_is_not_said(state: FixState) -> None:
    assert said({state.fix: state}, {}, 0.19) == ""


def test_a_price_is_that_of_its_own_switch_or_none() -> None:
    worse = measured("on", "off", (0.012, 0.41))
    assert said({FIX: OFF}, {FIX: worse}, 0.4) == f"{FIX} is off on 2/2: mismatch .012 became .41 with it; press F"
    now = f"{FIX} is off on 2/2: mismatch .4 now; press F"
    assert said({FIX: OFF}, {FIX: measured("off", "on", (0.41, 0.012), -0.5)}, 0.4) == now, "it was put on"
    assert said({FIX: OFF}, {FIX: measured("on", "off", (0.012, 0.41), also="fp32-lm-head")}, 0.4) == now, "of a set"
    assert said({FIX: OFF}, {FIX: measured("on", "off", (0.012, 0.013), low=-0.1)}, 0.4) == now, "not sure"


def test_the_dearest_first_then_as_in_the_catalogue() -> None:
    fixes = {one: fix({"a": "off"}, fix_id=one) for one in ("fp32-lm-head", "prefix-cache-off", FIX)}
    assert [one.fix for one in costly(fixes, {}, 0.19)] == [FIX, "prefix-cache-off", "fp32-lm-head"]
    dear = Effect(
        "e", (("prefix-cache-off", "on", "off"),), 9, 4, 1.0,
        measures=(Measure(costly_fixes.MISMATCH, 0.01, 0.2, 0.1, 0.3, 9, 9),),
    )  # fmt: skip
    assert costly(fixes, {"prefix-cache-off": dear}, 0.19)[0].fix == "prefix-cache-off"
    words = sentences(costly(fixes, {}, 0.19), 0.19, "")
    assert words[0] == f"{FIX} is off on 1/1 (and 2 more): mismatch .19 now"
    assert list(map(len, words)) == sorted(map(len, words), reverse=True)
