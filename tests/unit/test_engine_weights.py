"""Weights through shared memory: whole, private, gone afterwards."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.types import EngineError
from engine.weights import publish
from engine.weights import shared_memory as shared

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool]


@pytest.fixture(autouse=True)
def segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own in place of /dev/shm."""
    monkeypatch.setattr(shared, "FOLDER", tmp_path)
    return tmp_path


def tensors(shapes: list[tuple[int, ...]]) -> dict[str, torch.Tensor]:
    made = {}
    for index, shape in enumerate(shapes):
        dtype = DTYPES[index % len(DTYPES)]
        made[f"layer.{index}"] = (torch.randn(shape) * 50).to(dtype)
    return made


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), max_size=20))
def test_what_is_published_is_what_is_read(shapes: list[tuple[int, ...]]) -> None:
    sent = tensors(shapes)
    with publish.publish(sent) as manifest:
        got = dict(publish.read(manifest))
    assert list(got) == list(sent)
    for name, tensor in sent.items():
        assert got[name].dtype == tensor.dtype
        assert got[name].shape == tensor.shape
        assert torch.equal(got[name], tensor)


def test_strided_and_trainable_tensors_are_read_as_they_look() -> None:
    sent = {"t": torch.nn.Parameter(torch.arange(12.0).reshape(3, 4).t())}
    with publish.publish(sent) as manifest:
        assert torch.equal(dict(publish.read(manifest))["t"], sent["t"].detach())


def test_a_segment_is_private_and_goes_with_the_block(segments: Path) -> None:
    with publish.publish(tensors([(4,)])) as manifest:
        (path,) = segments.iterdir()
        assert path.name == manifest["segment"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        reader = publish.read(manifest)
        name, tensor = next(reader)
    assert not list(segments.iterdir())
    assert (name, tensor.shape) == ("layer.0", (4,))  # a reader keeps its mapping


def test_a_segment_goes_when_the_block_fails(segments: Path) -> None:
    with pytest.raises(KeyError), publish.publish(tensors([(4,)])):
        raise KeyError
    assert not list(segments.iterdir())


def test_a_reader_cannot_change_what_others_read() -> None:
    with publish.publish({"t": torch.zeros(4)}) as manifest:
        dict(publish.read(manifest))["t"].fill_(1)
        assert torch.equal(dict(publish.read(manifest))["t"], torch.zeros(4))


@pytest.mark.parametrize("segment", ["../secret", "driftline-0123", "/etc/passwd", "driftline-0123456789abcdef/x", ""])
def test_a_manifest_names_a_segment_and_nothing_else(segment: str) -> None:
    with publish.publish({"t": torch.zeros(4)}) as manifest, pytest.raises(ValueError, match="not a weight segment"):
        next(publish.read({**manifest, "segment": segment}))


def test_a_segment_of_the_wrong_size_mode_or_kind_is_refused(segments: Path) -> None:
    with publish.publish({"t": torch.zeros(4)}) as manifest:
        path = segments / manifest["segment"]
        with pytest.raises(ValueError, match="private segment"):
            next(publish.read({**manifest, "size": 4096}))
        path.chmod(0o644)
        with pytest.raises(ValueError, match="private segment"):
            next(publish.read(manifest))
        path.unlink()
        path.symlink_to("/dev/null")
        with pytest.raises(OSError, match="symbolic links"):
            next(publish.read(manifest))


def test_a_dtype_that_cannot_be_sent_is_named(segments: Path) -> None:
    with (
        pytest.raises(EngineError, match=r"weight w: dtype torch\.complex64 cannot be sent"),
        publish.publish({"w": torch.zeros(1, dtype=torch.complex64)}),
    ):
        pass
    assert not list(segments.iterdir())


def test_no_shared_memory_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shared, "FOLDER", tmp_path / "absent")
    with pytest.raises(EngineError, match="no shared memory"), publish.publish({"w": torch.zeros(1)}):
        pass


def test_a_sweep_takes_the_left_over_and_spares_the_used(segments: Path) -> None:
    old = time.time() - 3600
    abandoned = segments / "driftline-0000000000000000"
    abandoned.write_bytes(b"x")
    os.utime(abandoned, (old, old))
    fresh = segments / "driftline-1111111111111111"
    fresh.write_bytes(b"x")
    with publish.publish({"w": torch.zeros(1)}) as manifest:
        used = segments / manifest["segment"]
        os.utime(used, (old, old))
        assert shared.sweep() == 1
        assert {path.name for path in segments.iterdir()} == {used.name, fresh.name}


def test_a_lent_segment_that_another_process_has_removed_is_made_anew(segments: Path) -> None:
    lender = shared.Segments()
    with publish.publish({"w": torch.zeros(8)}, lender) as manifest:
        (segments / manifest["segment"]).unlink()
    for _ in range(2):
        with publish.publish({"w": torch.ones(8)}, lender) as manifest:
            assert [float(tensor.sum()) for _, tensor in publish.read(manifest)] == [8.0]
    lender.close()
    assert not list(segments.iterdir())


def test_a_lender_keeps_one_segment_for_the_next_publication(segments: Path) -> None:
    lender = shared.Segments()
    with publish.publish({"w": torch.zeros(1000)}, lender) as manifest:
        first = manifest["segment"]
        # Two at once, as when one engine's load is repeated while others still load: each has its own.
        with publish.publish({"w": torch.ones(1000)}, lender) as other:
            assert other["segment"] != first
            assert torch.equal(dict(publish.read(manifest))["w"], torch.zeros(1000))
            assert torch.equal(dict(publish.read(other))["w"], torch.ones(1000))
    assert len(list(segments.iterdir())) == 1
    with publish.publish({"w": torch.full((10,), 2.0)}, lender) as smaller:
        assert smaller["segment"] == first
        assert torch.equal(dict(publish.read(smaller))["w"], torch.full((10,), 2.0))
    with publish.publish({"w": torch.zeros(5000)}, lender) as larger:
        assert larger["segment"] != first
    lender.close()
    assert not list(segments.iterdir())


def test_a_segment_that_is_out_when_its_lender_closes_goes_when_it_comes_back(segments: Path) -> None:
    lender = shared.Segments()
    with publish.publish({"w": torch.zeros(4)}, lender):
        lender.close()
        assert len(list(segments.iterdir())) == 1
    assert not list(segments.iterdir())


def test_a_reader_that_keeps_its_mapping_sees_what_is_published_next() -> None:
    lender, reader = shared.Segments(), publish.Reader()
    for value in (1.0, 2.0):
        with publish.publish({"w": torch.full((3000,), value)}, lender) as manifest:
            assert torch.equal(dict(reader.read(manifest))["w"], torch.full((3000,), value))
    # A larger segment is another file.
    with publish.publish({"w": torch.full((9000,), 3.0)}, lender) as manifest:
        assert torch.equal(dict(reader.read(manifest))["w"], torch.full((9000,), 3.0))
    lender.close()


def test_a_reader_that_was_written_through_sees_again_once_it_forgets() -> None:
    lender, reader = shared.Segments(), publish.Reader()
    with publish.publish({"w": torch.zeros(4)}, lender) as manifest:
        dict(reader.read(manifest))["w"].fill_(7)
    with publish.publish({"w": torch.ones(4)}, lender) as manifest:
        assert torch.equal(dict(reader.read(manifest))["w"], torch.full((4,), 7.0))
        reader.unmap()
        assert torch.equal(dict(reader.read(manifest))["w"], torch.ones(4))
    lender.close()
