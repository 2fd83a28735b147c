"""Tables of a run: equal from the journal, the hub and compacted Parquet; what is asked of them; bounded memory."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from console.cli import arguments
from console.cli.main import main
from console.export import FORMATS, ExportError, build, compacted, export, frame, metric_rows, query, scan, through_hub
from console.export.polars_columns import stacked
from console.export.schema import TABLES
from console.export.source import Directory
from console.recorded.blocks import Block, decoder, encode, segment
from console.recorded.compaction import wide
from console.recorded.compaction.compact import compact
from driftline.catalog.metrics import resolve
from driftline.client import Client, attach
from driftline.frames import MAX_INT, MAX_TIME, Metrics, RunState, Tokens, floats, ints
from driftline.journal import journal as journal_module
from driftline.journal.journal import Damage, read, segments
from driftline.producer.probe import Probe
from driftline.rundir import RunDir, create
from tests.unit.hubs import Hub, until
from tests.unit.runs import NOW, journal, tokens, whole

STEPS = 30


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run of every kind of frame, over several segments."""
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 9_000)
    made = create(tmp_path / "runs", "tables")
    journal(made, whole(STEPS))
    assert len(segments(made.journal)) > 3
    return made


def test_live_journal_and_parquet_agree_row_by_row(hub: Hub, tmp_path: Path) -> None:
    sent = [one for one in whole(STEPS) if one.__struct_config__.tag not in ("c", "a")]
    with Probe("trainer", hub.run) as probe:
        for one in sent:
            probe.send(one)
        client = Client(*attach(hub.run, "operator"))
        try:
            client.command("mark", {"text": "here"}, timeout=60)
            until(lambda: client.snapshot().head > len(sent), "every frame and the command to be journaled")
            live = {name: frame(through_hub(client, hub.run.id), name) for name in TABLES}
            growing = {name: frame(hub.run, name) for name in TABLES}
        finally:
            client.close()
    hub.stop()
    assert hub.run.parquet.exists() is False
    list(compact(hub.run))
    bare = create(tmp_path / "copy", "parquet")
    shutil.copytree(hub.run.parquet, bare.parquet)
    for name, table in live.items():
        for other in (growing[name], frame(hub.run, name), frame(bare, name)):
            assert_frame_equal(table, other, check_exact=True)
        assert table.height > 0, name


@pytest.mark.parametrize("shapes", [0, 1, wide.MAX_SHAPES])
def test_a_run_half_of_which_is_only_parquet(run: RunDir, monkeypatch: pytest.MonkeyPatch, shapes: int) -> None:
    monkeypatch.setattr(wide, "MAX_SHAPES", shapes)
    monkeypatch.setattr(wide, "_ROWS", 3)
    monkeypatch.setattr(compacted, "REPORT_ROWS", 5)
    before = {name: frame(run, name) for name in TABLES}
    list(compact(run))
    for path in segments(run.journal)[:2]:
        path.unlink()
    for name, table in before.items():
        assert_frame_equal(table, frame(run, name), check_exact=True)


def test_numbers_cut_out_of_bytes_are_those_of_the_decoder(run: RunDir) -> None:
    frames = [
        Metrics(step, version, moment, {"reward": step / 3, "name" * 9: -step / 11, "step": 1.0}, labels)
        for step in (*range(1, 200), 255, 256, 65_535, 65_536, 2**31, MAX_INT, MAX_INT + 1, 2**64 - 1, -1, -2, -200)
        for version, moment in (
            (0, NOW),
            (300, NOW + step / 1e19),
            (-2, NOW),
            (MAX_INT, 1e30),
            (1, math.nan),
            (1, -0.1),
        )
        for labels in ({}, {"reward": "x"})
    ]
    extra = create(run.path.parent, "cut")
    journal(extra, frames)
    cut = metric_rows.Reports()
    for path in segments(extra.journal):
        for block in segment(path, Damage()):
            cut.add(block)
    one_by_one = metric_rows.Reports()
    for stamped in read(extra.journal):
        one_by_one.add(Block.from_bodies([encode(stamped)]))
    (table,) = cut.frames()
    assert_frame_equal(table, next(one_by_one.frames()), check_exact=True, check_column_order=False)
    # A journal of before the ranges of `driftline.frames` may hold what lies outside of them.
    fine = [one for one in frames if -1 <= one.step <= MAX_INT and one.version >= 0 and 0 <= one.time <= MAX_TIME]
    assert len(fine) == 2 * 2 * 206
    assert table["step"].to_list() == [one.step for one in fine]
    assert table["name" * 9].to_list() == [one.values["name" * 9] for one in fine]
    assert "step" in table.columns
    assert table.columns.count("step") == 1


