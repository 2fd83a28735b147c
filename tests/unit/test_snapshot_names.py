"""Names that a producer chose, queries that stop early, tables that fail or are stopped amid their file."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from console.cli.main import main
from console.export import FORMATS, build, export, frame, query, scan, write
from console.export.plan import TableResult
from console.export.schema import TABLES, Column
from console.export.source import Directory
from console.recorded.compaction import wide
from console.recorded.compaction.compact import check, compact
from console.store.load import load
from driftline.frames import Metrics, Span
from driftline.journal import journal as journal_module
from driftline.journal.journal import Journal, Record, record_encoder, segments
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
    wanted = {
        name: [s + at / 100 + (1000 if resumed and s >= 8 else 0) for s in range(12)] for at, name in enumerate(ODD)
    }

    table = frame(run, "metrics")
    assert {name: table[name].to_list() for name in ODD} == wanted
    assert frame(run, "metrics", columns=("*",)).to_dict(as_series=False) == {"*": wanted["*"]}
    assert scan(run).collect().equals(table)
    assert query(run, 'SELECT step, "mine", "value" FROM metrics WHERE step > 9').to_dict(as_series=False) == {
        "step": [10, 11], "mine": wanted["mine"][10:], "value": wanted["value"][10:],
    }  # fmt: skip
    export(run, tmp_path / "m.parquet")
    assert pl.read_parquet(tmp_path / "m.parquet").equals(table)
    export(run, tmp_path / "long.parquet", long=True)
    rows = pl.read_parquet(tmp_path / "long.parquet")
    assert {
        name: [value for _, value in sorted(mine.select("step", "value").rows())]
        for (name,), mine in rows.group_by("metric")
    } == wanted
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
    """The first report of a step is another life's, whether or not a query had to read as far as its resumption."""
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


def test_a_sync_of_a_trainer_that_was_started_again_is_another(run: RunDir) -> None:
    """It counts from one again: the seconds of two syncs were added up, and two lives were one row."""

    def sync(name: str, at: float, seconds: float, version: int, *engines: str) -> list[Span]:
        return [
            Span(name, engine, phase, at + place, seconds, version, version + 1, version, ok=version != 7)
            for engine in engines
            for place, phase in enumerate(("pause", "load", "resume", "total"))
        ]

    first = sync("sync-1", NOW, 0.25, 0, "engine-0") + sync("sync-2", NOW + 10, 0.5, 1, "engine-0", "engine-1")
    repeated = first[-3:]  # the hub had crashed before it acknowledged them
    later = sync("sync-1", NOW + 50, 1.0, 7, "engine-0", "engine-1") + sync("sync-2", NOW + 60, 2.0, 8, "engine-0")
    journal(run, [*first, *repeated, *later])
    table = frame(run, "syncs").select("sync", "engine", "version_before", "pause_s", "load_s", "total_s", "ok")
    assert table.rows() == [
        ("sync-1", "engine-0", 0, 0.25, 0.25, 0.25, True),
        ("sync-2", "engine-0", 1, 0.5, 0.5, 0.5, True),
        ("sync-2", "engine-1", 1, 0.5, 0.5, 0.5, True),
        ("sync-1", "engine-0", 7, 1.0, 1.0, 1.0, False),
        ("sync-1", "engine-1", 7, 1.0, 1.0, 1.0, False),
        ("sync-2", "engine-0", 8, 2.0, 2.0, 2.0, True),
    ]
    shown = load(run).model.syncs.syncs
    assert [(one.id, engine) for one in shown for engine in one.engines] == [row[:2] for row in table.rows()]


def test_frames_that_this_version_cannot_read_are_left_out(run: RunDir) -> None:
    """Of a newer producer; a part of a table may have no other."""
    journal(run, steps(range(5), ("reward",)))
    log = Journal(run.journal)
    for _ in range(9):
        body = msgspec.Raw(msgspec.msgpack.encode(["m", "a step", 1, 1.0, {"reward": 1.0}]))
        log.append(record_encoder.encode(Record(log.head + 1, NOW, "newer", body, 1, log.head + 1)), log.head + 1, True)
    log.close()
    assert frame(run, "metrics")["reward/mean"].to_list() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert query(run, "SELECT count(*) AS n FROM metrics").item() == 5


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_table_that_fails_leaves_nothing_even_later(tmp_path: Path, suffix: str) -> None:
    """Polars may still be about to make its file when it has said that the table failed."""

    def parts(count: int) -> Iterator[pl.DataFrame]:
        for at in range(count):
            yield pl.DataFrame({"a": [at] * 1000})
        raise ValueError("broken")

    for count in range(40):
        with pytest.raises(ValueError, match="broken"):
            write.write(tmp_path / f"t{suffix}", TableResult({"a": Column("int")}, parts(count % 3)), {})
    # A write that succeeds takes longer than what those before it may still have been at.
    write.save(pl.DataFrame({"a": range(100_000)}), tmp_path / "done.parquet", {})
    assert [path.name for path in tmp_path.iterdir()] == ["done.parquet"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_export_that_a_signal_stops_leaves_nothing(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, number: signal.Signals
) -> None:
    """A terminal that is closed, or a job that is ended: no file of many GB may be left under a hidden name."""
    journal(run, steps(range(40), ("reward",)))
    original = Directory.parts

    def parts(self: Directory, *args: object, **kwargs: object) -> Iterator[pl.DataFrame]:
        whole_table = list(original(self, *args, **kwargs))  # type: ignore[arg-type]
        yield whole_table[0]
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.01)
            yield whole_table[0].clear()

    monkeypatch.setattr(Directory, "parts", parts)
    out = tmp_path / "out"
    out.mkdir()
    # Where the tests run in the background of a shell, ctrl-C is ignored, and would rightly stay so.
    own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, own)
    try:
        assert main(["export", "--run", str(run.path), "--out", str(out / f"m{suffix}")]) == 128 + number
        assert list(out.iterdir()) == []
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("shapes", [0, wide.MAX_SHAPES])
def test_a_folder_has_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes: int) -> None:
    """One with brackets is no pattern, one with an equals sign no partition of a table."""
    monkeypatch.setattr(wide, "MAX_SHAPES", shapes)
    made = create(tmp_path / "step=3" / "a[1]*?{b}", "x")
    journal(made, whole(10))
    before = {name: frame(made, name) for name in TABLES}
    list(compact(made))
    for path in segments(made.journal):
        path.unlink()
    for name, table in before.items():
        assert_frame_equal(frame(made, name), table, check_exact=True)
    assert check(made) == []
    for suffix in FORMATS:
        assert export(made, made.path / f"out[1]{suffix}").rows == before["metrics"].height
        assert (made.path / f"out[1]{suffix}").stat().st_size > 0


@pytest.mark.parametrize("verb", [("export", "--out", "m.csv"), ("query", "SELECT step FROM metrics")])
def test_compacted_tables_that_are_damaged_are_one_sentence(
    run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.chdir(run.path)
    journal(run, whole(12))
    list(compact(run))
    for path in segments(run.journal):
        path.unlink()
    for path in (run.parquet / "reports").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert main([verb[0], "--run", str(run.path), *verb[1:]]) == 1
    said = capsys.readouterr().err
    assert "the compacted tables of segment 1 cannot be read; see: driftline compact" in said
    assert said.count("\n") == 1
    assert not Path("m.csv").exists()
    assert main(["compare", str(run.path), str(run.path)]) == 2
    said = capsys.readouterr().err
    assert "the compacted tables cannot be read; see: driftline compact" in said
    assert said.count("\n") == 1
