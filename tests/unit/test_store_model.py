"""The reducer: the same frames always give the same model, whatever order, damage or repetition they come in."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from console.store.model import RunModel
from driftline.frames import (
    Ack,
    Command,
    EngineFix,
    EngineState,
    Event,
    FixState,
    Frame,
    Metrics,
    RunState,
    Stamped,
    encode,
)


def stamped(seq: int, frame: Frame, producer: str = "trainer") -> Stamped:
    return Stamped(seq, 1000.0 + seq, producer, msgspec.Raw(encode(frame)))


def feed(*frames: Frame) -> RunModel:
    model = RunModel()
    for seq, frame in enumerate(frames, 1):
        model.apply(stamped(seq, frame))
    return model


def metrics(step: int, **values: float) -> Metrics:
    return Metrics(step, step, 1000.0 + step, {name.replace("__", "/"): value for name, value in values.items()})


def fix(requested: str, *effective: str, step: int = -1, fix_id: str = "processed-logprobs") -> FixState:
    engines = tuple(EngineFix(f"engine-{i}", value, "live", 1, step) for i, value in enumerate(effective))
    return FixState(fix_id, requested, 1, "operator local", 0.0, "live", engines)


def test_metrics_become_series_under_their_canonical_names():
    model = feed(metrics(1, kl_new_old=0.5), metrics(2, policy__kl_new_old=0.25), metrics(3, custom=1.0))
    assert model.metrics.names() == ("policy/kl_new_old", "custom")
    assert model.metrics.steps("kl_new_old").tolist() == [1, 2]
    assert model.metrics.last("policy/kl_new_old") == 0.25
    assert model.metrics.last("never") is None
    assert model.step == 3


def test_a_repeated_or_late_step_is_replaced_or_inserted_and_nan_is_kept():
    model = feed(metrics(1, a=1), metrics(3, a=3), metrics(2, a=math.nan), metrics(3, a=30))
    assert model.metrics.steps("a").tolist() == [1, 2, 3]
    assert model.metrics.values("a").tolist()[::2] == [1.0, 30.0]
    assert math.isnan(model.metrics.values("a")[1])


def test_series_grow_and_earlier_views_keep_what_they_saw():
    model = RunModel()
    for step in range(1, 301):
        model.apply(stamped(step, metrics(step, a=step)))
        if step == 200:
            seen = model.metrics.values("a")
    assert seen.tolist() == list(range(1, 201))
    assert np.array_equal(model.metrics.values("a"), np.arange(1, 301))


def test_a_sequence_number_counts_once():
    model = RunModel()
    event = stamped(5, Event(1.0, "info", "k", "hello"))
    model.apply(event)
    model.apply(event)
    model.apply(stamped(4, Event(1.0, "info", "k", "late")))
    assert [logged.event.text for logged in model.events] == ["hello"]
    assert model.head == 5
    assert model.first_time == 1005.0


def test_what_cannot_be_decoded_is_counted_and_passed_over():
    model = RunModel()
    model.apply(Stamped(1, 1.0, "newer", msgspec.Raw(b"\x91\xa1z")))
    model.apply(stamped(2, Event(1.0, "info", "k", "after")))
    assert model.damaged == 1
    assert len(model.events) == 1


def test_states_are_the_newest_of_each_owner():
    model = feed(
        RunState("r", "starting", 0, 90, 0, 1.0),
        EngineState("engine-0", "starting", 0, 1.0),
        EngineState("engine-0", "running", 3, 2.0),
        EngineState("engine-1", "running", 2, 2.0),
        RunState("r", "running", 7, 90, 3, 2.0),
    )
    assert model.run is not None
    assert model.run.status == "running"
    assert {name: state.version for name, state in model.engines.items()} == {"engine-0": 3, "engine-1": 2}
    assert model.step == 7


def test_a_fix_marks_the_step_once_all_engines_report_it_and_not_at_the_start():
    model = feed(
        fix("off", "", ""),
        fix("off", "off", "off"),
        metrics(10, a=1),
        fix("on", "off", "off"),
        fix("on", "on", "off", step=11),
        fix("on", "on", "on", step=12),
        fix("on", "on", "on", step=12),
        metrics(20, a=1),
        fix("off", "off", "off"),
    )
    assert [(mark.step, mark.kind, mark.text) for mark in model.marks] == [
        (12, "fix", "processed-logprobs on"),
        (20, "fix", "processed-logprobs off"),
    ]


def test_a_correction_marks_the_step_from_which_the_objective_has_another():
    model = RunModel()
    reported = [
        (5, "", -1), (6, "off", 0), (7, "off", 0), (30, "tis", 28), (31, "tis", 28), (32, "", -1), (33, "tis", 28),
        (40, "off", 40), (41, "icepop", -1),
    ]  # fmt: skip
    for seq, (step, value, since) in enumerate(reported, 1):
        frame = RunState("demo", "running", step, 90, 1, 1.0, correction=value, correction_since=since)
        model.apply(stamped(seq, frame))
    assert [(mark.step, mark.kind, mark.text) for mark in model.marks] == [
        (28, "correction", "correction tis"),
        (40, "correction", "correction off"),
        (41, "correction", "correction icepop"),
    ]


@pytest.mark.parametrize("end", ["applied", "failed", "refused", "expired"])
def test_a_command_lives_until_a_terminal_state(end: str):
    model = feed(
        metrics(4, a=1),
        Command("c1", "sync", issuer="operator local"),
        Ack("c1", "queued", 1.0),
        Ack("c1", "accepted", 2.0),
        Ack("c1", end, 3.0, "why"),  # type: ignore[arg-type]
        Ack("c1", "accepted", 4.0),
        Ack("unknown", "accepted", 4.0),
    )
    life = model.commands["c1"]
    assert life.state == end
    assert life.done
    assert [ack.state for ack in life.acks] == ["queued", "accepted", end]
    assert [mark.kind for mark in model.marks] == (["sync"] if end == "applied" else [])


def test_after_a_rewind_the_numbers_that_were_taken_back_are_taken_again():
    model = RunModel()
    for seq, text in ((1, "a"), (2, "b"), (3, "lost")):
        model.apply(stamped(seq, Event(1.0, "info", "k", text)))
    model.rewind(2)
    model.apply(stamped(3, Event(1.0, "info", "k", "c")))
    assert model.head == 3
    assert [logged.event.text for logged in model.events] == ["a", "b", "lost", "c"]