def test_a_part_stays_as_it_was_while_the_next_are_made(run: RunDir) -> None:
    """Polars takes arrays over without a copy: what is written to them later would show in the parts before."""
    sent = [Metrics(step, step, NOW + step, {"reward": float(step)}) for step in range(5_000)]
    long = create(run.path.parent, "long")
    journal(long, sent)
    blocks = [block for path in segments(long.journal) for block in segment(path, Damage())]
    parts = list(build.batches("reports", blocks, 20))
    assert len(parts) > 20
    joined = pl.concat(parts)
    assert joined["step"].to_list() == [one.step for one in sent]
    assert joined["reward/mean"].to_list() == [one.values["reward"] for one in sent]
    assert joined["time"].dt.epoch("us").to_list() == [round(one.time * 1e6) for one in sent]


def test_blocks_hold_what_the_careful_reader_finds_whatever_is_damaged(run: RunDir) -> None:
    path = segments(run.journal)[1]
    whole_bytes = path.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(60):
        damaged = bytearray(whole_bytes)
        for place in rng.integers(64, len(damaged), size=int(rng.integers(1, 4))):
            damaged[place] ^= 1 << int(rng.integers(8))
        cut = int(rng.integers(len(damaged) // 2, len(damaged)))
        path.write_bytes(bytes(damaged[:cut]))
        damage, expected = Damage(), Damage()
        found = [body for block in segment(path, damage) for body in block]
        assert [encode(s) for s in journal_module.read_segment(path, 1, expected)] == [
            encode(decoder.decode(body)) for body in found
        ]
        assert (damage.bytes, damage.torn) == (expected.bytes, expected.torn)


def test_tags_are_read_without_decoding(run: RunDir) -> None:
    for path in segments(run.journal):
        for block in segment(path, Damage()):
            kinds = [decoder.decode(body).frame().__struct_config__.tag for body in block]
            assert [chr(tag) for tag in block.tags] == kinds
            assert all(
                body.startswith(block.buffer[at:end])
                for body, at, end in zip(block, block.starts, block.ends, strict=True)
            )


def test_tokens_are_those_that_were_sent(run: RunDir) -> None:
    table = frame(run, "tokens")
    sent = [one for one in whole(STEPS) if isinstance(one, Tokens)]
    assert table.height == sum(one.n for one in sent)
    np.testing.assert_array_equal(table["id"], np.concatenate([ints(one.ids) for one in sent]))
    np.testing.assert_array_equal(table["rollout"], np.concatenate([floats(one.rollout) for one in sent]))
    np.testing.assert_array_equal(table["trainer"], np.concatenate([floats(one.trainer) for one in sent]))
    np.testing.assert_array_equal(table["position"], np.concatenate([ints(one.position) for one in sent]))
    second = table.filter(pl.col("step") == 2)
    assert second["engine"].to_list()[:4] == ["engine-0", "engine-1", None, "engine-0"]
    assert second["piece"].to_list() == [f"t{i}" for i in range(15)]
    assert table.filter(pl.col("step") == 1)["piece"].null_count() == 15


def test_sequences_add_their_tokens_up(run: RunDir) -> None:
    table = frame(run, "sequences")
    sent = tokens(4)
    rows = table.filter(pl.col("step") == 4)
    assert rows["sequence"].to_list() == [0, 1, 2]
    assert rows["reward"].to_list() == [0.0, 0.5, None]
    assert rows["tokens"].to_list() == [5, 5, 5]
    own, rollout, trainer = ints(sent.seq), floats(sent.rollout).astype(float), floats(sent.trainer).astype(float)
    for at, row in enumerate(rows.iter_rows(named=True)):
        mine = own == at
        assert row["text"] == "".join(piece for piece, here in zip(sent.pieces, mine, strict=True) if here)
        assert row["rollout_sum"] == pytest.approx(rollout[mine].sum())
        assert row["abs_diff_mean"] == pytest.approx(np.abs(trainer - rollout)[mine].mean())
        assert row["abs_diff_max"] == pytest.approx(np.abs(trainer - rollout)[mine].max())
        assert (row["version_min"], row["version_max"]) == (4, 4)


def test_syncs_have_their_phases_side_by_side(run: RunDir) -> None:
    table = frame(run, "syncs")
    assert table.height == 2 * STEPS
    first = table.row(0, named=True)
    assert (first["sync"], first["engine"], first["pause_s"], first["verify_s"]) == ("s1", "engine-0", 0.125, 0.125)
    assert first["resume_s"] is None
    assert (first["verified"], first["cache"], first["straddling"], first["ok"]) == ("digest", "kept", 7, True)


def test_commands_are_followed_to_their_end(run: RunDir) -> None:
    done, waiting = frame(run, "commands").to_dicts()
    assert (done["verb"], done["state"], done["detail"]) == ("sync", "applied", "done")
    assert done["issuer"] == "operator local"
    assert json.loads(done["args"]) == {"why": "now"}
    assert json.loads(done["data"]) == {"seconds": 1.5}
    assert done["settled"].timestamp() == NOW + 3
    assert done["seconds"] == (done["settled"] - done["time"]).total_seconds()
    assert (waiting["verb"], waiting["state"], waiting["settled"]) == ("pause", "given", None)
    assert waiting["deadline"].timestamp() == NOW + 30


def test_effects_have_a_row_a_measure(run: RunDir) -> None:
    (row,) = frame(run, "effects").to_dicts()
    assert (row["changes"], row["metric"]) == ("fp32-lm-head: off -> on", "mismatch/abs_diff_mean")
    assert (row["before"], row["after"], row["tokens_after"], row["done"]) == (0.2, 0.01, 600, True)


def test_steps_times_and_columns(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "m.parquet"
    report = export(run, out, columns=("step", "kl_new_old"), steps=(5, 8))
    assert (report.rows, report.columns) == (4, 2)
    assert pl.read_parquet(out).to_dict(as_series=False) == {
        "step": [5, 6, 7, 8], "policy/kl_new_old": [5 / 3, 2.0, 7 / 3, 8 / 3],
    }  # fmt: skip
    export(run, out, "tokens", steps=(None, 2))
    assert pl.read_parquet(out)["step"].unique().sort().to_list() == [1, 2]
    export(run, out, since=NOW + 10, until=NOW + 12)
    assert pl.read_parquet(out)["step"].to_list() == [10, 11, 12]
    export(run, out, "syncs", since=NOW + STEPS)
    assert pl.read_parquet(out)["sync"].to_list() == [f"s{STEPS}"] * 2


def test_long_metrics_are_the_wide_ones(run: RunDir, tmp_path: Path) -> None:
    export(run, tmp_path / "long.parquet", long=True)
    rows = pl.read_parquet(tmp_path / "long.parquet")
    assert rows.columns == ["step", "time", "version", "metric", "value"]
    assert rows["step"].is_sorted()
    wide = frame(run, "metrics")
    values = wide.drop("step", "time", "version")
    assert rows.height == sum(values.height - column.null_count() for column in values.iter_columns())
    again = rows.pivot("metric", index="step", values="value")
    for name in again.columns[1:]:
        same = again[name].eq_missing(wide.filter(pl.col("step").is_in(again["step"].implode()))[name])
        assert (same | again[name].is_nan()).all()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_says_where_it_comes_from_and_in_which_units(run: RunDir, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"syncs{suffix}"
    export(run, out, "syncs", since=NOW)
    beside = tmp_path / f"syncs{suffix}.meta.json"
    metadata = pl.read_parquet_metadata(out) if suffix == ".parquet" else json.loads(beside.read_text())
    assert metadata["driftline.run"] == run.id
    assert metadata["driftline.config_digest"] == "abc123"
    assert metadata["driftline.tables"] == "1"
    assert json.loads(metadata["driftline.units"])["pause_s"] == "s"
    assert json.loads(metadata["driftline.range"]) == {"steps": [None, None], "since": NOW, "until": None}


def test_a_metric_that_comes_late_is_a_column_all_the_same(tmp_path: Path) -> None:
    made = create(tmp_path, "late")
    late = Metrics(20_000, 0, NOW, {"reward": 1.0, "new": 2.0})
    journal(made, [*(Metrics(step, 0, NOW, {"reward": 1.0}) for step in range(20_000)), late])
    assert export(made, tmp_path / "m.parquet").rows == 20_001
    assert pl.read_parquet(tmp_path / "m.parquet")["new"].drop_nulls().to_list() == [2.0]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"columns": ("nope",)}, "the table metrics has no column 'nope'; it has: step, time"),
        ({"table": "fixes", "steps": (1, 2)}, "the table fixes has no steps; take a time range"),
        ({"table": "tokens", "long": True}, "only the table metrics has a long form"),
    ],
)
def test_what_a_table_has_not_is_one_sentence(run: RunDir, tmp_path: Path, asked: dict[str, object], said: str) -> None:
    with pytest.raises(ExportError) as caught:
        export(run, tmp_path / "m.parquet", **asked)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_queries_over_several_tables(run: RunDir) -> None:
    answer = query(
        run,
        'SELECT m.step, m."policy/kl_new_old" AS kl, count(*) AS n, avg(abs(t.trainer - t.rollout)) AS mismatch '
        "FROM metrics m JOIN tokens t ON m.step = t.step WHERE m.step <= 3 GROUP BY m.step, kl ORDER BY m.step",
    )
    assert answer["n"].to_list() == [15, 15, 15]
    assert answer["kl"].to_list() == [1 / 3, 2 / 3, 1.0]
    rows = frame(run, "tokens").filter(pl.col("step") == 2)
    assert answer["mismatch"][1] == pytest.approx((rows["trainer"] - rows["rollout"]).abs().mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT nope FROM tokens", 'unable to find column "nope"; valid columns: ["seq"'),
        ("SELECT * FROM nope", "the query names no table; tables: metrics, tokens"),
        ("SELECT * FROM tokens JOIN nope ON 1 = 1", "no table 'nope'; tables: metrics, tokens"),
        ("SELECT (FROM metrics", "not understood: sql parser error"),
        ("DROP TABLE metrics", "a query begins with SELECT or WITH"),
        ("", "a query begins with SELECT or WITH"),
    ],
)
def test_a_query_that_fails_is_one_sentence(run: RunDir, sql: str, said: str) -> None:
    with pytest.raises(ExportError) as caught:
        query(run, sql)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_lazy_table_reads_what_is_asked_and_can_be_collected_again(run: RunDir) -> None:
    lazy = scan(run, "tokens").filter(pl.col("step") == 3).select("step", "rollout")
    assert lazy.collect().shape == (15, 2)
    assert_frame_equal(lazy.collect(engine="streaming"), lazy.collect())
    assert scan(run, "tokens").head(7).collect().height == 7


