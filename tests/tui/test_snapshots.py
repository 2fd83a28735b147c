"""Pictures of every state at three sizes; `pytest tests/tui --snapshot-update` takes them anew.

What a state must say in words is tested elsewhere; these watch over how it looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from console.connect.source import Link
from driftline.frames import Effect, EngineFix, Event, FixState, Measure, Metrics
from tests.tui.conftest import make_app, settle
from tests.tui.screen_compare import Compare
from tests.tui.synthetic import START, FakeSource, default_fixes, engines, fix_state, history, run_state

SIZES = [(80, 24), (120, 40), (200, 60)]


def empty() -> FakeSource:
    return FakeSource()


def starting() -> FakeSource:
    source = FakeSource()
    source.feed([run_state(0, "starting", detail="engine-1: loading weights"), *default_fixes()])
    source.feed([engines()[0], *engines(phase="starting", detail="loading weights")[1:]])
    return source


def defaults() -> FakeSource:
    source = FakeSource()
    source.feed(history(40))
    return source


def fixed() -> FakeSource:
    source = FakeSource()
    source.feed(history(74, fixed_from=45))
    return source


def pending() -> FakeSource:
    source = defaults()
    source.feed([fix_state("processed-logprobs", "on", ("on", "off"), version=20, step=41)])
    source.feed([fix_state("inflight-keep", "on", ("off", "off"), "next_sync")])
    return source


def stale() -> FakeSource:
    source = fixed()
    source.state = Link(True, 8.0, trouble="the hub of run demo-7f3a is silent at tcp://127.0.0.1:5555.")
    return source


def lost() -> FakeSource:
    source = fixed()
    source.state = Link(True, 42.0, way="the ssh process was killed; retrying in 4 s")
    return source


def disk_full() -> FakeSource:
    source = fixed()
    source.state = Link(True, 0.2, degraded="/runs/demo-7f3a/journal/000001.rlj: No space left on device")
    return source


def behind() -> FakeSource:
    source = fixed()
    source.state = Link(True, 0.2, 12_000)
    return source


def dropped() -> FakeSource:
    source = fixed()
    data: dict[str, str | float | int | bool] = {"producer": "trainer", "dropped": 312, "total": 512}
    source.feed([Event(START, "warn", "probe.dropped", "trainer dropped 312 frames before sending them", data=data)])
    return source


def switched() -> FakeSource:
    """Three values, an engine that restarts, a trainer that takes part, and a measured effect."""
    source = fixed()
    source.feed([fix_state("prefix-cache-off", "removed", ("removed", "removed"), "engine_restart", 40, step=60)])
    source.feed([fix_state("inflight-keep", "wait", ("wait", "wait"), "next_sync", 38, step=58)])
    waiting = (
        EngineFix("engine-0", "on", "next_sync", 30),
        EngineFix("engine-1", "", "next_sync", detail="restarting"),
    )
    head = FixState("fp32-lm-head", "on", 2, "operator ana", START, "next_sync", waiting)
    measure = Measure(
        "mismatch/abs_diff_mean", 0.47, 0.038, -0.44, -0.42, 1200, 3400,
        -0.43, 0.081, 0.074, 0.089, "step", 20, 14,
    )  # fmt: skip
    change = (("processed-logprobs", "off", "on"),)
    source.feed([head, Effect("e1", change, 45, 22, START, measures=(measure,), done=True)])
    return source


def read_only() -> FakeSource:
    source = FakeSource(operator=False)
    source.feed(history(40))
    source.feed([run_state(40, "paused", paused_by="operator ana", synthetic=True)])
    return source


def diverged() -> FakeSource:
    source = FakeSource()
    frames = history(40)
    for i, frame in enumerate(frames):
        if isinstance(frame, Metrics) and frame.step in (12, 30, 31, 40):
            frames[i] = msgspec.structs.replace(frame, values=frame.values | {"policy/kl_new_old": float("nan")})
    source.feed(frames)
    return source


STATES: list[Callable[[], FakeSource]] = [
    *(empty, starting, defaults, fixed, pending, stale, read_only, diverged),
    *(lost, disk_full, behind, dropped, switched),
]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_state(screen_compare: Compare, state: Callable[[], FakeSource], size: tuple[int, int]):
    assert screen_compare(make_app(state()), terminal_size=size, run_before=settle)


def keys(*pressed: str) -> Callable[[Pilot[None]], Any]:
    async def press(pilot: Pilot[None]) -> None:
        await settle(pilot)
        for key in pressed:
            await pilot.press(key)
            await settle(pilot)

    return press


@pytest.mark.parametrize(
    "pressed",
    [
        ("F", "down"),
        ("S", "right"),
        ("S", "right", "enter"),
        ("question_mark",),
        ("c", "left", "left", "s"),
        ("plus", "space"),
        ("down", "down", "down"),
    ],
    ids=["picker", "confirm", "sent", "help", "crosshair", "frozen", "fix-cursor"],
)
def test_after_keys(screen_compare: Compare, pressed: tuple[str, ...]):
    assert screen_compare(make_app(fixed()), terminal_size=(80, 24), run_before=keys(*pressed))


@pytest.mark.parametrize("marker", ["block", "ascii"])
def test_markers(screen_compare: Compare, marker: str):
    assert screen_compare(make_app(fixed(), marker=marker), terminal_size=(80, 24), run_before=settle)


def test_an_enlarged_chart(screen_compare: Compare):
    assert screen_compare(make_app(fixed()), terminal_size=(120, 40), run_before=keys("enter", "s"))


def test_sixteen_colours(screen_compare: Compare):
    assert screen_compare(make_app(defaults(), sixteen=True), terminal_size=(80, 24), run_before=settle)


@pytest.mark.parametrize("size", [(60, 15), (40, 10)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_small_terminals(screen_compare: Compare, size: tuple[int, int]):
    assert screen_compare(make_app(fixed()), terminal_size=size, run_before=settle)


def charted() -> FakeSource:
    """A run with a hole in it, fixes that were switched, and a wall clock that is not its steps."""
    source = FakeSource()
    frames = history(400, fixed_from=250)
    for i, frame in enumerate(frames):
        if isinstance(frame, Metrics):
            values = frame.values | ({"reward/mean": float("nan")} if 120 <= frame.step < 135 else {})
            frames[i] = msgspec.structs.replace(frame, values=values, time=frame.time + frame.step**2 / 40)
    source.feed(frames)
    return source


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    "pressed",
    [("s", "s", "c", "h", "h"), ("x", "plus", "y"), ("right", "enter", "s", "s", "c")],
    ids=["smooth-crosshair", "time-zoom-log", "enlarged"],
)
def test_charts(screen_compare: Compare, pressed: tuple[str, ...], size: tuple[int, int]):
    assert screen_compare(make_app(charted()), terminal_size=size, run_before=keys(*pressed))


@pytest.mark.parametrize("look", ["sixteen", "no_color"])
def test_charts_without_many_colours(screen_compare: Compare, look: str, monkeypatch: pytest.MonkeyPatch):
    if look == "no_color":
        monkeypatch.setenv("NO_COLOR", "1")
    app = make_app(charted(), sixteen=look == "sixteen")
    assert screen_compare(app, terminal_size=(120, 40), run_before=keys("s", "s", "c", "h"))
