"""Collections at intervals: when they are due, how rare long ones become, and that circles are gone after one."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from console.process.collector import PAUSE, SHARE, Collector


class Circle:
    """Holds itself."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture
def settled() -> Iterator[None]:
    gc.freeze()
    yield
    gc.unfreeze()


class Clock:
    """Stands still but for what collections take."""

    def __init__(self, takes: float) -> None:
        self.now, self.takes, self.collected = 100.0, takes, 0

    def __call__(self) -> float:
        return self.now

    def collect(self) -> None:
        self.collected += 1
        self.now += self.takes


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(("takes", "pause"), [(0.002, PAUSE), (0.2, SHARE * 0.2)])
def test_a_collection_comes_after_a_pause_that_grows_with_it(takes: float, pause: float) -> None:
    clock = Clock(takes)
    collector = Collector(clock, clock.collect)
    clock.now += PAUSE - 1
    assert not collector.tick()
    clock.now += 1
    assert collector.tick()
    clock.now += pause - 1
    assert not collector.tick()
    clock.now += 1.5
    assert collector.tick()
    assert clock.collected == 2


@pytest.mark.usefixtures("settled")
def test_circles_are_gone_after_it_without_python_s_own_counts() -> None:
    clock = Clock(0.0)
    collector = Collector(clock)
    gc.disable()
    try:
        seen = weakref.ref(Circle())
        assert seen() is not None
        clock.now += PAUSE
        collector.tick()
        assert seen() is None
    finally:
        gc.enable()


def test_nothing_is_collected_before_a_start_has_settled() -> None:
    assert not gc.get_freeze_count(), "pytest has frozen nothing"
    clock = Clock(0.0)
    collector = Collector(clock, clock.collect)
    clock.now += 2 * PAUSE
    assert not collector.tick()
