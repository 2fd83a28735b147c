"""Faults 29 to 40: each kind of a soak by itself, on one run under load; at the end nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from console.launch.restarts import Backoff
from tests.faults.scale import FULL, dice
from tests.faults.soak_count import counted
from tests.faults.soak_faults import ENDING, HEAPING, NEW, Fault, refused_bodies
from tests.faults.soak_world import World
from tests.unit import odd_frames

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(FULL, reason="at full scale the soak beside the other faults does each kind, test_soak.py"),
]

QUICK = Backoff((0.0, 0.01, 0.02, 0.05))
"""A series of deaths without the pauses of a real one."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    rolls = random.Random(dice("kinds").randrange(2**32))
    with World(tmp_path_factory.mktemp("kinds"), rolls, QUICK, 0.2) as world:
        world.odd_bodies = refused_bodies(odd_frames.drawn(300))
        world.until(world.healthy, "the start")
        yield world


@pytest.mark.parametrize("fault", [*ENDING, *HEAPING, *NEW], ids=lambda fault: fault.__name__)
def test_after_a_fault_of_each_kind_all_is_as_wanted(world: World, fault: Fault) -> None:
    fault(world)
    world.until(world.healthy, "all to be as wanted")
    head = world.follower.at
    world.until(lambda: world.follower.at > head, "the follower to go on")
    assert not world.follower.wrong
    assert world.console.alive(), world.console.last


def test_after_all_of_them_nothing_is_lost(world: World) -> None:
    print(f"kinds: {counted(world)} frames, lost 0, double 0")
