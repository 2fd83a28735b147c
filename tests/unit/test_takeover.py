"""What a supervisor that takes a run over goes on with. The hubs are real; the first supervisor dies as by SIGKILL."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from console.launch.restarts import Backoff, Restarts
from console.launch.supervisor import Supervisor
from console.status import supervision as shown
from driftline import supervision
from driftline.config import HubConfig
from driftline.rundir import RunDir, create

LIMIT = 60.0
BACKOFF = Backoff((0.0, 0.01, 0.02, 0.05))


def kill_hub(run: RunDir, supervisor: Supervisor) -> str:
    """Kill the hub, and keep it until another one is up; returns what was said of the death."""
    supervisor._children["hub"].kill()
    supervisor._children["hub"].wait(LIMIT)
    said: list[str] = []
    deadline = time.monotonic() + LIMIT
    while len(said) < 2:
        said += filter(None, [supervisor.keep_hub()])
        assert time.monotonic() < deadline, f"no other hub: {said}"
        time.sleep(0.01)
    assert said[1].startswith("the hub is back")
    return said[0]


def test_the_deaths_of_a_hub_are_counted_on(tmp_path: Path) -> None:
    run = create(tmp_path / "runs", "run")
    first = Supervisor(run, hub_backoff=BACKOFF)
    assert first.start_hub(HubConfig(), cancelled=lambda: False)
    kill_hub(run, first)
    assert "2 deaths within 10 min" in kill_hub(run, first)
    # As after kill -9: the lock is free, the record is left, and nothing is ended in order.
    first._stopped = True
    first._hub.close()
    if first._probe is not None:
        first._probe.close()
    os.close(first._lock)
    record = supervision.read(run)
    assert record is not None
    assert (record.hub_deaths, len(record.hub_died_at)) == (2, 2)
    lock = supervision.take(run)
    taken = replace(record, detached=True, pid=os.getpid())
    with Supervisor(run, hub_backoff=BACKOFF, record=taken, lock=lock) as second:
        assert not second.take_over(HubConfig()), "no trainer had been started"
        found = supervision.read(run)
        assert found is not None
        assert found.hub_deaths == 2
        assert found.hub_died == pytest.approx(record.hub_died, abs=1.0)
        assert shown.hub_text(shown.Care(found, alive=True), time.time()) == "started again, 2 deaths within 10 min"
        assert "in 0.02 s, 3 deaths within 10 min" in kill_hub(run, second)
        found = supervision.read(run)
        assert found is not None
        assert found.hub_deaths == 3


def test_deaths_that_are_older_than_the_window_are_not_carried_over() -> None:
    restarts = Restarts(Backoff((0.0, 1.0, 5.0), window=60.0))
    restarts.carry([61.0, 50.0, 10.0, -3.0], now=1000.0)  # the last one was before the clock was set back
    assert restarts.deaths == 3
    assert restarts.ages(1000.0) == [50.0, 10.0, 0.0]
    assert restarts.died(1011.0) == 5.0
    assert restarts.deaths == 3, "the oldest one is out of the window by now"
