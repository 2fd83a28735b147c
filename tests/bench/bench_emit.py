"""`Probe.emit` of 30 metrics against wandb offline, tensorboardX and trackio: the cost the training loop feels.

All in one process and in alternating rounds, so that a noisy machine hits them alike; each keeps its own
background thread or process busy, the probe a real hub. What is compared is the time of the call itself.
Memory and disk are not: wandb and trackio also keep media and run metadata.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 20
CALLS = 100
WANTED = 10.0

VALUES = {f"group{i % 5}/metric{i}": 0.1 * i + 0.01 for i in range(30)}

Log = Callable[[int], None]


def _wandb(folder: Path) -> tuple[Log, Callable[[], None]]:
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_DIR=str(folder), WANDB_DISABLE_GIT="true")
    import wandb

    run = wandb.init(project="bench", dir=str(folder), mode="offline")
    return lambda step: run.log(VALUES, step=step), run.finish


def _tensorboardx(folder: Path) -> tuple[Log, Callable[[], None]]:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(folder / "tb"))

    def log(step: int) -> None:
        for name, value in VALUES.items():
            writer.add_scalar(name, value, step)

    return log, writer.close


def _trackio(folder: Path) -> tuple[Log, Callable[[], None]]:
    os.environ.update(TRACKIO_DIR=str(folder), HF_HUB_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False")
    import trackio

    run = trackio.init(project="bench")
    return lambda step: run.log(VALUES, step=step), trackio.finish


def _driftline(folder: Path) -> tuple[Log, Callable[[], None]]:
    from driftline import Probe, rundir

    run = rundir.create(folder, "bench")
    command = [sys.executable, "-m", "driftline.hub", str(run.path), "--parent-pid", str(os.getpid())]
    with (run.logs / "hub.log").open("w") as log_file:
        hub = subprocess.Popen(command, stdout=log_file, stderr=log_file)
    rundir.wait_connection(run, 30.0)
    probe = Probe("trainer", run)
    probe.emit(VALUES, step=0)
    if not probe.flush(30.0):
        raise SystemExit("bench: the hub acknowledged nothing")

    def close() -> None:
        try:
            acknowledged = probe.flush(30.0)
            print(f"  probe: {probe.stats.sent} frames sent, {probe.stats.dropped} dropped, flushed {acknowledged}")
            probe.close()
        finally:
            hub.terminate()
            hub.wait(10)

    return lambda step: probe.emit(VALUES, step=step), close


def main() -> int:
    """Print one line per logger and the ratio to the cheapest of the others; 0 when the wanted ratio is met."""
    folder = Path(tempfile.mkdtemp(prefix="driftline-bench-"))
    makers = {
        "driftline Probe.emit": _driftline,
        "wandb (offline)": _wandb,
        "tensorboardX": _tensorboardx,
        "trackio": _trackio,
    }
    loggers: dict[str, tuple[Log, Callable[[], None]]] = {}
    try:
        for name, make in makers.items():
            loggers[name] = make(folder)
        times: dict[str, list[int]] = {name: [] for name in loggers}
        step = 0
        gc.disable()
        for _ in range(ROUNDS):
            for name, (log, _close) in loggers.items():
                for i in range(CALLS):
                    begin = time.perf_counter_ns()
                    log(step + i)
                    times[name].append(time.perf_counter_ns() - begin)
                # The background threads of one round must not run into the next logger's round.
                time.sleep(0.05)
            step += CALLS
        gc.enable()
    finally:
        for _log, close in loggers.values():
            close()
        shutil.rmtree(folder, ignore_errors=True)

    p50 = {name: statistics.median(values) / 1000 for name, values in times.items()}
    p99 = {name: sorted(values)[int(0.99 * len(values))] / 1000 for name, values in times.items()}
    cheapest = min((value, name) for name, value in p50.items() if not name.startswith("driftline"))
    for name in loggers:
        print(f"  {name:<22} p50 {p50[name]:9.2f} µs   p99 {p99[name]:9.2f} µs   per call of 30 metrics")
    ratio = cheapest[0] / p50["driftline Probe.emit"]
    print(f"emit: {ratio:.1f} times cheaper than {cheapest[1]}, the cheapest of the others (wanted: {WANTED:.0f})")
    return 0 if ratio >= WANTED else 1


if __name__ == "__main__":
    raise SystemExit(main())
