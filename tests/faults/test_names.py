"""Fault 29: ever new names of metrics, such as with a step in the name: hub and console stay bounded, and say so."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from console.cli.main import main
from driftline.catalog.metrics import NAMES_KEPT
from driftline.frames import Event
from driftline.hub.name_watch import TOO_MANY
from driftline.journal.journal import read
from driftline.producer.probe import Probe
from tests.faults.scale import scaled
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(900)

EACH = 100
"""New names in a frame."""
_CONSOLE = """
import resource, sys
from pathlib import Path
from console.store.model import RunModel
from driftline.journal.journal import read
model = RunModel()
begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for stamped in read(Path(sys.argv[1])):
    model.apply(stamped)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun) / 1024
series = model.metrics
print(grown, len(series.names()), series.gone, len(series.steps("reward/mean")), model.crowded, sep="|")
"""


def test_f29_ever_new_names_cost_a_bound_of_memory(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    count = scaled(2 * NAMES_KEPT, 1_000_000)
    process = psutil.Process(hub.process.pid if hub.process is not None else -1)
    with Probe("trainer", hub.run) as probe:
        probe.emit({"reward/mean": 0.0}, step=0)
        assert probe.flush(4 * PATIENCE)
        begun = process.memory_info().rss
        for step in range(1, count // EACH + 1):
            probe.emit({"reward/mean": 1.0, **{f"rollout/{step}/{i}": 1.0 for i in range(EACH)}}, step=step)
            if step % 500 == 0:
                assert probe.flush(4 * PATIENCE)
        assert probe.flush(4 * PATIENCE)

        def reported() -> list[Event]:
            frames = [stamped.frame() for stamped in read(hub.run.journal) if stamped.producer == "hub"]
            return [frame for frame in frames if isinstance(frame, Event) and frame.kind == TOO_MANY]

        until(reported, "the hub to say so")
        grown = (process.memory_info().rss - begun) / 2**20
        assert main(["status", "--run", str(hub.run.path)]) == 0
        assert "TOO MANY NAMES" in capsys.readouterr().out
        main(["doctor", str(hub.run.path), "--json"])
        checks = json.loads(capsys.readouterr().out)["checks"]
        (finding,) = [check for check in checks if check["check"] == "hub"]
        assert (finding["verdict"], "trainer" in finding["text"]) == ("warn", True)
    (event,) = reported()
    assert event.data["producer"] == "trainer"
    console = subprocess.run(
        [sys.executable, "-c", _CONSOLE, str(hub.run.journal)], capture_output=True, text=True, check=True
    )
    size, names, gone, steps, crowded = console.stdout.strip().split("|")
    print(
        f"f29: {count} names: hub grew by {grown:.0f} MiB, a console by {float(size):.0f} MiB and keeps {names} names"
    )
    assert int(names) <= NAMES_KEPT * 1.1
    assert int(names) + int(gone) == count + 1, "each is counted"
    assert int(steps) == count // EACH + 1, "a name that goes on keeps all of its steps"
    assert "trainer makes more than 10,000 names of metrics" in crowded
    assert grown < 100
    assert float(size) < 150