def test_verbs(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--run", str(run.path)]
    assert main(["export", *where, "--out", str(tmp_path / "t.csv"), "--table", "tokens", "--steps", "2"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 't.csv'}: 15 rows, 12 columns\n"
    assert main(["query", *where, "SELECT step, engine FROM tokens WHERE step = 1 LIMIT 2"]) == 0
    assert capsys.readouterr().out == "step  engine\n   1  engine-0\n   1  engine-1\n"
    assert main(["query", *where, "--format", "json", "SELECT min(time) AS t FROM tokens"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"t": "2026-09-21T14:13:21.250000+00:00"}]
    assert main(["query", *where, "--format", "csv", "SELECT count(*) AS n FROM syncs"]) == 0
    assert capsys.readouterr().out == f"n\n{2 * STEPS}\n"
    assert main(["query", *where, "--out", str(tmp_path / "q.parquet"), "SELECT step FROM metrics"]) == 0
    assert pl.read_parquet(tmp_path / "q.parquet").height == STEPS + 1
    capsys.readouterr()
    assert main(["export", *where, "--out", str(tmp_path / "x.csv"), "--steps", "9:2"]) == 2
    assert capsys.readouterr().err == "driftline: the range of steps 9:2 ends before it begins\n"
    assert main(["query", *where, "SELECT nope FROM events"]) == 1
    assert main(["query", *where, "--format", "parquet", "SELECT step FROM metrics"]) == 2
    assert not (tmp_path / "x.csv").exists()


def test_the_command_line_knows_every_table() -> None:
    assert tuple(TABLES) == arguments.TABLES


def test_a_synthetic_run_says_so_in_every_choice(tmp_path: Path) -> None:
    made = create(tmp_path, "synthetic")
    state = RunState("x", "running", 1, 2, 0, 0.0, synthetic=True)
    journal(made, [state, tokens(1), *(Metrics(step, 0, NOW, {"a": 1.0}) for step in range(3))])
    for table, asked in (("tokens", {"columns": ("id",)}), ("metrics", {"long": True}), ("syncs", {})):
        export(made, tmp_path / "t.parquet", table, **asked)  # type: ignore[arg-type]
        found = pl.read_parquet(tmp_path / "t.parquet")
        assert found.schema["synthetic"] == pl.Boolean
        assert found["synthetic"].all()


PEAK = """
import resource, sys
from pathlib import Path
import polars
from console.export import export
from driftline.rundir import RunDir
export(RunDir(Path(sys.argv[1])), Path(sys.argv[3]), "tokens", steps=(1, 1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = export(RunDir(Path(sys.argv[2])), Path(sys.argv[3]), "tokens")
print(report.rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
def test_tokens_are_exported_in_bounded_memory(tmp_path: Path) -> None:
    # Four times the tokens may not cost noticeably more than once.
    grown = []
    for name, count in (("small", 60), ("large", 240)):
        made = create(tmp_path, name)
        journal(made, (tokens(step, 16, 1024, pieces=False) for step in range(1, count + 1)))
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(made.path), str(made.path), str(tmp_path / "t.parquet")],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"POLARS_MAX_THREADS": "2"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        rows, growth = map(int, done.stdout.split())
        assert rows == count * 16 * 1024
        grown.append((rows, growth))
    row_bytes = 3 * 8 + 8 + 6 * 4 + 16
    (_, small), (rows, large) = grown
    assert large - small < 0.25 * (rows - grown[0][0]) * row_bytes, grown


FULL = """
import resource, sys
from pathlib import Path
from console.export import ExportError, export
from driftline.rundir import RunDir
import polars
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    export(RunDir(Path(sys.argv[1])), Path(sys.argv[2]), "tokens")
except ExportError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.slow
def test_a_disk_that_is_full_amid_a_stream_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    made = create(tmp_path / "runs", "full")
    journal(made, (tokens(step, 16, 1024, pieces=False) for step in range(1, 20)))
    out = tmp_path / f"t{suffix}"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(made.path), str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith(f"{out}: cannot be written: ")
    assert done.stdout.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_directories_are_read_again_each_time(run: RunDir) -> None:
    source = Directory(run)
    assert [part.height for part in source.parts("events")] == [1]
    assert [part.height for part in source.parts("events")] == [1]


ASKED: list[tuple[str, list[str] | None, str | None]] = [
    ("metrics", ["step", "reward/mean"], None),
    ("metrics", ["mine"], "step >= 7 AND step < 12"),
    ("metrics", ["policy/entropy", "sync/total_s"], "step % 3 = 0 OR version = 2"),
    ("metrics", ["step"], "mine < 0 AND step > 3"),
    ("metrics", None, "step > 1000000"),
    ("tokens", ["engine", "rollout"], None),
    ("tokens", ["piece"], "step >= 5 AND step <= 6"),
    ("tokens", ["id", "time"], "seq > 40 AND engine = 'engine-1'"),
    ("tokens", None, "EXTRACT(second FROM time) > 30"),
    ("sequences", ["text", "reward"], "step = 4"),
    ("sequences", ["rollout_sum"], "version > 3"),
    ("spans", ["phase"], "step = 2"),
]


@pytest.mark.parametrize(("table", "columns", "where"), ASKED)
def test_what_is_pushed_down_changes_no_answer(
    run: RunDir, table: str, columns: list[str] | None, where: str | None
) -> None:
    """The same query over the whole table, from the journal, from half of it and from Parquet."""
    whole_table = frame(run, table)
    names = ", ".join('"' + name + '"' for name in columns) if columns else "*"
    sql = f"SELECT {names} FROM {table}" + (f" WHERE {where}" if where else "")
    expected = pl.SQLContext({table: whole_table.lazy()}).execute(sql).collect()
    count = f"SELECT count(*) AS n FROM ({sql})"
    list(compact(run))
    for gone in (0, 2, len(segments(run.journal)) - 2):
        for path in segments(run.journal)[:gone]:
            path.unlink()
        assert_frame_equal(query(run, sql), expected, check_exact=True)
        assert query(run, count).item() == expected.height
        assert_frame_equal(query(run, f"{sql} LIMIT 3"), expected.head(3), check_exact=True)
        lazily = scan(run, table)
        lazily = lazily.filter(pl.sql_expr(where)) if where else lazily
        assert_frame_equal((lazily.select(columns) if columns else lazily).collect(), expected, check_exact=True)


@pytest.mark.parametrize("late", [Metrics(11, 5, NOW, {"late": 1.0}), Metrics(3, 5, NOW, {"reward": 9.0})])
def test_a_query_over_steps_that_begin_otherwise_than_they_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: Metrics
) -> None:
    """A name that comes late, and a run that was resumed: both are known only when all was read."""
    monkeypatch.setattr(build, "REPORT_ROWS", 4)
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 300)
    run = create(tmp_path, "late")
    journal(run, [Metrics(step, step, NOW + step, {"reward": float(step)}) for step in range(10)] + [late])
    expected = frame(run, "metrics")
    assert_frame_equal(query(run, "SELECT * FROM metrics"), expected)
    assert_frame_equal(scan(run, "metrics").collect(), expected)
    assert_frame_equal(query(run, "SELECT * FROM metrics LIMIT 2"), expected.head(2))
    for name in ("reward/mean", *late.values):
        name = resolve(name)
        sql = f'SELECT step, "{name}" FROM metrics WHERE step > 2'
        assert_frame_equal(query(run, sql), expected.filter(pl.col("step") > 2).select("step", name))
    with pytest.raises(ExportError, match="nowhere"):
        query(run, "SELECT nowhere FROM metrics")


def test_a_segment_that_is_deleted_while_a_table_is_read_is_read_from_its_parquet(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "REPORT_ROWS", 2)
    monkeypatch.setattr(build, "BATCH_ROWS", 2)
    before = {name: stacked(list(Directory(run).parts(name))) for name in ("reports", "tokens", "spans")}
    reading = {name: Directory(run).parts(name) for name in before}
    begun = {name: next(parts) for name, parts in reading.items()}
    list(compact(run))
    for path in segments(run.journal):
        path.unlink()
    for name, table in before.items():
        assert_frame_equal(stacked([begun[name], *reading[name]]), table, check_exact=True)
