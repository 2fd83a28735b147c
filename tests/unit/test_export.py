"""Export against the frames that were journaled: every number comes back, in every format, or nothing is left."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import polars as pl
import pytest

from console import export as exporting
from console.cli.main import main
from console.export import FORMATS, ExportError, export, save
from console.export.schema import TABLES
from driftline.catalog.metrics import METRICS
from driftline.frames import (
    EngineFix,
    EngineState,
    Event,
    FixState,
    Frame,
    Metrics,
    RunState,
    Span,
    encode,
)
from driftline.journal.journal import Journal, Record, record_encoder
from driftline.rundir import RunDir, create

NAMES = [metric.name for metric in METRICS]


def journal(run: RunDir, frames: list[Frame], producer: str = "trainer") -> None:
    """Write frames as a hub would, after those that are there."""
    log = Journal(run.journal)
    for frame in frames:
        seq = log.head + 1
        record = Record(seq, 1000.0 + seq, producer, msgspec.Raw(encode(frame)), 1, seq)
        log.append(record_encoder.encode(record), seq, True)
    log.close()


def metrics(step: int, version: int = 0, **values: float) -> Metrics:
    return Metrics(step, version, 1_790_000_000.25 + step, {name.replace("__", "/"): v for name, v in values.items()})


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create(tmp_path / "runs", "test")


def load(path: Path) -> pl.DataFrame:
    match path.suffix:
        case ".parquet":
            return pl.read_parquet(path)
        case ".csv":
            return pl.read_csv(path, try_parse_dates=True)
        case ".ndjson":
            return pl.read_ndjson(path)
        case _:
            return pl.read_ipc(path)


def files_of(out: Path) -> set[str]:
    """The names that an export may leave: CSV and the like have their metadata beside them."""
    return {out.name} if out.suffix == ".parquet" else {out.name, f"{out.name}.meta.json"}


def test_every_emitted_number_comes_back(run: RunDir, tmp_path: Path) -> None:
    emitted = [metrics(s, s // 2, reward__mean=0.1 * s, policy__entropy=math.nan, mine=float(s)) for s in range(1, 40)]
    journal(run, list(emitted))

    report = export(run, tmp_path / "m.parquet")

    frame = pl.read_parquet(tmp_path / "m.parquet")
    assert frame.columns == ["step", "time", "version", *NAMES, "mine"]
    assert (report.rows, report.columns, report.damaged) == (frame.height, frame.width, 0)
    assert frame.shape == (39, 3 + len(NAMES) + 1)
    for row, sent in zip(frame.iter_rows(named=True), emitted, strict=True):
        assert (row["step"], row["version"]) == (sent.step, sent.version)
        assert row["time"].timestamp() == sent.time
        assert row["reward/mean"] == sent.values["reward/mean"]
        assert math.isnan(row["policy/entropy"])
        assert row["mine"] == sent.values["mine"]
        assert row["sync/total_s"] is None


def test_aliases_land_under_the_canonical_name(run: RunDir, tmp_path: Path) -> None:
    journal(run, [metrics(1, kl_new_old=0.5)])
    export(run, tmp_path / "m.parquet")
    frame = pl.read_parquet(tmp_path / "m.parquet")
    assert frame["policy/kl_new_old"].to_list() == [0.5]
    assert "kl_new_old" not in frame.columns


def test_parts_of_a_step_are_one_row(run: RunDir, tmp_path: Path) -> None:
    journal(run, [metrics(1, reward__mean=0.1), metrics(1, policy__entropy=2.0), metrics(2, reward__mean=0.2)])
    journal(run, [metrics(1, judge=0.9)], producer="judge")
    export(run, tmp_path / "m.parquet")
    frame = pl.read_parquet(tmp_path / "m.parquet")
    assert frame["step"].to_list() == [1, 2]
    assert frame.row(0, named=True)["reward/mean"] == 0.1
    assert frame.row(0, named=True)["policy/entropy"] == 2.0
    assert frame.row(0, named=True)["judge"] == 0.9


def test_a_resumed_run_overwrites_whole_rows(run: RunDir, tmp_path: Path) -> None:
    journal(run, [metrics(s, reward__mean=0.1, policy__entropy=9.0) for s in (1, 2, 3)])
    journal(run, [metrics(2, 7, reward__mean=0.5), metrics(3, 8, reward__mean=0.6)])
    export(run, tmp_path / "m.parquet")
    frame = pl.read_parquet(tmp_path / "m.parquet")
    assert frame["step"].to_list() == [1, 2, 3]
    assert frame["reward/mean"].to_list() == [0.1, 0.5, 0.6]
    assert frame["version"].to_list() == [0, 7, 8]
    assert frame["policy/entropy"].to_list() == [9.0, None, None], "a row mixes two lives of the run"


def test_a_metric_named_like_a_key_does_not_take_its_place(run: RunDir, tmp_path: Path) -> None:
    journal(run, [Metrics(5, 3, 1.0, {"step": 99.0, "version": 98.0, "time": 97.0})])
    export(run, tmp_path / "m.parquet")
    frame = pl.read_parquet(tmp_path / "m.parquet")
    assert (frame["step"].to_list(), frame["version"].to_list()) == ([5], [3])
    assert frame["time"][0].timestamp() == 1.0


def test_a_number_that_comes_late_is_added_to_its_row(run: RunDir, tmp_path: Path) -> None:
    journal(run, [metrics(1, reward__mean=0.1), metrics(2, reward__mean=0.2), metrics(1, judge=0.9)])
    export(run, tmp_path / "m.parquet")
    frame = pl.read_parquet(tmp_path / "m.parquet")
    assert frame["reward/mean"].to_list() == [0.1, 0.2]
    assert frame["judge"].to_list() == [0.9, None]


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_hold_the_same_numbers(run: RunDir, tmp_path: Path, suffix: str) -> None:
    journal(run, [metrics(s, s, reward__mean=s / 7) for s in range(1, 6)])
    out = tmp_path / f"m{suffix}"
    export(run, out)
    frame = load(out)
    assert frame["step"].to_list() == [1, 2, 3, 4, 5]
    assert frame["reward/mean"].to_list() == [s / 7 for s in range(1, 6)]
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == files_of(out), "a temporary file is left"


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_synthetic_run_is_labelled_in_every_format(run: RunDir, tmp_path: Path, suffix: str) -> None:
    journal(run, [RunState("x", "running", 1, 2, 0, 0.0, synthetic=True), metrics(1, reward__mean=0.5)])
    out = tmp_path / f"m{suffix}"
    export(run, out)
    assert load(out)["synthetic"].to_list() == [True]


def test_parquet_says_where_it_comes_from(run: RunDir, tmp_path: Path) -> None:
    run.config.write_text("[run]\nsteps = 3\n")
    journal(run, [metrics(1, reward__mean=0.5)])
    export(run, tmp_path / "m.parquet")
    metadata = pl.read_parquet_metadata(tmp_path / "m.parquet")
    assert metadata["driftline.run"] == run.id
    assert metadata["driftline.table"] == "metrics"
    assert metadata["driftline.synthetic"] == "false"
    assert len(metadata["driftline.config_digest"]) == 12


def test_an_empty_run_is_an_empty_table(run: RunDir, tmp_path: Path) -> None:
    assert export(run, tmp_path / "m.parquet").rows == 0
    frame = pl.read_parquet(tmp_path / "m.parquet")
    assert frame.columns == ["step", "time", "version", *NAMES]
    assert frame.schema["reward/mean"] == pl.Float64


@pytest.mark.parametrize("table", ["engines", "events", "fixes", "spans"])
def test_other_tables(run: RunDir, tmp_path: Path, table: str) -> None:
    engines = (EngineFix("engine-0", "on", "live", 3, 2), EngineFix("engine-1", "", "live"))
    journal(
        run,
        [
            Event(1.0, "warn", "sync.slow", "slow", 4, {"seconds": math.inf, "ok": False}),
            Span("s1", "engine-0", "load", 2.0, 0.25, 3, 4, 4, 1_000),
            EngineState("engine-0", "running", 4, 3.0, running=7),
            FixState("prefix-cache-off", "on", 1, "operator local", 4.0, "live", engines),
        ],
    )
    export(run, tmp_path / "t.parquet", table)
    frame = pl.read_parquet(tmp_path / "t.parquet")
    assert frame.columns == list(TABLES[table].columns)
    first = frame.row(0, named=True)
    match table:
        case "events":
            assert (first["kind"], first["level"], first["step"]) == ("sync.slow", "warn", 4)
            assert json.loads(first["data"]) == {"seconds": "Infinity", "ok": False}
        case "spans":
            assert (first["engine"], first["phase"], first["seconds"]) == ("engine-0", "load", 0.25)
            assert first["bytes"] == 1_000
        case "engines":
            assert (first["engine"], first["running"], first["time"].timestamp()) == ("engine-0", 7, 3.0)
        case "fixes":
            assert frame["engine"].to_list() == ["engine-0", "engine-1"]
            assert frame["effective"].to_list() == ["on", ""]
            assert frame["generation"].to_list() == [1, 1]


@pytest.mark.parametrize(
    ("out", "table", "said"),
    [
        ("m.xlsx", "metrics", "unknown extension '.xlsx'; allowed: .parquet, .csv, .ndjson, .arrow"),
        ("nowhere/m.parquet", "metrics", "no such directory"),
        ("folder.parquet", "metrics", "is a directory"),
        ("m.parquet", "losses", "unknown table 'losses'; allowed: metrics,"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    run: RunDir, tmp_path: Path, out: str, table: str, said: str
) -> None:
    (tmp_path / "folder.parquet").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ExportError) as caught:
        export(run, tmp_path / out, table)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


LIMITED = """
import resource, sys
from pathlib import Path
from console.export import ExportError, export
from driftline.rundir import RunDir
import polars
resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
try:
    export(RunDir(Path(sys.argv[1])), Path(sys.argv[2]))
