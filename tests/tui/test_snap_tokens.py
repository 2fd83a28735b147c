"""Pictures of the tokens screen in every state; `pytest tests/tui --snapshot-update` takes them anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from console.connect.source import Link
from tests.tui.conftest import make_app
from tests.tui.screen_compare import Compare
from tests.tui.synthetic import FakeSource, history, token_frame
from tests.tui.test_tokens import calm, token_source

SIZES = [(80, 24), (120, 40), (200, 60)]


def empty() -> FakeSource:
    return token_source([])


def loading() -> FakeSource:
    source = token_source([])
    source.tokens_behind = 4321
    return source


def normal() -> FakeSource:
    return token_source()


def apart() -> FakeSource:
    """A run with the engine's defaults: nearly every token differs."""
    return token_source([token_frame(step, apart=0.3, length=120) for step in range(1, 9)])


def stale() -> FakeSource:
    source = token_source()
    source.state = Link(True, 8.0, trouble="the hub of run demo-7f3a is silent at tcp://127.0.0.1:5555.")
    return source


def refused() -> FakeSource:
    source = FakeSource(operator=False)
    source.feed(history(20))
    source.no_tokens = "the hub of run demo-7f3a: this key may not read raw tokens"
    return source


def only_ids() -> FakeSource:
    return token_source([token_frame(step, pieces=False) for step in range(1, 6)])


STATES: list[Callable[[], FakeSource]] = [empty, loading, normal, apart, stale, refused, only_ids]


def keys(*pressed: str) -> Callable[[Pilot[None]], Any]:
    async def press(pilot: Pilot[None]) -> None:
        for key in ("2", *pressed):
            await pilot.press(key)
            await calm(pilot)

    return press


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_state(screen_compare: Compare, state: Callable[[], FakeSource], size: tuple[int, int]):
    assert screen_compare(make_app(state()), terminal_size=size, run_before=keys())


@pytest.mark.parametrize(
    "pressed",
    [("o", "j", "s"), ("n", "n", "enter"), ("slash", *"lag", "greater_than_sign", "0"), ("slash", *"lagg"),
     ("slash", *"id", "equals_sign", "7", "enter"), ("n", "space")],
    ids=["sequences", "opened", "filter", "wrong-filter", "nothing-matches", "frozen"],
)  # fmt: skip
def test_after_keys(screen_compare: Compare, pressed: tuple[str, ...]):
    assert screen_compare(make_app(normal()), terminal_size=(80, 24), run_before=keys(*pressed))


@pytest.mark.parametrize("marker", ["block", "ascii"])
def test_markers(screen_compare: Compare, marker: str):
    assert screen_compare(make_app(apart(), marker=marker), terminal_size=(120, 40), run_before=keys())


@pytest.mark.parametrize("look", ["sixteen", "no_color"])
def test_without_many_colours(screen_compare: Compare, look: str, monkeypatch: pytest.MonkeyPatch):
    if look == "no_color":
        monkeypatch.setenv("NO_COLOR", "1")
    assert screen_compare(make_app(apart(), sixteen=look == "sixteen"), terminal_size=(120, 40), run_before=keys("n"))


def test_the_smallest(screen_compare: Compare):
    assert screen_compare(make_app(apart()), terminal_size=(60, 15), run_before=keys("n"))
