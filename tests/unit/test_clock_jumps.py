"""A wall clock that jumps by an hour either way does not change the lease of a synthetic run's pause.

The hub's leases, deadlines and order: `test_hub_clocks.py`; retention: `test_journal_index.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from console.simulate import run as simulate
from driftline import clocks
from driftline.frames import Command, Event, RunState
from driftline.journal.records import read
from driftline.testing import Clock
from tests.unit.hubs import PATIENCE, Hub, until

JUMPS = [-3600.0, 0.0, 3600.0]


@pytest.mark.parametrize("jump", JUMPS)
def test_the_pause_of_a_synthetic_run_ends_with_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    hub = Hub(tmp_path)
    hub.start()
    clock = Clock(1.79e9, 5.0)
    try:
        with simulate.Simulator(hub.run, steps=0, rate=10.0, engines=1, seed=0) as simulator:
            monkeypatch.setattr(simulate, "time", clock)
            monkeypatch.setattr(clocks, "time", clock)

            def go_on() -> None:
                # Its own due times are of the clock of before; each look is a step of a second.
                clock.wait(1.0)
                simulator.run_once(0.001)

            simulator._probe.commands.put(Command("c1", "pause", issuer="ana@box"))
            go_on()
            clock.jump(jump)
            clock.wait(simulate.LEASE - 5.0)
            go_on()
            until(lambda: sent(hub, simulator)[-1].paused_by == "ana@box", "the run's state")
            assert sent(hub, simulator)[-1].lease_until == pytest.approx(clock.wall + 4.0, abs=3.0)
            clock.wait(5.0)
            go_on()
            until(lambda: sent(hub, simulator)[-1].paused_by == "", "the end of the pause")
            ended = [frame for one in read(hub.run.journal) if isinstance(frame := one.frame(), Event)]
            assert [event.text for event in ended if event.kind == "run.lease"] == [
                "the lease of ana@box has ended: resumed"
            ]
    finally:
        hub.end()


def sent(hub: Hub, simulator: simulate.Simulator) -> list[RunState]:
    """The states of the run that the hub has recorded."""
    assert simulator._probe.flush(PATIENCE)
    return [frame for one in read(hub.run.journal) if isinstance(frame := one.frame(), RunState)]
