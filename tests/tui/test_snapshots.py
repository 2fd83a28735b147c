"""Pictures of every state at three sizes; `pytest tests/tui --snapshot-update` takes them anew.

What a state must say in words is tested elsewhere; these watch over how it looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from console.tui.source import Link
from driftline.frames import Metrics
from tests.tui.conftest import make_app, settle
from tests.tui.synthetic import FakeSource, default_fixes, engines, fix_state, history, run_state

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


STATES: list[Callable[[], FakeSource]] = [empty, starting, defaults, fixed, pending, stale, read_only, diverged]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_state(snap_compare: Any, state: Callable[[], FakeSource], size: tuple[int, int]):
    assert snap_compare(make_app(state()), terminal_size=size, run_before=settle)


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
def test_after_keys(snap_compare: Any, pressed: tuple[str, ...]):
    assert snap_compare(make_app(fixed()), terminal_size=(80, 24), run_before=keys(*pressed))


@pytest.mark.parametrize("marker", ["block", "ascii"])
def test_markers(snap_compare: Any, marker: str):
    assert snap_compare(make_app(fixed(), marker=marker), terminal_size=(80, 24), run_before=settle)


def test_an_enlarged_chart(snap_compare: Any):
    assert snap_compare(make_app(fixed()), terminal_size=(120, 40), run_before=keys("enter", "s"))


def test_sixteen_colours(snap_compare: Any):
    assert snap_compare(make_app(defaults(), sixteen=True), terminal_size=(80, 24), run_before=settle)


@pytest.mark.parametrize("size", [(60, 15), (40, 10)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_small_terminals(snap_compare: Any, size: tuple[int, int]):
    assert snap_compare(make_app(fixed()), terminal_size=size, run_before=settle)
