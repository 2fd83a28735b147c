"""What the same numbers cost under few names and under many: `driftline export`, `export --long` and `query`.

A trainer that reports a number for each layer, each task or each prompt makes thousands of names. A table with a column
for each may cost no more than its numbers do. Two kinds of run of NUMBERS numbers (3 * 10^6;
DRIFTLINE_BENCH_NUMBERS says otherwise) are measured: every step has every name, and each step has 20 numbers under
names of its own, that never come again (of a hundredth of the numbers: the wide table has a cell for every step and
name). Each task is a process of its own, with the start of Python and its imports, as one who calls the command waits
for it; the ratio is to the same numbers under 30 names. The wide table also says what Polars takes for
writing the frame alone: a column of a Parquet file has a cost, however few numbers are in it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from driftline.frames import Metrics
from driftline.rundir import RunDir, create
from tests.bench import journals
from tests.bench.child import Cost, measure

NUMBERS: Final = int(float(os.environ.get("DRIFTLINE_BENCH_NUMBERS", "3e6")))
NAMES: Final = (30, 1_000, 10_000, 100_000)
NEW_EACH_STEP: Final = 20
WANTED: Final = 3.0
"""Times of the same numbers under 30 names."""
WANTED_BYTES: Final = 1e9
TASKS: Final = {
    "export": """
import console.export
report = console.export.export(RunDir(Path(sys.argv[1])), Path(sys.argv[2]))
rows = report.rows
""",
    "export --long": """
import console.export
report = console.export.export(RunDir(Path(sys.argv[1])), Path(sys.argv[2]), long=True)
rows = report.rows
""",
    "query": """
import console.export
answer = console.export.query(RunDir(Path(sys.argv[1])), 'SELECT count(*) AS n, avg("metric/0/norm") FROM metrics')
rows = answer["n"].item()
""",
}
BEGIN: Final = """
import psutil
start = psutil.Process().create_time()
from driftline.rundir import RunDir
"""
END: Final = """
tell([time.time() - start, time.process_time()], rows)
"""
WRITE: Final = """
import polars as pl
frame = pl.read_parquet(sys.argv[1])
start = now()
frame.write_parquet(sys.argv[1] + ".again")
tell(since(start), frame.height)
"""


def every(names: int, numbers: int) -> Iterator[Metrics]:
    """Every step has every name."""
    rng = np.random.default_rng(7)
    keys = [f"metric/{at}/norm" for at in range(names)]
    for step in range(numbers // names):
        yield Metrics(step, step, journals.BEGIN + step, dict(zip(keys, rng.random(names).tolist(), strict=True)))


def new(names: int, numbers: int) -> Iterator[Metrics]:
    """Each step has NEW_EACH_STEP names of its own, until there are so many names; then they come again."""
    rng = np.random.default_rng(7)
    for step in range(numbers // NEW_EACH_STEP):
        keys = [f"metric/{at % names}/norm" for at in range(step * NEW_EACH_STEP, (step + 1) * NEW_EACH_STEP)]
        values = rng.random(NEW_EACH_STEP).tolist()
        yield Metrics(step, step, journals.BEGIN + step, dict(zip(keys, values, strict=True)))


def compare(root: Path, kind: str, sizes: dict[int, RunDir]) -> bool:
    """Print the table of one kind of run; whether all that is wanted is met."""
    met = True
    print(f"  {kind}", flush=True)
    for task, code in TASKS.items():
        few: Cost | None = None
        for names, run in sizes.items():
            out = root / "out.parquet"
            cost = measure(BEGIN + code + END, run.path, out)
            few = few or cost
            ratio = cost.wall / few.wall
            ok = ratio <= WANTED and cost.peak < WANTED_BYTES
            line = (
                f"    {task}, {names:,} names: {cost.wall:.2f} s ({cost.cpu:.2f} s of processor), "
                f"peak {cost.peak / 1e6:.0f} MB: {ratio:.1f} times 30 names (wanted {WANTED}, below 1 GB)"
            )
            if task == "export" and names != min(sizes):
                bare = measure(WRITE, out, runs=1)
                line += f"; Polars writes the frame in {bare.wall:.2f} s, {bare.peak / 1e6:.0f} MB"
            print(line if ok else f"{line}: MISSED", flush=True)
            met &= ok
    return met


def main() -> int:
    """Print both tables; 1 where a wanted figure is missed."""
    met = True
    for kind, make, numbers in (
        (f"{NUMBERS:.0e} numbers, every step has every name", every, NUMBERS),
        (f"{NUMBERS // 30:.0e} numbers, {NEW_EACH_STEP} names of its own in each step", new, NUMBERS // 30),
    ):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            runs = {names: journals.write(create(root, f"n{names}"), make(names, numbers)) for names in NAMES}
            met &= compare(root, kind, runs)
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
