"""Pictures of the screens sync, engines and events; `pytest tests/tui/test_snap_sync.py --snapshot-update`.

What a state must say in words is tested in test_sync_screens.py; these watch over how it looks.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from console.connect.source import Link
from tests.tui.conftest import make_app
from tests.tui.screen_compare import Compare
from tests.tui.sync_runs import failed, large, synced
from tests.tui.synthetic import FakeSource
from tests.tui.test_snapshots import SIZES, keys


def empty() -> FakeSource:
    return FakeSource()


def happened() -> FakeSource:
    source = failed()
    asked = source.command("fix.set", {"fix": "processed-logprobs", "value": "on"}, 1)
    source.ack(asked, "accepted")
    source.ack(asked, "applied", "2/2 engines")
    return source


def stale() -> FakeSource:
    source = happened()
    source.state = Link(True, 8.0, trouble="the hub of run demo-7f3a is silent at tcp://127.0.0.1:5555.")
    return source


def loading() -> FakeSource:
    source = happened()
    source.state = Link(True, 0.2, 12_000)
    return source


State = Callable[[], FakeSource]
TABS = pytest.mark.parametrize("tab", ["3", "6", "7"], ids=["sync", "engines", "events"])


@TABS
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", [synced, happened, large], ids=lambda state: state.__name__)
def test_screen(screen_compare: Compare, tab: str, state: State, size: tuple[int, int]):
    assert screen_compare(make_app(state()), terminal_size=size, run_before=keys(tab))


@TABS
@pytest.mark.parametrize("state", [empty, stale, loading], ids=lambda state: state.__name__)
def test_state(screen_compare: Compare, tab: str, state: State):
    assert screen_compare(make_app(state()), terminal_size=(80, 24), run_before=keys(tab))


@TABS
def test_sixteen_colours(screen_compare: Compare, tab: str):
    assert screen_compare(make_app(happened(), sixteen=True), terminal_size=(120, 40), run_before=keys(tab))


@pytest.mark.parametrize("marker", ["block", "ascii"])
def test_gantt_markers(screen_compare: Compare, marker: str):
    assert screen_compare(make_app(happened(), marker=marker), terminal_size=(120, 40), run_before=keys("3"))


@pytest.mark.parametrize(
    "pressed",
    [
        ("7", "slash", "l", "v", "l", "equals_sign"),
        ("7", "enter", "enter"),
        ("3", "tab", "enter"),
        ("6", "t", "tab", "enter"),
    ],
    ids=["filter", "event", "gantt", "engine"],
)
def test_after_keys(screen_compare: Compare, pressed: tuple[str, ...]):
    assert screen_compare(make_app(happened()), terminal_size=(80, 24), run_before=keys(*pressed))
