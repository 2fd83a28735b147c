"""Records checked and cut many at once: against the careful reader, whatever the damage, and against the decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import google_crc32c
import msgspec
import numpy as np
import pytest

from console import export
from console.recorded import blocks as records
from console.recorded import crc
from console.recorded.blocks import Block, segment
from console.store.load import load
from console.store.model import RunModel
from driftline.frames import Event, Frame, Metrics, Stamped, encode
from driftline.journal.records import Damage, Record, pack_head, pack_header, read_segment, record_encoder
from driftline.rundir import create
from tests.unit.runs import whole

NOW = 1_790_000_000.25


def write(path: Path, frames: list[Frame], first: int = 1) -> Path:
    """A segment of these frames, numbered from `first`."""
    parts = [pack_header(1, first, NOW)]
    for seq, frame in enumerate(frames, first):
        record = record_encoder.encode(Record(seq, NOW + seq, "trainer", msgspec.Raw(encode(frame)), 1, seq))
        parts += [pack_head(record, seq), record]
    path.write_bytes(b"".join(parts))
    return path


def alike(count: int) -> list[Frame]:
    """Frames of few lengths, with another kind now and then."""
    frames: list[Frame] = [Metrics(step, step, NOW + step, {"a": step / 3, "b": -step / 7}) for step in range(count)]
    frames[count // 2] = Event(NOW, "info", "x.y", "between")
    return frames


@pytest.mark.parametrize("count", [1, 2, 3, 17, 1000])
@pytest.mark.parametrize("length", [1, 37, 4096])
@pytest.mark.parametrize("first", [1, 2**32 - 5, 2**40])
def test_the_crc_of_a_row_of_records_follows_from_what_they_say(count: int, length: int, first: int) -> None:
    rng = np.random.default_rng(count * length)
    bodies = [rng.bytes(length) for _ in range(count)]
    whole = b"".join(pack_head(body, seq) + body for seq, body in enumerate(bodies, first))
    stored = np.array(
        [int.from_bytes(pack_head(body, seq)[-4:], "little") for seq, body in enumerate(bodies, first)], np.uint32
    )
    seqs = np.arange(first, first + count, dtype=np.uint64)
    assert crc.records_checksum(seqs, stored, length) == google_crc32c.value(whole)
    seqs[count // 2] ^= np.uint64(1)
    assert crc.records_checksum(seqs, stored, length) != google_crc32c.value(whole)


def test_blocks_of_like_records_hold_what_the_careful_reader_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "BLOCK", 20_000)
    path = write(tmp_path / "000001.rlj", alike(1500))
    sound = path.read_bytes()
    rng = np.random.default_rng(5)
    for turn in range(40):
        damaged = bytearray(sound)
        for place in rng.integers(64, len(damaged), size=turn % 4):
            damaged[place] ^= 1 << int(rng.integers(8))
        cut = len(damaged) if turn % 3 else int(rng.integers(len(damaged) // 2, len(damaged)))
        path.write_bytes(bytes(damaged[:cut]))
        damage, expected = Damage(), Damage()
        blocks = list(segment(path, damage))
        careful = list(read_segment(path, 1, expected))
        assert [seq for block in blocks for seq in block.seqs.tolist()] == [one.seq for one in careful]
        assert [records.decoder.decode(body) for block in blocks for body in block] == careful
        assert (damage.bytes, damage.torn) == (expected.bytes, expected.torn)
    assert max(run.n for block in segment(path, Damage()) for run in block.runs) > 16


def test_records_that_stand_twice_or_backwards_are_left_to_the_careful_reader(tmp_path: Path) -> None:
    path = write(tmp_path / "000001.rlj", alike(300))
    sound = path.read_bytes()
    body = sound[64:]
    size = 20 + int.from_bytes(body[4:8], "little")
    again = sound + body[: 20 * size]
    path.write_bytes(again)
    found = [seq for block in segment(path, Damage()) for seq in block.seqs.tolist()]
    assert found == list(range(1, 301))


def test_a_record_larger_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BLOCK", 4096)
    frames: list[Frame] = [*alike(30), Event(NOW, "info", "x.y", "z" * 50_000), *alike(30)]
    path = write(tmp_path / "000001.rlj", frames)
    damage = Damage()
    found = [records.decoder.decode(body).frame() for block in segment(path, damage) for body in block]
    assert found == frames
    assert (damage.bytes, damage.torn) == (0, 0)


def test_the_first_records_of_a_block(tmp_path: Path) -> None:
    (block,) = segment(write(tmp_path / "000001.rlj", alike(100)), Damage())
    for count in (0, 1, 49, 50, 51, 52, 100):
        part = block.first(count)
        assert (len(part), part.seqs.tolist()) == (count, list(range(1, count + 1)))
        assert list(part) == list(block)[:count]


def test_a_block_of_bodies_from_elsewhere(tmp_path: Path) -> None:
    (block,) = segment(write(tmp_path / "000001.rlj", alike(100)), Damage())
    again = Block.from_bodies(block)
    assert list(again) == list(block)
    assert again.tags.tolist() == block.tags.tolist()
    assert list(Block.from_bodies([])) == []


FOREIGN: list[Callable[[int, Frame], object]] = [
    lambda seq, frame: [seq, 1_790_000_000 + seq, "other", msgspec.msgpack.decode(encode(frame)), 1, seq],
    lambda seq, frame: [seq, seq, "o" * 3_000, msgspec.msgpack.decode(encode(frame)), 1, seq],
    lambda seq, frame: [seq, 0.5, "other", msgspec.msgpack.decode(encode(frame)), *range(20)],
    lambda seq, frame: [seq, msgspec.msgpack.Ext(1, b"x"), "other", msgspec.msgpack.decode(encode(frame))],
]
"""Records as another writer may have packed them: whole numbers for times, long texts, wide headers, and no record."""


@pytest.mark.parametrize("packed", FOREIGN)
def test_a_journal_of_another_writer_is_read_as_the_careful_reader_reads_it(
    tmp_path: Path, packed: Callable[[int, Frame], object]
) -> None:
    run = create(tmp_path, "foreign")
    frames = [*alike(60), Metrics(60, 60, NOW, {"a": 1.0, "b": 2.0}), *whole(3)]
    parts = [pack_header(1, 1, NOW)]
    for seq, frame in enumerate(frames, 1):
        record = msgspec.msgpack.encode(packed(seq, frame))
        parts += [pack_head(record, seq), record]
    path = run.journal / "000001.rlj"
    path.write_bytes(b"".join(parts))
    expected = list(read_segment(path, 1, Damage()))
    (block,) = segment(path, Damage())
    kinds = {one.seq: one.frame().__struct_config__.tag for one in expected}
    assert [chr(tag) for tag in block.tags if tag] == list(kinds.values())
    assert export.frame(run, "events").height == sum(kind == "e" for kind in kinds.values())
    assert export.frame(run, "metrics").height == len(_steps(expected))
    model = RunModel()
    for stamped in expected:
        model.apply(stamped)
    loaded = load(run).model
    assert (loaded.head, loaded.step, repr(loaded.events)) == (model.head, model.step, repr(model.events))
    assert loaded.metrics.names() == model.metrics.names()
    for name in model.metrics.names():
        np.testing.assert_array_equal(loaded.metrics.values(name), model.metrics.values(name))


def _steps(stamped: list[Stamped]) -> set[int]:
    return {one.step for one in (each.frame() for each in stamped) if isinstance(one, Metrics)}