except ExportError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.slow
def test_a_disk_that_takes_no_more_keeps_the_old_file(run: RunDir, tmp_path: Path, suffix: str) -> None:
    # A limit on the size of files stands for a full disk: the write fails half way in the same place.
    journal(run, [metrics(s, s, reward__mean=s / 7, policy__entropy=s / 3) for s in range(1, 200)])
    out = tmp_path / f"m{suffix}"
    out.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(run.path), str(out)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"POLARS_MAX_THREADS": "1"},
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith(f"{out}: cannot be written: ")
    assert done.stdout.count("\n") == 1
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]


@pytest.mark.parametrize("moment", ["nan", "inf", "-inf", "1e300", "253402300800", "999999999999999d", "2026-13-01"])
def test_what_is_no_time_is_one_sentence(
    run: RunDir, tmp_path: Path, moment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    journal(run, [metrics(1, reward__mean=0.5)])
    out = tmp_path / "m.parquet"
    for option in ("--since", "--until"):
        assert main(["export", "--run", str(run.path), "--out", str(out), f"{option}={moment}"]) == 2
        said = f"driftline: '{moment}' is not a time; write 2026-03-01T12:30, Unix seconds, or 15m for a time ago\n"
        assert capsys.readouterr().err == said
    for since in (math.nan, math.inf):
        with pytest.raises(ExportError, match="is not a time"):
            export(run, out, since=since)
    assert not out.exists()


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_holds_what_is_no_number(run: RunDir, tmp_path: Path, suffix: str) -> None:
    """Read by others than Polars where there are any: a NaN must not look like a step without a number."""
    values = [0.5, math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, None]
    journal(run, [metrics(step, **({} if value is None else {'a"b': value})) for step, value in enumerate(values)])
    out, again = tmp_path / f"m{suffix}", tmp_path / f"again{suffix}"
    export(run, out)
    save(exporting.frame(run), again, {})
    for path in (out, again):
        match suffix:
            case ".csv":
                with path.open(newline="") as file:
                    found = [float(row['a"b']) if row['a"b'] else None for row in csv.DictReader(file)]
            case ".ndjson":
                texts = [json.loads(line)['a"b'] for line in path.read_text().splitlines()]
                assert texts[1:4] == ["NaN", "Infinity", "-Infinity"]
                found = [None if text is None else float(text) for text in texts]
            case _:
                found = load(path)['a"b'].to_list()
        assert list(map(repr, found)) == list(map(repr, values))
