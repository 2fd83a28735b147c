"""Pictures of the fixes screen in every state; `pytest tests/tui/test_snap_fixes.py --snapshot-update` anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from console.connect.source import Link
from tests.tui.conftest import make_app
from tests.tui.screen_compare import Compare
from tests.tui.synthetic import FakeSource
from tests.tui.test_corrections import corrected
from tests.tui.test_fixes import acted
from tests.tui.test_snapshots import SIZES, defaults, empty, keys, starting


def normal() -> FakeSource:
    return acted()


def stale() -> FakeSource:
    source = acted()
    source.state = Link(True, 8.0, trouble="the hub of run demo-7f3a is silent at tcp://127.0.0.1:5555.")
    return source


def held() -> FakeSource:
    """Another operator is at the controls, and the objective is corrected while the backend fails."""
    source = corrected(fixed=False, correction="tis", correction_requested="tis", correction_by="operator bo")
    source.hold("bo@box:41")
    return source


STATES: list[Callable[[], FakeSource]] = [empty, starting, defaults, normal, stale, held]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_state(screen_compare: Compare, state: Callable[[], FakeSource], size: tuple[int, int]):
    assert screen_compare(make_app(state()), terminal_size=size, run_before=keys("4"))


@pytest.mark.parametrize(
    "pressed",
    [("o", "v"), ("down", "down", "down", "down", "down"), ("tab", "enter"), ("right", "S"), ("F",)],
    ids=["ordered", "correction", "enlarged", "sync", "confirm"],
)
def test_after_keys(screen_compare: Compare, pressed: tuple[str, ...]):
    assert screen_compare(make_app(normal()), terminal_size=(80, 24), run_before=keys("4", *pressed))


DOWN = ("down",) * 5


@pytest.mark.parametrize("pressed", [("S",), (*DOWN, "enter", "down", "enter")], ids=["take-over", "gate"])
def test_questions(screen_compare: Compare, pressed: tuple[str, ...]):
    assert screen_compare(make_app(held()), terminal_size=(80, 24), run_before=keys("4", *pressed))


def test_sixteen_colours(screen_compare: Compare):
    assert screen_compare(make_app(normal(), sixteen=True), terminal_size=(120, 40), run_before=keys("4"))
