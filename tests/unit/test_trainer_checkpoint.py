"""Checkpoints: a run that goes on from one does exactly what it would have done."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from driftline.config import ModelConfig
from trainer import checkpoint
from trainer.checkpoint import State
from trainer.errors import TrainerError
from trainer.learn import tiny_model

SMALL = ModelConfig(hidden=32, layers=1, heads=2)


def build(seed: int = 0):
    model = tiny_model.make_model(SMALL, seed=seed, max_length=32)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def train(model, optimizer, steps: int) -> None:
    for _ in range(steps):
        ids = torch.randint(3, 90, (4, 8))
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def state(step: int) -> State:
    return State(step=step, version=step, next_prompt=16 * step, config_digest="abc")


def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model, optimizer = build()
    train(model, optimizer, 3)
    path = checkpoint.save(tmp_path, state(3), model, optimizer, keep=2)
    train(model, optimizer, 3)
    torch.manual_seed(99)
    again, second = build(seed=8)
    assert checkpoint.restore(path, again, second) == state(3)
    train(again, second, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_only_the_newest_are_kept_and_half_written_ones_do_not_count(tmp_path: Path) -> None:
    model, optimizer = build()
    for step in (1, 2, 10, 11):
        checkpoint.save(tmp_path, state(step), model, optimizer, keep=2)
    (tmp_path / ".step-00000012.1").mkdir()
    (tmp_path / "step-00000013").mkdir()
    assert [p.name for p in checkpoint.complete(tmp_path)] == ["step-00000011", "step-00000010"]


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    model, optimizer = build()
    checkpoint.save(tmp_path, state(1), model, optimizer, keep=2)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, state(2), model, optimizer, keep=2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("damage", ["state", "tensors", "model"])
def test_a_checkpoint_that_cannot_be_used_is_one_sentence(tmp_path: Path, damage: str) -> None:
    model, optimizer = build()
    path = checkpoint.save(tmp_path, state(1), model, optimizer, keep=2)
    if damage == "state":
        (path / checkpoint.STATE_FILE).write_bytes(b"{\xff")
    elif damage == "tensors":
        (path / checkpoint.TENSOR_FILE).write_bytes(b"not safetensors")
    else:
        model = tiny_model.make_model(ModelConfig(hidden=64, layers=1, heads=2), seed=0, max_length=32)
        optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(TrainerError, match="checkpoint") as e:
        checkpoint.restore(path, model, optimizer)
    assert "\n" not in str(e.value)


def test_no_checkpoints_is_an_empty_list(tmp_path: Path) -> None:
    assert checkpoint.complete(tmp_path / "none") == []
