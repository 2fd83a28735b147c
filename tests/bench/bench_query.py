"""`driftline query` against the same query in bare Polars over the exported Parquet.

Ours begins with what is there without an export, the journal: a query that is asked once pays no export, one that is
asked often is better asked of the exported file, or of a run that was compacted. Sizes as in `bench_export`, tokens a
tenth of it, what compaction makes a tenth of that again.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from console.export import export
from console.recorded.compaction.compact import compact
from driftline.journal.journal import segments
from driftline.rundir import RunDir
from tests.bench import journals
from tests.bench.child import measure

STEPS = int(float(os.environ.get("DRIFTLINE_BENCH_STEPS", "1e6")))
TOKENS = int(float(os.environ.get("DRIFTLINE_BENCH_TOKENS", "1e8")) / 10)
SQL = {
    "metrics": 'SELECT count(*) AS n, avg("policy/kl_new_old") AS kl, max("mismatch/abs_diff_mean") AS worst '
    "FROM metrics WHERE step >= 1000",
    "tokens": "SELECT engine, count(*) AS n, avg(abs(trainer - rollout)) AS d FROM tokens GROUP BY engine",
}
ASK = f"""
import console.export, console.export.lazy
from driftline.rundir import RunDir
start = now()
answer = console.export.query(RunDir(Path(sys.argv[1])), {SQL!r}[sys.argv[2]])
tell(since(start), answer["n"].sum())
"""
BARE = f"""
import polars as pl
start = now()
lazy = pl.SQLContext({{sys.argv[2]: pl.scan_parquet(sys.argv[1])}}).execute({SQL!r}[sys.argv[2]])
answer = lazy.collect(engine="streaming")
tell(since(start), answer["n"].sum())
"""


def compare(run: RunDir, out: Path, table: str, source: str) -> None:
    """Print what both take, and the ratio."""
    report = export(run, out, table)
    ours, bare = measure(ASK, run.path, table), measure(BARE, out, table)
    if ours.rows != bare.rows:
        raise RuntimeError(f"the answers differ: {ours.rows} rows, {bare.rows} in bare Polars")
    print(
        f"  query over {table}, {report.rows:.0e} rows: {ours.wall:.2f} s from {source} ({ours.cpu:.2f} s of "
        f"processor), peak {ours.peak / 1e6:.0f} MB; bare Polars over the exported Parquet {bare.wall:.3f} s "
        f"({bare.cpu:.3f} s): ratio {ours.wall / bare.wall:.1f}",
        flush=True,
    )


def main() -> int:
    """Print both and their ratio. No ratio is wanted: reading a journal is what the export is for."""
    for table, make, size in (("metrics", journals.metrics_run, STEPS), ("tokens", journals.tokens_run, TOKENS)):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            compare(make(root, size), root / f"{table}.parquet", table, "the journal")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            run = make(root, size // 10)
            list(compact(run))
            for path in segments(run.journal):
                path.unlink()
            compare(run, root / f"{table}.parquet", table, "compacted Parquet")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
