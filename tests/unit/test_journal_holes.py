"""A journal that is not as a hub left it: segments missing in the middle, odd names. Hubs start all the same."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import polars as pl
import pytest

from console.cli.main import main
from console.export.api import FORMATS, export
from console.replay.source import Recording
from console.status.link_health import banner
from driftline.frames import Metrics
from driftline.journal.holes import Hole, hole_text, holes, lacks, odd_names, odd_text
from driftline.journal.journal import Journal, JournalError, next_epoch, read, segments
from driftline.journal.records import MAX_NUMBER, Record, record_encoder
from driftline.keys import make_run_keys
from driftline.producer.probe import Probe
from driftline.rundir import RunDir, create
from tests.unit.hubs import PATIENCE, Hub
from tests.unit.runs import journal

FRAMES = 20
ODD = ("12345678901234567890.rlj", "1.rlj", "0000001.rlj", "00001²3.rlj", "1000000000.rlj", "a b.rlj")


def answer(*arguments: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(list(arguments))
    return out.getvalue()


def write(folder: Path, lives: int) -> RunDir:
    """A run with a journal of `lives` segments with ten records each."""
    run = RunDir(folder)
    for life in range(lives):
        log = Journal(run.journal)
        for seq in range(10 * life + 1, 10 * life + 11):
            log.append(record_encoder.encode(Record(seq, 0.0, "x", b"\x92\xa1m\x01")), seq, plain=True)
        log.close()
    return run


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_a_hub_starts_on_a_journal_with_a_hole_and_odd_names_and_they_are_reported(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    make_run_keys(hub.run)
    probe = Probe("trainer", hub.run)
    try:
        for life in range(4):
            hub.start()
            for step in range(FRAMES):
                probe.emit({"a": 1.0}, step=life * FRAMES + step)
            assert probe.flush(PATIENCE)
            hub.stop()
        for number in (2, 3):
            (hub.run.journal / f"{number:06d}.rlj").unlink()
        for name in ODD:
            (hub.run.journal / name).write_bytes(b"x")
        (hub.run.journal / "000005.rlj").mkdir()
        hub.start()
        probe.emit({"a": 1.0}, step=4 * FRAMES)
        assert probe.flush(PATIENCE)
        steps = [frame.step for s in read(hub.run.journal) if isinstance(frame := s.frame(), Metrics)]
        assert steps == [*range(FRAMES), *range(3 * FRAMES, 4 * FRAMES + 1)]
        missing = f"segments 000002 to 000003 are missing (frames {FRAMES + 1} to {3 * FRAMES})"
        assert missing in hub.log.read_text()
        for live in (True, False):
            if not live:
                hub.stop()
            line = answer("status", "--run", str(hub.run.path))
            assert f"JOURNAL HOLE: {missing}" in line
            assert "JOURNAL: not segments by their names: 0000001.rlj, 000005.rlj, " in line
            document = json.loads(answer("status", "--json", "--run", str(hub.run.path)))["journal"]
            assert document["missing"] == [{"first": 2, "last": 3, "start": FRAMES + 1, "end": 3 * FRAMES}]
            assert document["odd"] == sorted([*ODD, "000005.rlj"])
            checks = json.loads(answer("doctor", "--json", str(hub.run.path)))["checks"]
            found = [(one["verdict"], one["text"]) for one in checks if one["check"] == "journal"]
            assert [verdict for verdict, _ in found] == ["fail", "warn"]
            assert missing in found[0][1]
            assert "000005.rlj" in found[1][1]
    finally:
        hub.end()
        probe.close(0.1)


def test_a_whole_journal_has_no_holes(tmp_path: Path) -> None:
    run = write(tmp_path, 4)
    assert holes(run) == lacks(run) == []
    assert odd_names(run.journal) == []
    segments(run.journal)[0].unlink()
    assert holes(run) == [], "retention takes the oldest"


@pytest.mark.parametrize("index", [True, False], ids=["with its index", "without an index"])
def test_holes_by_segment_and_frame(tmp_path: Path, index: bool) -> None:
    run = write(tmp_path, 6)
    for number in (2, 4, 5):
        (run.journal / f"{number:06d}.rlj").unlink()
    if not index:
        for path in run.journal.glob("*.rli"):
            path.unlink()
    found = holes(run)
    assert found == [Hole(2, 2, 11, 20), Hole(4, 5, 31, 50)]
    assert hole_text(found[0]) == "segment 000002 is missing (frames 11 to 20)"
    assert lacks(run)[0] == "the journal has a hole: segment 000002 is missing (frames 11 to 20)"
    run.parquet.mkdir()
    run.compacted(2).write_text('{"segment": 2, "first": 11, "last": 20}')
    assert holes(run) == found[1:], "what Parquet has is not missing"
    run.compacted(4).write_text('{"segment": 4, "first": 31, "last": 40}')
    assert holes(run) == [Hole(5, 5, 41, 50)], "and what Parquet has not, is"


def test_numbers_without_frames_are_no_hole(tmp_path: Path) -> None:
    """As a hub leaves them that went on in a new segment: the old number is not there, its frames are."""
    run = write(tmp_path, 2)
    first, second = segments(run.journal)
    second.rename(run.journal / "000007.rlj")
    assert first.exists()
    assert holes(run) == []


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_is_no_segment(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, 1).journal
    (folder / name).write_bytes(b"x")
    (folder / name).with_suffix(".rlc").write_bytes(b"x")
    assert [path.name for path in segments(folder)] == ["000001.rlj"]
    assert next_epoch(folder) == 2
    assert odd_names(folder) == [name]
    Journal(folder).close()


def test_segments_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (1_000_000, 999_999, 1):
        (tmp_path / f"{number:06d}.rlj").touch()
    assert [int(path.stem) for path in segments(tmp_path)] == [1, 999_999, 1_000_000]


def test_after_the_last_number_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / f"{MAX_NUMBER}.rlj").touch()
    with pytest.raises(JournalError, match="no segment can follow number 999999999: move away"):
        Journal(tmp_path)


def test_many_odd_names_are_counted() -> None:
    assert odd_text([]) == ""
    assert odd_text(["1", "2", "3", "4", "5"]).endswith("1, 2, 3 and 2 more")


GAP = "the journal has a hole: segment 000002 is missing (frames 21 to 40)"


@pytest.fixture(scope="module")
def holed(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """An ended run of three segments with 20 steps each, the one in the middle of which was taken away."""
    run = create(tmp_path_factory.mktemp("runs"), "holed")
    for life in range(3):
        journal(run, (Metrics(step, step, 1.0, {"reward/mean": 0.5}) for step in range(20 * life, 20 * life + 20)))
    (run.journal / "000002.rlj").unlink()
    return run


@pytest.mark.parametrize(
    "words",
    [
        ("export", "--out", "t.parquet", "--run"), ("export", "--out", "t.csv", "--table", "events", "--run"),
        ("query", "SELECT count(*) AS n FROM metrics", "--run"), ("tail", "--run"), ("watch",), ("compare", "RUN"),
    ],
    ids=lambda words: " ".join(words[:3]),
)  # fmt: skip
def test_what_is_made_of_a_journal_with_a_hole_says_so(
    holed: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    main([*(str(holed.path) if word == "RUN" else word for word in words), str(holed.path)])
    said = capsys.readouterr().err.splitlines()
    own = f"{holed.id}: " if words[0] == "compare" else ""
    assert f"driftline: {own}{GAP}" in said


def test_an_exported_table_carries_the_hole(holed: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suffix in FORMATS:
        export(holed, tmp_path / f"t{suffix}")
    parquet = pl.read_parquet_metadata(tmp_path / "t.parquet")
    assert json.loads(parquet["driftline.missing"]) == [GAP]
    for suffix in FORMATS:
        if suffix != ".parquet":
            beside = json.loads((tmp_path / f"t{suffix}.meta.json").read_text())
            assert json.loads(beside["driftline.missing"]) == [GAP]
    assert json.loads(answer("compare", "--json", str(tmp_path / "t.parquet"), str(holed.path)))["missing"] == {
        holed.id: [GAP]
    }
    assert capsys.readouterr().err.count(GAP) == 1, "the table and the run say the same"


def test_a_console_over_such_a_recording_says_so_in_its_banner(holed: RunDir) -> None:
    recording = Recording(holed)
    recording.open()
    shown = banner(None, recording.link(), [], None)
    assert shown is not None
    assert (shown.word, shown.level) == ("JOURNAL HOLE", "warn")
    assert GAP in shown.text
