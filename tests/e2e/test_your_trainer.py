"""The loop of docs/your-trainer.md as it stands there: it learns, and an operator switches a fix in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from console.connect.backfill import frames_between
from driftline.client import Client, attach
from driftline.frames import EngineState, Metrics
from tests import signals
from tests.e2e import engine_support as support
from tests.unit.hubs import Hub, until

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
]

ROOT = Path(__file__).parents[2]
HEADING = "## Driftline's engines for a trainer of your own"
LINES = 70
"""What the document calls a whole loop has at most so many, without empty ones."""


def loop() -> str:
    """The Python block of that section."""
    section = (ROOT / "docs" / "your-trainer.md").read_text(encoding="utf-8").split(HEADING)[1].split("\n## ")[0]
    return section.split("```python\n")[1].split("```")[0]


def metrics(client: Client) -> list[Metrics]:
    stamped = frames_between(client, 1, client.snapshot().head + 1)
    return [frame for one in stamped if isinstance(frame := one.frame(), Metrics)]


def test_the_documented_loop_learns_and_takes_commands(tmp_path: Path, hub: Hub) -> None:
    text = loop()
    assert len([line for line in text.splitlines() if line.strip()]) <= LINES
    script, log = tmp_path / "loop.py", tmp_path / "loop.log"
    script.write_text(text)
    env = os.environ | {"DRIFTLINE_RUN": str(hub.run.path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("w") as out, Client(*attach(hub.run)) as client:
        process = subprocess.Popen(
            [sys.executable, str(script)], cwd=tmp_path, env=env, stdout=out, stderr=out,
            preexec_fn=signals.restore_defaults,
        )  # fmt: skip
        try:

            def reached(count: int) -> bool:
                assert process.poll() in (None, 0), log.read_text()[-4000:]
                return len(metrics(client)) >= count

            until(lambda: reached(3), "three steps", 400.0)
            order = client.command("fix.set", {"fix": "processed-logprobs", "value": "off"}, timeout=support.LIMIT_S)
            assert client.wait(order, support.LIMIT_S).state == "applied"
            order = client.command("fix.set", {"fix": "inflight-keep", "value": "off"}, timeout=support.LIMIT_S)
            answer = client.wait(order, support.LIMIT_S)
            assert (answer.state, answer.detail) == ("applied", "next_sync")
            order = client.command("fix.set", {"fix": "async-scheduling-off", "value": "off"}, timeout=support.LIMIT_S)
            answer = client.wait(order, support.LIMIT_S)
            assert answer.state == "refused"
            assert "vLLM's CPU platform" in answer.detail
            assert process.wait(400.0) == 0, log.read_text()[-4000:]
        finally:
            process.terminate()
            process.wait(60.0)
        found = metrics(client)
        engines = [frame for one in client.snapshot().states if isinstance(frame := one.frame(), EngineState)]
    assert [engine.engine for engine in engines] == ["engine-0"]
    assert [one.step for one in found] == list(range(1, len(found) + 1))
    assert not any(one.values["sync/failed"] for one in found)
    gaps = [one.values["mismatch/abs_diff_mean"] for one in found]
    assert max(gaps[:3]) < support.CLOSE, "the engine's logprobs are the trainer's"
    # By how much depends on how certain the policy was when the switch came: .003 nats on a busy machine, else .05.
    assert max(gaps[3:]) > support.CLOSE, "raw logprobs are not"
    rewards = [one.values["reward/mean"] for one in found]
    # It learns within six steps; with raw logprobs, which this loop does not correct for, it then falls back.
    assert max(rewards) > rewards[0] + 0.2, rewards
