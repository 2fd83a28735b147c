"""A producer of ever new names: what its numbers cost does not grow with names times steps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from console.export import export, frame, query, steps, write
from console.export.schema import TABLES
from console.recorded.compaction import wide
from console.recorded.compaction.compact import compact
from driftline.frames import Metrics
from driftline.journal.journal import segments
from driftline.rundir import RunDir, create
from tests.unit.runs import NOW, journal


def growing(steps: int, new: int, *, life: int = 0) -> Iterator[Metrics]:
    """Each step has a number under a name that all have, and `new` under names of its own."""
    for step in range(steps):
        names = ["reward", *(f"new/{step}/{at}" for at in range(new))]
        yield Metrics(step, life, NOW + step, {name: step + at / 1000 + life for at, name in enumerate(names)})


def expected(count: int, new: int) -> dict[str, list[float | None]]:
    """The numbers of such a run by column."""
    columns: dict[str, list[float | None]] = {"reward/mean": [float(step) for step in range(count)]}
    for step in range(count):
        for at in range(new):
            column: list[float | None] = [None] * count
            column[step] = step + (at + 1) / 1000
            columns[f"new/{step}/{at}"] = column
    return columns


def read(out: Path) -> pl.DataFrame:
    """A file; all rows are looked at for the type of a column that begins with nulls."""
    match out.suffix:
        case ".parquet":
            return pl.read_parquet(out)
        case ".arrow":
            return pl.read_ipc(out)
        case ".csv":
            return pl.read_csv(out, infer_schema_length=None)
        case _:
            return pl.read_ndjson(out, infer_schema_length=None)


@pytest.mark.parametrize("many", [10, 10_000])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".ndjson"])
def test_every_number_stands_in_its_step_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, many: int
) -> None:
    """`many`: from how many columns on a file is written from one table instead of parts."""
    monkeypatch.setattr("console.export.plan.MANY_NAMES", many)
    monkeypatch.setattr(steps, "CELLS", 500)
    monkeypatch.setattr(write, "CELLS", 500)
    run = create(tmp_path / "runs", "growing")
    journal(run, growing(30, 3))
    out = tmp_path / f"m{suffix}"
    assert export(run, out).rows == 30
    table = read(out)
    wanted = expected(30, 3)
    names = [*TABLES["metrics"].columns, *sorted(name for name in wanted if name.startswith("new"))]
    # Polars reads the keys of lines that it has looked at as a whole in no order.
    assert (sorted(table.columns) == sorted(names)) if suffix == ".ndjson" else (table.columns == names)
    assert {name: table[name].to_list() for name in wanted} == wanted
    assert table["step"].to_list() == list(range(30))
    if suffix == ".parquet":
        assert_frame_equal(table, frame(run), check_exact=True)
        assert pl.read_parquet_metadata(out)["driftline.run"] == run.id


@pytest.mark.parametrize("shapes", [0, 1, wide.MAX_SHAPES])
@pytest.mark.parametrize("resumed", [False, True])
def test_compacted_and_journaled_numbers_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes: int, resumed: bool
) -> None:
    monkeypatch.setattr(wide, "MAX_SHAPES", shapes)
    monkeypatch.setattr(steps, "CELLS", 500)
    run = create(tmp_path / "runs", "growing")
    journal(run, growing(25, 3))
    if resumed:
        journal(run, growing(20, 2, life=1))
    asked = 'SELECT step, version, "reward/mean", "new/3/0" FROM metrics WHERE step >= 2 AND step < 9'

    def tables(run: RunDir) -> list[pl.DataFrame]:
        export(run, tmp_path / "long.parquet", long=True)
        export(run, tmp_path / "some.parquet", columns=("new/7/1", "step"), steps=(3, 10))
        return [frame(run), query(run, asked), *(pl.read_parquet(tmp_path / f"{n}.parquet") for n in ("long", "some"))]

    before = tables(run)
    whole, _, long, _ = before
    # The long table is the wide one, number by number, by step and then in the order of the columns.
    names = whole.columns[3:]
    assert long.select("step", "metric", "value").rows() == [
        (row["step"], name, row[name]) for row in whole.iter_rows(named=True) for name in names if row[name] is not None
    ]
    assert long.height == (20 * 3 + 5 * 4 if resumed else 25 * 4)
    list(compact(run))
    for path in segments(run.journal):
        path.unlink()
    for one, other in zip(before, tables(run), strict=True):
        assert_frame_equal(one, other, check_exact=True)


def test_a_name_that_comes_late_can_be_asked_for(tmp_path: Path) -> None:
    run = create(tmp_path / "runs", "late")
    journal(run, growing(40, 1))
    assert frame(run, columns=("new/39/0", "step")).row(39) == (39.001, 39)


COST = """
import sys
from pathlib import Path
from console.export import export
from driftline.rundir import RunDir
export(RunDir(Path(sys.argv[1])), Path(sys.argv[2]), long=sys.argv[3] == "long")
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["wide", "long"])
def test_memory_follows_the_numbers(tmp_path: Path, form: str) -> None:
    """1,000 steps of 20 new names: with a cell for each step and name it was gigabytes; full scale: bench_names."""
    peaks = []
    for count in (10, 1_000):
        run = create(tmp_path / f"runs{count}", "growing")
        journal(run, growing(count, 20))
        command = [sys.executable, "-c", COST, str(run.path), str(tmp_path / "m.parquet"), form]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 600e6, f"peaks of {peaks} bytes"
