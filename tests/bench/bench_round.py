"""What one active round costs the demonstration run: seconds of the engine, of the trainer's step, and of the operator.

On the real demonstration run with its engine under load, one round after the other, with the steps between them for
comparison. Needs the engine's packages:

    .venv/bin/python -m tests.bench bench_round
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from console.diagnosis import active
from driftline.frames import Ack
from tests.e2e.live_run import REPOSITORY, LiveRun

ROUNDS: Final = int(os.environ.get("ROUNDS", "10"))
WANTED_S: Final = 10.0
"""Seconds of an engine, at most."""
QUIET: Final = """
[diagnosis]
active = "on-request"
"""


def main() -> int:
    """Run it; 0 when no round took more than WANTED_S of an engine's time."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        config = (REPOSITORY / "configs" / "demo.toml").read_text(encoding="utf-8") + QUIET
        live = LiveRun(Path(folder), config)
        try:
            trainer = live.train("--steps", "100000")
            live.wait(lambda: len(live.steps()) >= 3, trainer)
            acks, waited = [], []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                acks.append(_round(live))
                waited.append(time.perf_counter() - began)
                live.wait_steps(2, trainer)
            steps = live.steps()
        finally:
            live.close()
    engine = [float(ack.data[f"{name}.seconds"]) for ack in acks for name in active.engines(ack.data)]
    whole = [float(ack.data["seconds"]) for ack in acks]
    usual = statistics.median(step["time/step_s"] for step in steps.values())
    print(f"  {ROUNDS} rounds of {active.TOKENS} tokens in a run of {max(steps)} steps of {usual:.2f} s (median)")
    for what, seconds in (("of the engine", engine), ("of the step", whole), ("until the answer", waited)):
        print(f"  {what:16} {statistics.median(seconds):.2f} s median, {max(seconds):.2f} s at most")
    print(f"  wanted: at most {WANTED_S:g} s of the engine")
    return 0 if max(engine) <= WANTED_S else 1


def _round(live: LiveRun) -> Ack:
    ack = live.client.wait(live.client.command("diagnose", {"tokens": str(active.TOKENS)}, timeout=120), 120)
    if ack.state != "applied":
        raise SystemExit(f"bench: diagnose: {ack.state}: {ack.detail}")
    return ack
