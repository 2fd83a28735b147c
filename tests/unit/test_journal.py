"""The journal after everything a crash, a full disk or a bad sector can do to it."""

from __future__ import annotations

import io
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import driftline.journal.journal as journal_module
from driftline.frames import Event, Metrics, Tokens, encode
from driftline.journal.journal import Damage, Journal, JournalError, Record, kind, read, record_encoder, scan, segments


def record(seq: int, body: bytes | None = None, size: int = 0) -> bytes:
    body = body or encode(Event(float(seq), "info", "k", "x" * size))
    return record_encoder.encode(Record(seq, float(seq), "trainer", msgspec.Raw(body), 7, seq))


def fill(folder: Path, count: int, size: int = 40) -> None:
    journal = Journal(folder)
    for seq in range(journal.head + 1, journal.head + count + 1):
        journal.append(record(seq, size=size), seq, True)
    journal.close()


def numbers(folder: Path, damage: Damage | None = None) -> list[int]:
    return [stamped.seq for stamped in read(folder, damage=damage)]


def test_what_is_written_is_read_back_over_several_hubs(tmp_path: Path) -> None:
    for epoch in range(1, 4):
        taken: list[Record] = []
        journal = Journal(tmp_path, taken.append)
        assert journal.epoch == epoch
        assert [r.seq for r in taken] == list(range(1, journal.head + 1))
        assert all((r.incarnation, r.pseq) == (7, r.seq) for r in taken)
        for seq in range(journal.head + 1, journal.head + 11):
            journal.append(record(seq), seq, True)
        journal.close()
    assert numbers(tmp_path) == list(range(1, 31))
    assert numbers(tmp_path) == [s.seq for s in read(tmp_path, 1)]
    assert [s.seq for s in read(tmp_path, 17)] == list(range(17, 31))
    assert [p.name for p in segments(tmp_path)] == ["000001.rlj", "000002.rlj", "000003.rlj"]
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in segments(tmp_path))
    stamped = next(iter(read(tmp_path)))
    assert (stamped.producer, stamped.time, stamped.frame().kind) == ("trainer", 1.0, "k")


