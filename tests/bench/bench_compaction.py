"""Closed segments as Parquet, as compaction makes them, against zstd of the same journal records.

Zstd would have one reader, that of the journal, and no second format. Here a segment is cut into blocks of 4 MiB (what
`console.recorded.blocks` reads at once), each compressed for itself; the reader decompresses a block when it comes to
it and is otherwise the one of the journal. Measured on three runs: 30 metrics a step, a mixed one (metrics, events,
spans, tokens), and one of `driftline simulate`, which sends what a run like the demonstration's sends.
DRIFTLINE_BENCH_STEPS (10^5) sets the length of the first two; DRIFTLINE_BENCH_RUN names a run directory of your own,
which is copied and measured as a fourth.

`query` and `export` are those of the library, `compare` opens the run twice, as reference and as run, and judges.
Layouts take turns, each measure in a process of its own, imports not counted; medians of seconds, and of seconds of
processor, which other work on the machine disturbs less; the journal itself once, for orientation. Printed: sizes,
seconds, and zstd's ratio to Parquet.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from console.recorded.blocks import segment
from console.recorded.compaction.compact import compact
from driftline.frames import Event, Frame, Span, Tokens
from driftline.journal.journal import segments
from driftline.journal.records import Damage
from driftline.rundir import RUNS_VARIABLE, RunDir, create
from tests.bench import journals
from tests.bench.child import Cost, measure

STEPS = int(float(os.environ.get("DRIFTLINE_BENCH_STEPS", "1e5")))
OWN = os.environ.get("DRIFTLINE_BENCH_RUN", "")
TURNS = 3
BLOCK = 4 * 1024 * 1024
LEVELS = (3, 9)
"""Of zstd: what it takes unasked, and what a background process can afford."""
WANTED_SIZE = 1.3
WANTED_TIME = 2.0

ZSTD = """
import os as _os, struct as _struct, types as _types
import pyarrow as _pa
from console.recorded import blocks as _blocks
_open = {}
def _pread(fd, want, at):
    if fd not in _open or at == _blocks.HEADER:
        table, place, end = [], 0, 0
        size = _os.fstat(fd).st_size
        while place < size:
            packed, raw = _struct.unpack("<II", _os.pread(fd, 8, place))
            table.append((end, raw, place + 8, packed))
            place, end = place + 8 + packed, end + raw
        _open[fd] = table, {}
    table, held = _open[fd]
    out = b""
    for begin, raw, place, packed in table:
        if begin < at + want and at < begin + raw:
            if begin not in held:
                for old in [key for key in held if key < begin - raw]:
                    del held[old]
                held[begin] = _pa.decompress(_os.pread(fd, packed, place), raw, "zstd", asbytes=True)
            out += held[begin][max(at - begin, 0) : at + want - begin]
    return out
def _careful(*_):
    raise RuntimeError("an intact run was thought to be damaged")
if sys.argv[2] == "zstd":
    _blocks.os = _types.SimpleNamespace(pread=_pread)
    _blocks._careful = _careful
