"""How long an operator waits: from sending a live switch of a fix to seeing that every engine has reported it.

On the real demonstration run with its engine under load: through the hub (which forces the command to the disk before
it hands it on), the trainer's control thread, the engine and all the way back. Needs the engine's packages:

    .venv/bin/python -m tests.bench bench_commands
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.e2e.live_run import REPOSITORY, LiveRun

SWITCHES: Final = int(os.environ.get("SWITCHES", "200"))
WANTED_S: Final = 0.150
FIXES: Final = ("processed-logprobs", "prefix-cache-off")


def main() -> int:
    """Run it; 0 when the 99th percentile is below WANTED_S."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        live = LiveRun(Path(folder), (REPOSITORY / "configs" / "demo.toml").read_text(encoding="utf-8"))
        try:
            trainer = live.train("--steps", "100000")
            live.wait(lambda: len(live.steps()) >= 3, trainer)
            seconds = []
            for value, fix in itertools.islice(itertools.cycle(itertools.product(("on", "off"), FIXES)), SWITCHES):
                began = time.perf_counter()
                ack = live.client.wait(live.client.command("fix.set", {"fix": fix, "value": value}), 60)
                seconds.append(time.perf_counter() - began)
                if ack.state != "applied":
                    raise SystemExit(f"bench: {fix} {value}: {ack.state}: {ack.detail}")
                time.sleep(0.05)
            steps = max(live.steps())
        finally:
            live.close()
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    p50, p99 = cuts[49] * 1e3, cuts[98] * 1e3
    print(f"  {SWITCHES} live switches in a run of {steps} steps: p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print(f"  wanted: p99 below {WANTED_S * 1e3:.0f} ms")
    return 0 if cuts[98] < WANTED_S else 1
