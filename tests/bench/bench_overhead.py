"""What telemetry costs a step of the real demonstration run, from pairs of steps with and without it.

The cost is far below the noise of one step on a shared machine, so the steps "with" carry the telemetry DOSE times:
metrics, token logprobs, spans, events and state, each built and sent that often. The difference over DOSE is the cost
of once, as far as cost grows in proportion. Its 95 % interval is a bootstrap over pairs of neighbouring steps, whose
order within a pair is drawn. Needs the engine's packages, so it runs in the project's own environment:

    .venv/bin/python -m tests.bench bench_overhead          PAIRS=200 for more than the 60 pairs of `make bench`
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

DOSE: Final = 20
PAIRS: Final = int(os.environ.get("PAIRS", "60"))
WARM: Final = 10
"""Steps before the first pair: engines and allocator settle."""
WANTED: Final = 0.005
CONFIG: Final = Path(__file__).parents[2] / "configs" / "demo.toml"


def main() -> int:
    """Run it; 0 when the upper end of the interval is at most WANTED."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        times, doses = _run(Path(folder))
    slowdown, low, high = interval(times, doses)
    step = float(np.median(times[doses == 0]))
    print(f"  {PAIRS} pairs, median step {step * 1e3:.0f} ms, telemetry {DOSE}x against none")
    print(f"  slowdown by telemetry {slowdown:+.3%} of a step, 95 % interval {low:+.3%} to {high:+.3%}")
    print(f"  wanted: upper end at most {WANTED:.1%}")
    return 0 if high <= WANTED else 1


def interval(times: np.ndarray, doses: np.ndarray, resamples: int = 4000) -> tuple[float, float, float]:
    """Slowdown as a share of a step and its 95 % bootstrap interval. `times` [2 * pairs] seconds, `doses` alike."""
    pairs, given = times.reshape(-1, 2), doses.reshape(-1, 2) > 0
    extra, plain = pairs[given] - pairs[~given], pairs[~given]
    drawn = np.random.default_rng(0).integers(0, len(extra), (resamples, len(extra)))
    # Means, not medians: what a step costs now and then it costs.
    shares = extra[drawn].mean(1) / plain[drawn].mean(1) / DOSE
    return float(extra.mean() / plain.mean() / DOSE), *map(float, np.quantile(shares, (0.025, 0.975)))


def _run(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each step of the pairs, and how much telemetry it carried."""
    from driftline import config, rundir
    from trainer import session
    from trainer.__main__ import QUIET
    from trainer.report import Reporter

    os.environ.update(QUIET)
    seed = int(os.environ.get("DRIFTLINE_SEED", "1"))
    dice = random.Random(seed)
    order = [0] * WARM + [dose for _ in range(PAIRS) for dose in dice.sample((0, DOSE), 2)]
    marks: list[float] = []

    class Dosed(Reporter):
        """Sends everything as often as the dose says, from one step's metrics to the next's.

        So the threads and processes that carry the telemetry on, which work while the next step runs, count to it.
        """

        def _times(self) -> int:
            return order[len(marks) - 1] if 0 < len(marks) <= len(order) else 1

        def metrics(self, *args: Any, **kwargs: Any) -> None:
            marks.append(time.perf_counter())
            for _ in range(self._times()):
                super().metrics(*args, **kwargs)

        def tokens(self, *args: Any, **kwargs: Any) -> None:
            for _ in range(self._times()):
                super().tokens(*args, **kwargs)

        def send(self, *args: Any, **kwargs: Any) -> None:
            for _ in range(self._times()):
                super().send(*args, **kwargs)

        def state(self, **changes: Any) -> None:
            # The loop reads its own state back, so that it is published once in every step; the dose comes on top.
            for _ in range(1 + self._times() if "step" in changes else 1):
                super().state(**changes)

    run = rundir.create(folder, "overhead")
    text = CONFIG.read_text(encoding="utf-8")
    run.config.write_text(text, encoding="utf-8")
    settings = config.load(run.config)
    command = [sys.executable, "-m", "driftline.hub", str(run.path), "--parent-pid", str(os.getpid())]
    with (run.logs / "hub.log").open("w") as log:
        hub = subprocess.Popen(command, stdout=log, stderr=log)
    plain, session.Reporter = session.Reporter, Dosed  # type: ignore[misc]
    try:
        rundir.wait_connection(run, 30.0)
        signals = session.Signals()
        made = session.Session(settings, run, steps=len(order) + 1, digest=config.digest(text))
        with contextlib.redirect_stdout(io.StringIO()):
            failure = made.run(resume=False, signals=signals, on_progress=lambda text: None)
        if failure:
            raise SystemExit(f"bench: {failure}")
    finally:
        session.Reporter = plain  # type: ignore[misc]
        hub.terminate()
        hub.wait(10)
    print(f"  seed {seed}")
    seconds = np.diff(np.array(marks))[WARM : WARM + 2 * PAIRS]
    if len(seconds) < 2 * PAIRS:
        raise SystemExit(
            f"bench: the run ended after {len(marks)} steps, {len(order) + 1} were asked for: {made.summary}"
        )
    return seconds, np.array(order[WARM : WARM + 2 * PAIRS])
