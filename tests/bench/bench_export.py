"""`driftline export` and `query` against Polars writing and asking the same frame, on journals that a hub would leave.

Sizes: 10^6 steps of 30 metrics and 10^7 tokens; DRIFTLINE_BENCH_STEPS and DRIFTLINE_BENCH_TOKENS say otherwise
(10^8 tokens take minutes). Every measure is the best of RUNS, each in a process of its own, imports not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from driftline.rundir import RunDir
from tests.bench import journals

STEPS = int(float(os.environ.get("DRIFTLINE_BENCH_STEPS", "1e6")))
TOKENS = int(float(os.environ.get("DRIFTLINE_BENCH_TOKENS", "1e7")))
RUNS = 3
WANTED = 1.3
WANTED_BYTES = 1e9
SLICE = 10_000_000

_HEAD = """
import json, resource, sys, time
from pathlib import Path
import polars as pl
import console.export, console.snapshot.files, console.snapshot.lazy
from driftline.rundir import RunDir
run, out, table = RunDir(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
def now():
    return time.perf_counter(), time.process_time()
def since(start):
    return [after - before for before, after in zip(start, now())]
def tell(seconds, rows):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([*seconds, rows, peak]))
"""
EXPORT = _HEAD + """
start = now()
report = console.export.export(run, out, table)
tell(since(start), report.rows)
"""
WRITE = _HEAD + f"""
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
SQL = {
    "metrics": 'SELECT count(*) AS n, avg("policy/kl_new_old") AS kl, max("mismatch/abs_diff_mean") AS worst '
    "FROM metrics WHERE step >= 1000",
    "tokens": "SELECT engine, count(*) AS n, avg(abs(trainer - rollout)) AS d FROM tokens GROUP BY engine",
}
ASK = _HEAD + f"""
start = now()
answer = console.export.query(run, {SQL!r}[table])
tell(since(start), answer["n"].sum())
"""
BARE = _HEAD + f"""
start = now()
answer = pl.SQLContext({{table: pl.scan_parquet(out)}}).execute({SQL!r}[table]).collect(engine="streaming")
tell(since(start), answer["n"].sum())
"""


class Cost(NamedTuple):
    """Best seconds on the clock and of the processors, rows, and largest peak in bytes, of RUNS runs."""

    wall: float
    cpu: float
    rows: int
    peak: float


def measure(code: str, run: RunDir, out: Path, table: str) -> Cost:
    """Run a snippet RUNS times."""
    told = []
    for _ in range(RUNS):
        done = subprocess.run(
            [sys.executable, "-c", code, str(run.path), str(out), table],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        told.append(json.loads(done.stdout))
    return Cost(min(t[0] for t in told), min(t[1] for t in told), told[0][2], max(t[3] for t in told))


def main() -> int:
    """Print what it takes, and the ratios; 1 where a wanted figure is missed."""
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for table, make, size in (
            ("metrics", journals.metrics_run, STEPS),
            ("tokens", journals.tokens_run, TOKENS),
        ):
            run, out = make(root, size), root / f"{table}.parquet"
            ours = measure(EXPORT, run, out, table)
            bare = measure(WRITE, run, out, table)
            assert ours.rows == bare.rows
            ratio = ours.wall / bare.wall
            journal = sum(path.stat().st_size for path in run.journal.iterdir())
            print(
                f"  {table}: {ours.rows:.0e} rows from {journal / 1e6:.0f} MB of journal in {ours.wall:.2f} s "
                f"({ours.cpu:.2f} s of processor), peak {ours.peak / 1e6:.0f} MB; Polars writes the same frame in "
                f"{bare.wall:.2f} s ({bare.cpu:.2f} s): ratio {ratio:.2f} (wanted {WANTED}), "
                f"of processor time {ours.cpu / bare.cpu:.2f}",
                flush=True,
            )
            missed |= ratio > WANTED or (table == "tokens" and ours.peak > WANTED_BYTES)
            ours = measure(ASK, run, out, table)
            bare = measure(BARE, run, out, table)
            assert ours.rows == bare.rows
            print(
                f"  query over {table}: {ours.wall:.2f} s from the journal; bare Polars over the exported Parquet "
                f"{bare.wall:.3f} s: ratio {ours.wall / bare.wall:.1f}",
                flush=True,
            )
            for path in (*run.journal.iterdir(), out):
                path.unlink()
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
