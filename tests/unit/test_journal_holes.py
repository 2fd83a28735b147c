"""A journal that is not as a hub left it: segments missing in the middle, odd names. Hubs start all the same."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

from console.cli.main import main
from driftline.frames import Metrics
from driftline.journal.holes import Hole, hole_text, holes, odd_names, odd_text
from driftline.journal.journal import Journal, JournalError, next_epoch, read, segments
from driftline.journal.records import MAX_NUMBER, Record, record_encoder
from driftline.keys import make_run_keys
from driftline.producer.probe import Probe
from tests.unit.hubs import PATIENCE, Hub

FRAMES = 20
ODD = ("12345678901234567890.rlj", "1.rlj", "0000001.rlj", "00001²3.rlj", "1000000000.rlj", "a b.rlj")


def answer(*arguments: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(list(arguments))
    return out.getvalue()


def write(folder: Path, lives: int) -> None:
    """A journal of `lives` segments with ten records each."""
    for life in range(lives):
        journal = Journal(folder)
        for seq in range(10 * life + 1, 10 * life + 11):
            journal.append(record_encoder.encode(Record(seq, 0.0, "x", b"\x92\xa1m\x01")), seq, plain=True)
        journal.close()


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
    write(tmp_path, 4)
    assert holes(tmp_path, lambda _: False) == []
    assert odd_names(tmp_path) == []
    segments(tmp_path)[0].unlink()
    assert holes(tmp_path, lambda _: False) == [], "retention takes the oldest"


@pytest.mark.parametrize("index", [True, False], ids=["with its index", "without an index"])
def test_holes_by_segment_and_frame(tmp_path: Path, index: bool) -> None:
    write(tmp_path, 6)
    for number in (2, 4, 5):
        (tmp_path / f"{number:06d}.rlj").unlink()
    if not index:
        for path in tmp_path.glob("*.rli"):
            path.unlink()
    found = holes(tmp_path, lambda _: False)
    assert found == [Hole(2, 2, 11, 20), Hole(4, 5, 31, 50)]
    assert hole_text(found[0]) == "segment 000002 is missing (frames 11 to 20)"
    assert holes(tmp_path, lambda number: number == 2) == found[1:], "what Parquet has is not missing"


def test_numbers_without_frames_are_no_hole(tmp_path: Path) -> None:
    """As a hub leaves them that went on in a new segment: the old number is not there, its frames are."""
    write(tmp_path, 2)
    first, second = segments(tmp_path)
    second.rename(tmp_path / "000007.rlj")
    assert first.exists()
    assert holes(tmp_path, lambda _: False) == []


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_is_no_segment(tmp_path: Path, name: str) -> None:
    write(tmp_path, 1)
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / name).with_suffix(".rlc").write_bytes(b"x")
    assert [path.name for path in segments(tmp_path)] == ["000001.rlj"]
    assert next_epoch(tmp_path) == 2
    assert odd_names(tmp_path) == [name]
    Journal(tmp_path).close()


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
