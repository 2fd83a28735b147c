"""`driftline export` against Polars writing the same frame, on journals that a hub would leave.

Ours reads the journal (or what compaction made of it) and writes Parquet; Polars has the frame in memory and only
writes it: `write_parquet` of the metrics, and of the tokens, which do not fit, slice after slice, the reading of each
not counted. So 1.0 would be an export whose reading is wholly hidden behind its writing. What no reader of a journal
can be without, its bytes from the disk's cache and their checksums, is printed too: it is the least that reading costs.

Sizes: 10^6 steps of 30 metrics and 10^8 tokens (2.4 GB of journal, 1.2 GB of Parquet, both deleted);
DRIFTLINE_BENCH_STEPS and DRIFTLINE_BENCH_TOKENS say otherwise. Each measure is the best of several runs, in turns, each
in a process of its own, imports not counted; what compaction makes is measured at a tenth of the size. The exported
steps are held against those that were journaled.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from console.recorded.compaction.compact import compact
from driftline.journal.journal import segments
from driftline.rundir import RunDir
from tests.bench import journals
from tests.bench.child import Cost, measure

STEPS = int(float(os.environ.get("DRIFTLINE_BENCH_STEPS", "1e6")))
TOKENS = int(float(os.environ.get("DRIFTLINE_BENCH_TOKENS", "1e8")))
WANTED = 1.3
WANTED_BYTES = 1e9
SLICE = 10_000_000
LARGE = 30_000_000
"""Rows from which on one run of each is enough."""

EXPORT = """
import polars as pl
import console.export, console.export.write, console.export.lazy
from driftline.rundir import RunDir
start = now()
report = console.export.export(RunDir(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3])
tell(since(start), report.rows)
"""
WRITE = f"""
import polars as pl
out = Path(sys.argv[1])
whole, seconds, at = pl.scan_parquet(out), [0.0, 0.0], 0
while (part := whole.slice(at, {SLICE}).collect()).height:
    part = part.rechunk()
    start = now()
    part.write_parquet(out.with_name("again.parquet"))
    seconds = [a + b for a, b in zip(seconds, since(start))]
    at += part.height
    del part
tell(seconds, at)
"""
CHECKSUMS = """
import google_crc32c, os
read = 0
start = now()
for path in sorted(Path(sys.argv[1]).rglob("*.rlj")):
    with open(path, "rb", buffering=0) as file:
        while data := os.pread(file.fileno(), 4 << 20, file.tell()):
            google_crc32c.value(data)
            file.seek(len(data), os.SEEK_CUR)
            read += len(data)
tell(since(start), read)
"""
TURNS = 5


def compare(run: RunDir, out: Path, table: str, source: str, size: int) -> tuple[float, float]:
    """Print what both take; ratio and our peak."""
    mine, theirs = [], []
    for _ in range(1 if size >= LARGE else TURNS):
        mine.append(measure(EXPORT, run.path, out, table, runs=1))
        theirs.append(measure(WRITE, out, runs=1))
    ours, bare = best(mine), best(theirs)
    if ours.rows != bare.rows:
        raise RuntimeError(f"{out}: {ours.rows} rows were exported, {bare.rows} are in it")
    ratio = ours.wall / bare.wall
    print(
        f"  {table}, {ours.rows:.0e} rows from {source}: {ours.wall:.2f} s ({ours.cpu:.2f} s of processor), "
        f"peak {ours.peak / 1e6:.0f} MB; Polars writes the same frame in {bare.wall:.2f} s ({bare.cpu:.2f} s): "
        f"ratio {ratio:.2f} (wanted {WANTED}), of processor time {ours.cpu / bare.cpu:.2f}",
        flush=True,
    )
    least = measure(CHECKSUMS, run.path)
    if least.rows:
        print(f"    its {least.rows / 1e6:.0f} MB and their checksums alone: {least.wall:.2f} s ({least.cpu:.2f} s)")
    return ratio, ours.peak


def best(costs: list[Cost]) -> Cost:
    """The least of the times, the most of the memory."""
    return Cost(
        min(one.wall for one in costs), min(one.cpu for one in costs), costs[0].rows, max(one.peak for one in costs)
    )


def check(out: Path, steps: int) -> None:
    """Raise RuntimeError unless the exported steps are those of `journals.metrics_run`."""
    table = pl.read_parquet(out)
    for at, frame in enumerate(journals.metrics(steps)):
        row = table.row(at, named=True) if at % 997 == 0 else None
        if row is not None and any(row[name] != value for name, value in frame.values.items()):
            raise RuntimeError(f"{out}: step {frame.step} is not what was journaled")
    if not (table["step"].to_numpy() == np.arange(steps)).all():
        raise RuntimeError(f"{out}: the steps are not those that were journaled")


def main() -> int:
    """Print what it takes, and the ratios; 1 where a wanted figure is missed."""
    missed = False
    for table, make, size in (("metrics", journals.metrics_run, STEPS), ("tokens", journals.tokens_run, TOKENS)):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            run = make(root, size)
            ratio, peak = compare(run, root / f"{table}.parquet", table, "the journal", size)
            missed |= ratio > WANTED or (table == "tokens" and peak > WANTED_BYTES)
            if table == "metrics":
                check(root / "metrics.parquet", size)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            run = make(root, size // 10)
            list(compact(run))
            for path in segments(run.journal):
                path.unlink()
            ratio, _ = compare(run, root / f"{table}.parquet", table, "compacted Parquet", size // 10)
            missed |= ratio > WANTED
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