"""
QUERY = f"""
import console.export, console.export.lazy
from driftline.rundir import RunDir
{ZSTD}
start = now()
answer = console.export.query(RunDir(Path(sys.argv[1])), sys.argv[3])
tell(since(start), answer["n"].sum())
"""
EXPORT = f"""
import polars
import console.export, console.export.write, console.export.lazy
from driftline.rundir import RunDir
{ZSTD}
start = now()
report = console.export.export(RunDir(Path(sys.argv[1])), Path(sys.argv[3]), sys.argv[4])
tell(since(start), report.rows)
"""
COMPARE = f"""
import polars, pyarrow.parquet
from console.parity.judge import compare
from console.parity.rules import load
from console.parity.runs import open_run
{ZSTD}
start = now()
found = compare([open_run(sys.argv[1])], open_run(sys.argv[1]), load())
tell(since(start), sum(len(found.run.series[name].steps) for name in found.run.series))
"""
SQL = {
    "metrics": 'SELECT count(*) AS n, avg("policy/kl_new_old") AS kl FROM metrics WHERE step >= 100',
    "tokens": "SELECT engine, count(*) AS n, avg(abs(trainer - rollout)) AS d FROM tokens GROUP BY engine",
}


def mixed(steps: int) -> Iterator[Frame]:
    """Metrics of every step, a sync of two engines every 10, tokens (40 a step) every 50."""
    rng = np.random.default_rng(11)
    texts = [f"piece{at}" for at in range(2000)]
    for report in journals.metrics(steps):
        yield report
        if report.step % 10 == 0:
            name = f"sync-{report.step // 10}"
            for engine in ("engine-0", "engine-1"):
                for phase in ("pause", "load", "verify", "reset", "resume", "total"):
                    seconds = float(rng.exponential(0.01))
                    versions = report.version, report.version + 1
                    yield Span(name, engine, phase, report.time, seconds, *versions, report.step)
            yield Event(report.time, "info", "sync.done", f"{name}: both engines", report.step, {"sync": name})
        if report.step % 50 == 0:
            sequences, length = 16, 125
            n = sequences * length
            rollout = -rng.exponential(1.0, n).astype("<f4")
            # Zipf: as words are, so that the ids can be compressed as those of a text can.
            ids = np.minimum(rng.zipf(1.3, n), 1999).astype("<i4")
            yield Tokens(
                report.step, report.version, report.time, n, ids.tobytes(),
                np.repeat(np.arange(sequences, dtype="<i4"), length).tobytes(),
                np.tile(np.arange(length, dtype="<i4"), sequences).tobytes(),
                np.full(n, report.version, dtype="<i4").tobytes(), rollout.tobytes(),
                (rollout + rng.normal(0, 0.01, n)).astype("<f4").tobytes(),
                tuple(f"engine-{at % 2}" for at in range(sequences)), pieces=tuple(texts[at] for at in ids.tolist()),
            )  # fmt: skip


def simulated(root: Path) -> RunDir:
    """A run of `driftline simulate`: 2,000 steps, with its hub."""
    command = [sys.executable, "-m", "console.cli", "simulate", "--steps", "2000", "--rate", "100"]
    subprocess.run(
        command, env=os.environ | {RUNS_VARIABLE: str(root)}, stdout=subprocess.DEVNULL, timeout=600, check=True
    )
    (path,) = root.glob("synthetic-*")
    return RunDir(path)


def zstd(run: RunDir, level: int) -> float:
    """Put compressed blocks in the place of every segment; seconds of processor that it took."""
    codec = pa.Codec("zstd", compression_level=level)
    start = os.times()
    for path in segments(run.journal):
        data = path.read_bytes()
        packed = bytearray()
        for at in range(0, len(data), BLOCK):
            part = data[at : at + BLOCK]
            made = codec.compress(part, asbytes=True)
            packed += len(made).to_bytes(4, "little") + len(part).to_bytes(4, "little") + made
        path.write_bytes(packed)
    end = os.times()
    return end.user + end.system - start.user - start.system


def parquet(run: RunDir) -> float:
    """Compact every segment and delete it; seconds of processor that it took."""
    start = os.times()
    list(compact(run))
    end = os.times()
    for path in segments(run.journal):
        path.unlink()
    return end.user + end.system - start.user - start.system


def size(folder: Path, pattern: str) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob(pattern))


def median(costs: list[Cost]) -> Cost:
    """The middle of the times."""
    return Cost(
        statistics.median(one.wall for one in costs), statistics.median(one.cpu for one in costs), costs[0].rows, 0.0
    )


def compare(name: str, run: RunDir) -> bool:
    """Print the table of one run; whether all that is wanted is met."""
    root = run.path.parent
    compacted, packed = (RunDir(root / kind / run.path.name) for kind in ("parquet", "zstd"))
    for copy in (compacted, packed):
        shutil.copytree(run.path, copy.path)
    raw = size(run.journal, "*.rlj")
    spent = parquet(compacted)
    before = size(compacted.parquet, "*.parquet")
    print(f"{name}: {raw / 1e6:.1f} MB of journal; compacted {before / 1e6:.1f} MB in {spent:.1f} s of processor")
    for level in LEVELS:
        shutil.rmtree(packed.path)
        shutil.copytree(run.path, packed.path)
        spent = zstd(packed, level)
        after = size(packed.journal, "*.rlj")
        print(f"  zstd, level {level}: {after / 1e6:.1f} MB in {spent:.1f} s: {after / before:.2f} times Parquet's")
    met = after <= WANTED_SIZE * before
    out = root / "out.parquet"
    for what, code, extra in tasks(run, out):
        costs = {"journal": [measure(code, run.path, "journal", *extra, runs=1)], "parquet": [], "zstd": []}
        for _ in range(TURNS):
            for kind, one in (("parquet", compacted), ("zstd", packed)):
                costs[kind].append(measure(code, one.path, kind, *extra, runs=1))
        if len({cost.rows for some in costs.values() for cost in some}) != 1:
            raise RuntimeError(f"{what}: the layouts answer differently: {costs}")
        journal, old, new = (median(costs[kind]) for kind in ("journal", "parquet", "zstd"))
        ratios = sorted(b.cpu / a.cpu for a, b in zip(costs["parquet"], costs["zstd"], strict=True))
        print(
            f"  {what}, {old.rows} rows: Parquet {old.wall:.3f} s ({old.cpu:.3f} of processor), "
            f"zstd {new.wall:.3f} ({new.cpu:.3f}), journal {journal.wall:.3f} ({journal.cpu:.3f}); "
            f"zstd to Parquet {new.wall / old.wall:.2f} "
            f"(processor {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )
        met &= statistics.median(ratios) <= WANTED_TIME
    return met


def tasks(run: RunDir, out: Path) -> Iterator[tuple[str, str, tuple[Path | str, ...]]]:
    """What is measured of a run: a name, the snippet and what it is called with."""
    tables = ["metrics"]
    if any(block.having(b"t") for path in segments(run.journal) for block in segment(path, Damage())):
        tables.append("tokens")
    for table in tables:
        yield f"query of {table}", QUERY, (SQL[table],)
        yield f"export of {table}", EXPORT, (out, table)
    yield "compare", COMPARE, ()


def main() -> int:
    """Print the tables; 0 where zstd is within what is wanted everywhere, else 1: then Parquet stays."""
    made: list[tuple[str, Callable[[Path], RunDir]]] = [
        (f"metrics, {STEPS:.0e} steps", lambda root: journals.metrics_run(root, STEPS)),
        (f"mixed, {STEPS:.0e} steps", lambda root: journals.write(create(root, "mixed"), mixed(STEPS))),
        ("simulate, 2000 steps", simulated),
    ]
    if OWN:
        made.append((OWN, lambda root: RunDir(Path(shutil.copytree(OWN, root / Path(OWN).name)))))
    met = True
    for name, make in made:
        with tempfile.TemporaryDirectory() as folder:
            met &= compare(name, make(Path(folder)))
    print(f"size within {WANTED_SIZE} and processor time within {WANTED_TIME} everywhere: {'yes' if met else 'no'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
