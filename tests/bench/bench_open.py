"""Opening a recorded run: from its directory to the model that every screen is drawn from, against TensorBoard's and
W&B's readers of the same numbers.

At 10^6 steps of 30 metrics ours alone is measured, from the journal; at 20,000 steps (6 x 10^5 numbers) also from
compacted Parquet, TensorBoard's EventAccumulator over one event a step with all 30 values in it, all of them kept, and
`wandb leet inspect --summary`, which reads a run's whole log and says the newest values; leet's screen itself needs a
terminal and does not say when it is done. Both read as many numbers of the same kind. They are in an environment of
their own: DRIFTLINE_BENCH_PYTHON names its interpreter, .venv-bench/bin/python unless said; without, they are left out.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from console.recorded.compaction.compact import compact
from driftline.journal.journal import segments
from tests.bench import journals
from tests.bench.child import RUNS, Cost, measure

STEPS = int(float(os.environ.get("DRIFTLINE_BENCH_STEPS", "1e6")))
FEWER = min(20_000, STEPS)
WANTED_SECONDS = 1.5
PYTHON = Path(os.environ.get("DRIFTLINE_BENCH_PYTHON", ".venv-bench/bin/python"))

LOAD = """
from console.store.load import load
from driftline.rundir import RunDir
import polars, pyarrow.parquet
start = now()
model = load(RunDir(Path(sys.argv[1]))).model
tell(since(start), sum(len(model.metrics.steps(name)) for name in model.metrics.names()))
"""
WRITE_OTHERS = """
import numpy as np
import os
import wandb
from tensorboardX import FileWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
folder, steps, names = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
values = np.cumsum(np.random.default_rng(7).normal(0, 0.01, (steps, len(names))), axis=0)
writer = FileWriter(folder + "/tensorboard", max_queue=1000)
for step, row in enumerate(values.tolist()):
    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in zip(names, row)])
    writer.event_writer.add_event(Event(wall_time=1.79e9 + step, step=step, summary=summary))
writer.close()
settings = wandb.Settings(silent=True, x_disable_stats=True)
run = wandb.init(mode="offline", dir=folder, project="bench", settings=settings)
for step, row in enumerate(values.tolist()):
    run.log(dict(zip(names, row)), step=step)
run.finish()
tell([0.0, 0.0], values.size)
"""
TENSORBOARD = """
from tensorboard.backend.event_processing import event_accumulator
start = now()
found = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={event_accumulator.TENSORS: 0, "scalars": 0})
found.Reload()
seconds = since(start)
tell(seconds, sum(len(found.Scalars(name)) for name in found.Tags()["scalars"]))
"""


def leet(folder: Path, numbers: int) -> Cost:
    """W&B's reader in its own process; the start of the Python launcher is taken off."""
    program = PYTHON.absolute().with_name("wandb")
    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    seconds = []
    for args in [["leet", "inspect", "--summary", "--json", str(log)], ["leet", "inspect", "--help"]]:
        best = float("inf")
        for _ in range(RUNS):
            start = time.perf_counter()
            subprocess.run([str(program), *args], capture_output=True, timeout=600, check=True, cwd=folder)
            best = min(best, time.perf_counter() - start)
        seconds.append(best)
    return Cost(seconds[0] - seconds[1], 0.0, numbers, 0.0)


def say(name: str, cost: Cost) -> None:
    """One line."""
    print(
        f"  {name}: {cost.wall:.2f} s for {cost.rows:.1e} numbers, {1e9 * cost.wall / cost.rows:.0f} ns each",
        flush=True,
    )


def main() -> int:
    """Print what each takes; 1 where the wanted figure is missed."""
    with tempfile.TemporaryDirectory() as folder:
        whole = measure(LOAD, journals.metrics_run(Path(folder), STEPS).path)
        say(f"driftline, {STEPS:.0e} steps from the journal, peak {whole.peak / 1e6:.0f} MB", whole)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = journals.metrics_run(root, FEWER)
        ours = measure(LOAD, run.path)
        say(f"driftline, {FEWER} steps from the journal", ours)
        list(compact(run))
        for path in segments(run.journal):
            path.unlink()
        say(f"driftline, {FEWER} steps from compacted Parquet", measure(LOAD, run.path))
        if not PYTHON.exists():
            print(f"  TensorBoard, W&B: not measured: there is no {PYTHON}")
            return 1 if whole.wall > WANTED_SECONDS else 0
        python = str(PYTHON.absolute())
        numbers = measure(WRITE_OTHERS, root, str(FEWER), ",".join(journals.NAMES), python=python, runs=1).rows
        others = {
            "TensorBoard's EventAccumulator": measure(TENSORBOARD, root / "tensorboard", python=python, runs=1),
            "wandb leet inspect --summary": leet(root, numbers),
        }
        for name, cost in others.items():
            say(name, cost)
            print(f"    {cost.wall / ours.wall:.1f} times ours")
    print(f"the model of {STEPS:.0e} steps in {whole.wall:.2f} s (wanted with the first paint: {WANTED_SECONDS})")
    return 1 if whole.wall > WANTED_SECONDS else 0


if __name__ == "__main__":
    raise SystemExit(main())