def test_a_torn_end_is_moved_aside_wherever_it_was_torn(tmp_path: Path) -> None:
    """Cut at every byte of the last two records: every whole record comes back, the rest is kept beside it."""
    fill(tmp_path, 5)
    (segment,) = segments(tmp_path)
    whole = segment.read_bytes()
    with segment.open("rb") as file:
        ends = [offset + len(body) + 20 for offset, _, body in scan(file, Damage())]
    assert ends[-1] == len(whole)
    for cut in range(ends[2], len(whole) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / segment.name).write_bytes(whole[:cut])
        expected = [seq for seq, end in enumerate(ends, 1) if end <= cut]
        damage = Damage()
        assert numbers(folder, damage) == expected, "the tolerant reader"
        assert damage.bytes == 0, "an end that is not all there yet is no damage"
        journal = Journal(folder)
        assert journal.head == expected[-1]
        journal.append(record(journal.head + 1), journal.head + 1, True)
        journal.close()
        assert numbers(folder) == [*expected, expected[-1] + 1]
        torn = whole[ends[expected[-1] - 1] : cut]
        side = folder / f"{segment.name}.torn"
        assert (side.read_bytes() if side.exists() else b"") == torn


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_costs_one_record_and_is_never_believed(data: st.DataObject, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    whole, good = flip_material(tmp_path_factory)
    bit = data.draw(st.integers(64 * 8, len(whole) * 8 - 1))
    broken = bytearray(whole)
    broken[bit // 8] ^= 1 << (bit % 8)
    damage = Damage()
    found = {seq: body for _, seq, body in scan(io.BytesIO(bytes(broken)), damage)}
    assert all(good[seq] == body for seq, body in found.items()), "nothing wrong is believed"
    assert len(found) == len(good) - 1, "one record is lost, no more"
    assert damage.bytes + damage.torn > 0, "and it is reported"


def flip_material(factory: pytest.TempPathFactory) -> tuple[bytes, dict[int, bytes]]:
    folder = factory.mktemp("flip")
    fill(folder, 12, size=30)
    whole = segments(folder)[0].read_bytes()
    return whole, {seq: body for _, seq, body in scan(io.BytesIO(whole), Damage())}


def test_a_damaged_header_or_middle_does_not_stop_a_hub(tmp_path: Path) -> None:
    fill(tmp_path, 20, size=100)
    (segment,) = segments(tmp_path)
    data = bytearray(segment.read_bytes())
    data[:40] = os.urandom(40)
    data[1000:1300] = os.urandom(300)
    segment.write_bytes(data)
    damage = Damage()
    survivors = numbers(tmp_path, damage)
    assert 14 <= len(survivors) < 20
    assert damage.bytes > 0
    journal = Journal(tmp_path)
    assert journal.epoch == 2
    assert journal.head == 20
    journal.append(record(21), 21, True)
    pages, at = [], 1
    while at <= journal.head:
        page, at = journal.page(at, 4, 1 << 20, True)
        pages += [msgspec.msgpack.decode(body, type=Record).seq for body in page]
    assert pages == [*survivors, 21], "lost numbers are passed over"
    journal.close()


def test_records_larger_than_the_reading_window(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for seq in range(1, 9):
        journal.append(record(seq, size=700_000 * (seq % 3) + 1), seq, True)
    journal.close()
    assert numbers(tmp_path) == list(range(1, 9))
    (segment,) = segments(tmp_path)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    damage = Damage()
    assert len(numbers(tmp_path, damage)) == 7
    assert damage.bytes > 0


def test_text_that_looks_like_a_record_is_not_one(tmp_path: Path) -> None:
    """A copy of an old record inside a body does not surface when the record around it is damaged."""
    inner_folder, folder = tmp_path / "inner", tmp_path / "outer"
    fill(inner_folder, 1)
    inner = segments(inner_folder)[0].read_bytes()[64:]
    journal = Journal(folder)
    for seq in range(1, 6):
        tokens = Tokens(1, 1, 1.0, 0, b"", b"", b"", b"", b"", b"", engines=(), pieces=())
        body = encode(tokens) if seq != 3 else encode(Event(1.0, "info", "k", "", data={"x": "y"}))
        wrapped = record_encoder.encode(Record(seq, 1.0, "p", msgspec.Raw(body), 1, seq)) + (inner if seq == 3 else b"")
        journal.append(wrapped, seq, True)
    journal.close()
    (segment,) = segments(folder)
    with segment.open("rb") as file:
        third = next(offset for offset, seq, _ in scan(file, Damage()) if seq == 3)
    data = bytearray(segment.read_bytes())
    data[third + 21] ^= 0xFF
    segment.write_bytes(data)
    assert numbers(folder) == [1, 2, 4, 5]


def test_pages_by_count_bytes_and_topic(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for seq in range(1, 101):
        journal.append(record(seq, size=1000), seq, seq % 2 == 0)
    page, following = journal.page(1, 256, 10_000, True)
    assert (len(page), following) == (9, 10)
    page, following = journal.page(1, 10, 1 << 20, False)
    assert [msgspec.msgpack.decode(body, type=Record).seq for body in page] == list(range(2, 21, 2))
    assert following == 22
    assert journal.page(1, 256, 1, True)[1] == 2, "one record always fits"
    assert journal.page(101, 10, 1 << 20, True) == ([], 101)
    assert journal.page(-5, 1, 1 << 20, True)[1] == 2
    journal.close()


def test_a_full_segment_is_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 2000)
    fill(tmp_path, 100)
    assert len(segments(tmp_path)) > 3
    assert numbers(tmp_path) == list(range(1, 101))
    journal = Journal(tmp_path)
    assert journal.head == 100
    assert journal.epoch == len(segments(tmp_path)), "a later hub has a higher epoch, rotation or not"
    got, at = [], 1
    while at <= 100:
        page, at = journal.page(at, 7, 1 << 20, True)
        got += [msgspec.msgpack.decode(body, type=Record).seq for body in page]
    assert got == list(range(1, 101))
    journal.close()


def test_a_short_write_leaves_no_half_record(tmp_path: Path) -> None:
    """At a file-size limit the system writes a part and reports no error; the journal reports it and stays whole."""
    script = f"""
import resource, signal, sys
from pathlib import Path
from tests.unit.test_journal import record
from driftline.journal.journal import Journal, JournalError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, {resource.RLIM_INFINITY}))
journal = Journal(Path({str(tmp_path)!r}))
seq, failures = 1, 0
for _ in range(12):
    try:
        journal.append(record(seq, size=900), seq, True)
        seq += 1
    except JournalError as error:
        failures += 1
        sentence = str(error)
print(seq - 1, failures, sentence)
resource.setrlimit(resource.RLIMIT_FSIZE, ({resource.RLIM_INFINITY}, {resource.RLIM_INFINITY}))
journal.append(record(seq, size=900), seq, True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    written, failures, *sentence = done.stdout.split()
    assert int(written) + int(failures) == 12
    assert int(failures) > 0
    assert "000001.rlj:" in " ".join(sentence)
    damage = Damage()
    assert numbers(tmp_path, damage) == list(range(1, int(written) + 2))
    assert (damage.bytes, damage.torn) == (0, 0)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="file"):
        Journal(tmp_path / "file")


def test_the_reader_keeps_up_with_a_journal_that_grows(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    dice = random.Random(3)
    for seq in range(1, 200):
        journal.append(record(seq, size=dice.randrange(500)), seq, True)
        if seq % 20 == 0:
            assert numbers(tmp_path) == list(range(1, seq + 1))
    journal.close()
    assert numbers(tmp_path / "nowhere") == []


def test_the_kind_is_read_without_decoding() -> None:
    assert kind(encode(Metrics(1, 1, 1.0, {}))) == b"m"
    assert kind(encode(Event(1.0, "info", "k", "t"))) == b"e"
    wide = msgspec.msgpack.encode(["t", *range(20)])
    assert (wide[0], kind(wide)) == (0xDC, b"t"), "also once a frame has more than fifteen fields"
