"""Names that a producer chose, queries that stop early, tables that fail amid their file: nothing may be mixed up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from console.export import FORMATS, export, frame, query, scan
from console.snapshot import build, files
from console.snapshot.plan import Answer
from console.tables import Column
from driftline import journal as journal_module
from driftline.frames import Metrics
from driftline.rundir import RunDir, create
from tests.unit.runs import NOW, journal, whole

ODD = (
    "*",
    "^.*$",
    "^mine$",
    "mine",
    "",
    "metric",
    "value",
    "_life",
    "_spoke",
    "value/0",
    'with "quotes"',
    "naïve · 名",
)


def steps(numbers: range, names: tuple[str, ...], *, life: int = 0) -> Iterator[Metrics]:
    for step in numbers:
        values = {name: step + at / 100 + life * 1000 for at, name in enumerate(names)}
        yield Metrics(step, life, NOW + step, values)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_name_is_a_name_whatever_polars_takes_it_for(tmp_path: Path, resumed: bool) -> None:
    run = create(tmp_path / "runs", "odd")
    journal(run, steps(range(12), ODD))
    if resumed:
        journal(run, steps(range(8, 12), ODD, life=1))
    told = {
        name: [s + at / 100 + (1000 if resumed and s >= 8 else 0) for s in range(12)] for at, name in enumerate(ODD)
    }

    table = frame(run, "metrics")
    assert {name: table[name].to_list() for name in ODD} == told
    assert frame(run, "metrics", columns=("*",)).to_dict(as_series=False) == {"*": told["*"]}
    assert scan(run).collect().equals(table)
    assert query(run, 'SELECT step, "mine", "value" FROM metrics WHERE step > 9').to_dict(as_series=False) == {
        "step": [10, 11], "mine": told["mine"][10:], "value": told["value"][10:],
    }  # fmt: skip
    export(run, tmp_path / "m.parquet")
    assert pl.read_parquet(tmp_path / "m.parquet").equals(table)
    export(run, tmp_path / "long.parquet", long=True)
    rows = pl.read_parquet(tmp_path / "long.parquet")
    assert {
        name: [value for _, value in sorted(mine.select("step", "value").rows())]
        for (name,), mine in rows.group_by("metric")
    } == told
    assert rows.height == 12 * len(ODD)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """Read in many small parts."""
    monkeypatch.setattr(build, "REPORT_ROWS", 4)
    monkeypatch.setattr(build, "BATCH_ROWS", 4)
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 900)
    return create(tmp_path / "runs", "parts")


@pytest.mark.parametrize("table", ["metrics", "tokens", "spans"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM (SELECT * FROM {} LIMIT 40) x WHERE step > 1",
        "WITH some AS (SELECT * FROM {} LIMIT 40 OFFSET 1) SELECT step FROM some WHERE step % 2 = 0",
    ],
)
def test_a_limit_counts_the_rows_before_a_condition_outside_it(run: RunDir, table: str, sql: str) -> None:
    journal(run, whole(12))
    asked = sql.format(table)
    expected = pl.SQLContext({table: frame(run, table).lazy()}).execute(asked).collect()
    assert expected.height > 0
    assert_frame_equal(query(run, asked), expected)
    lazy, eager = scan(run, table), frame(run, table).lazy()
    assert_frame_equal(*(one.head(40).filter(pl.col("step") > 1).collect() for one in (lazy, eager)))
    assert_frame_equal(*(one.filter(pl.col("step") > 1).head(12).collect() for one in (lazy, eager)))


@pytest.mark.parametrize("end", [20, 3])
def test_an_answer_that_is_full_early_knows_of_the_life_that_came_later(run: RunDir, end: int) -> None:
    """What was told of a step first is another life's, whether or not a query had to read as far as its resumption."""
    journal(run, [*steps(range(200), ("reward",)), *steps(range(1, end), ("reward",), life=1)])
    expected = frame(run, "metrics")
    assert expected["reward/mean"][1] == 1001.0
    for sql in (
        'SELECT step, "reward/mean" FROM metrics WHERE step > 0 LIMIT 3',
        'SELECT step, "reward/mean" FROM (SELECT * FROM metrics WHERE version >= 0 LIMIT 4) x WHERE step < 3',
        "SELECT * FROM metrics LIMIT 0",
    ):
        want = pl.SQLContext({"metrics": expected.lazy()}).execute(sql).collect()
        assert_frame_equal(query(run, sql), want)


def test_a_name_that_comes_late_is_found_through_an_alias(run: RunDir) -> None:
    journal(run, [*steps(range(20), ("reward",)), *steps(range(20, 22), ("reward", "late"))])
    sql = 'SELECT a."late" AS x FROM metrics a JOIN metrics b ON a.step = b.step WHERE a.step >= 20 ORDER BY x'
    assert query(run, sql)["x"].to_list() == [20.01, 21.01]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_table_that_fails_leaves_nothing_even_later(tmp_path: Path, suffix: str) -> None:
    """Polars may still be about to make its file when it has said that the table failed."""

    def parts(count: int) -> Iterator[pl.DataFrame]:
        for at in range(count):
            yield pl.DataFrame({"a": [at] * 1000})
        raise ValueError("broken")

    for count in range(40):
        with pytest.raises(ValueError, match="broken"):
            files.write(tmp_path / f"t{suffix}", Answer({"a": Column("int")}, parts(count % 3)), {})
    # A write that succeeds takes longer than what those before it may still have been at.
    files.save(pl.DataFrame({"a": range(100_000)}), tmp_path / "done.parquet", {})
    assert [path.name for path in tmp_path.iterdir()] == ["done.parquet"]
