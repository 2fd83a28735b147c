"""Names that a producer chooses: what is held by name is bounded, and the names unseen for longest go first."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from console.recorded.metric_columns import Stretch
from console.status.link_health import Link, banner
from console.store.engines import ENGINES_KEPT
from console.store.model import FIXES_KEPT, RunModel
from console.store.series.series import SeriesStore
from console.store.series.steps import StepPool
from driftline.frames import EngineState, Event, FixState, Frame, Metrics, RunState, Stamped, encode
from driftline.hub.core import Core
from driftline.hub.effects import Now, Write
from driftline.hub.limits import Limits
from driftline.hub.name_watch import TOO_MANY, NameWatch
from driftline.hub.newest_states import NewestStates

NOW = Now(1.0, 1.0)


def apply(model: RunModel, frames: list[Frame], producer: str = "trainer") -> None:
    for frame in frames:
        seq = model.head + 1
        model.apply(Stamped(seq, float(seq), producer, msgspec.Raw(encode(frame))))


def growing(steps: int, each: int = 5) -> list[Frame]:
    """A metric with the step in its name, beside one as it should be."""
    return [
        Metrics(s, 1, 1.0 + s, {"reward/mean": float(s), **{f"x/{s}/{i}": 1.0 for i in range(each)}}, {f"l/{s}": "a"})
        for s in range(steps)
    ]


def test_a_store_keeps_the_names_that_were_seen_last_and_all_of_a_series_that_goes_on() -> None:
    model = RunModel()
    model.metrics = SeriesStore(100)
    apply(model, growing(400))
    names = model.metrics.names()
    assert len(names) <= 110
    assert len(names) + model.metrics.gone == 400 * 5 + 1
    assert model.metrics.steps("reward/mean").tolist() == list(range(400))
    assert names[1:] == tuple(f"x/{s}/{i}" for s in range(400) for i in range(5))[-len(names) + 1 :]
    assert len(model.metrics._pool) <= 110, "the steps of what was dropped go with it"
    assert len(model.labels) <= 200
    assert "trainer makes more than 100 names of metrics" in model.crowded


def test_one_frame_with_more_names_than_are_kept() -> None:
    model = RunModel()
    model.metrics = SeriesStore(100)
    apply(model, [Metrics(1, 1, 1.0, {f"x/{i}": 1.0 for i in range(5000)})])
    assert len(model.metrics.names()) <= 110
    assert "x/4999" in model.metrics


def test_columns_of_a_recording_are_bounded_too() -> None:
    store = SeriesStore(100)
    for part in range(50):
        places = np.arange(10) + 10 * part
        values = {"reward/mean": np.ones(10), **{f"x/{part}/{i}": np.ones(10) for i in range(20)}}
        store.extend([Stretch(places, places, places.astype(float), values, {})])
    assert len(store.names()) <= 110
    assert len(store.steps("reward/mean")) == 500
    assert store.gone == 50 * 20 + 1 - len(store.names())


def test_a_name_that_was_dropped_and_comes_again_begins_anew() -> None:
    store = SeriesStore(10)
    store.record(0, 1.0, {"a": 1.0})
    for step in range(1, 20):
        store.record(step, 1.0 + step, {f"x/{step}": 1.0})
    assert "a" not in store
    store.record(20, 30.0, {"a": 2.0})
    assert store.steps("a").tolist() == [20]


def test_step_buffers_are_shared_and_released_as_before() -> None:
    pool = StepPool()
    one, two = pool.start(1), pool.start(1)
    assert one is two
    assert pool.extend(one, 1, 2) is one
    other = pool.extend(two, 1, 3)
    assert other is not one
    assert len(pool) == 2
    pool.release(other)
    assert len(pool) == 1
    pool.release(one)
    assert len(pool) == 0


@pytest.mark.parametrize("what", ["engines", "fixes"])
def test_engines_and_fixes_of_a_console_are_bounded(what: str) -> None:
    model, most = RunModel(), {"engines": ENGINES_KEPT, "fixes": FIXES_KEPT}[what]
    frames: list[Frame] = []
    for number in range(3 * most):
        if what == "engines":
            frames += [EngineState("engine-0", "running", 1, 1.0 + number)] if number % 100 == 0 else []
            frames.append(EngineState(f"e-{number}", "running", 1, 1.0 + number))
        else:
            frames.append(FixState(f"f-{number}", "on", 1, "by", 1.0 + number, "live", ()))
    apply(model, frames)
    table = model.engines if what == "engines" else model.fixes
    assert len(table) == most
    assert len(model.history.traces) <= most
    assert len(model.log._phases) <= most
    if what == "engines":
        assert "engine-0" in table, "one that goes on is not dropped"
        assert "trainer makes more than 1,024 names of engines" in model.crowded


def test_the_banner_says_it_last_of_all() -> None:
    model = RunModel()
    event = Event(1.0, "warn", TOO_MANY, "t", data={"producer": "engine-3", "what": "metrics", "kept": 10_000})
    apply(model, [event], "engine-3")
    assert model.crowded == "", "only the hub says so"
    apply(model, [event], "hub")
    shown = banner(None, Link(True, 0.0), [], 1.0, model.crowded)
    assert shown is not None
    assert (shown.word, shown.level) == ("TOO MANY NAMES", "warn")
    assert shown.text.startswith("engine-3 makes more than 10,000 names of metrics")
    worse = banner(None, Link(True, 0.0, degraded="No space left"), [], 1.0, model.crowded)
    assert worse is not None
    assert worse.word == "DISK FULL"


def test_the_hub_names_the_producer_that_makes_them_once() -> None:
    watch = NameWatch(100)
    for step in range(200):
        watch.count("logger", Metrics(step, 1, 1.0, {"a": 1.0, "b": 2.0}))
        for frame in growing(step + 1)[-1:]:
            watch.count("trainer", frame)
    (event,) = watch.due(NOW)
    assert event.data == {"producer": "trainer", "what": "metrics", "kept": 100}
    assert watch.due(NOW) == []
    assert watch.crowded.startswith("trainer makes more than 100 names")
    assert len(watch._known) <= 100


def test_states_of_a_hub_drop_the_one_that_was_unseen_for_longest() -> None:
    states = NewestStates(10)
    states.remember(RunState("r", "running", 1, 2, 3, 1.0), 1, b"run")
    over = []
    for number in range(50):
        states.remember(EngineState("engine-0", "running", 1, 1.0), 100 + 2 * number, b"0")
        over.append(states.remember(EngineState(f"e-{number}", "running", 1, 1.0), 101 + 2 * number, b"e"))
    assert over == [""] * 8 + ["engines"] * 42
    kept, _ = states.save()
    assert [name for what, name, _, _ in kept if what == "engine"][-2:] == ["engine-0", "e-49"]
    assert len(kept) == 10
    assert "run" in {what for what, *_ in kept}
    again = NewestStates(10)
    again.load(*states.save())
    assert again.save() == states.save()


def test_a_core_tells_it_in_the_beacon_and_as_an_event() -> None:
    core = Core("r", 1, Limits(states_kept=5))
    for number in range(20):
        frame = EngineState(f"e-{number}", "running", 1, 1.0)
        write = Write(encode(frame), frame, "trainer")
        core.on_written(write, core.stamp(write, NOW))
    events = [e.frame for e in core.on_tick(NOW) if isinstance(e, Write)]
    assert [event.kind for event in events if isinstance(event, Event)] == [TOO_MANY]
    assert b"trainer makes more than 5 names of engines" in core.beacon(NOW, "").body
