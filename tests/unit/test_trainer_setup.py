"""What a seed decides: the prompts always, the tiny model unless it has a seed of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from driftline.config import RunConfig
from driftline.rundir import RunDir
from tests.unit.test_trainer_loop import CONFIG
from trainer.setup import Setup, build


def made(path: Path, seed: int, model_seed: int) -> Setup:
    path.mkdir()
    config = replace(CONFIG, run=RunConfig(seed=seed), model=replace(CONFIG.model, seed=model_seed))
    return build(config, RunDir(path), resume=False, digest="abc", on_progress=lambda text: None)


@pytest.mark.parametrize(("model_seed", "same"), [(-1, False), (7, True)])
def test_runs_of_two_seeds_start_from_one_model_only_where_it_has_a_seed(
    tmp_path: Path, model_seed: int, same: bool
) -> None:
    one, other = made(tmp_path / "a", 1, model_seed), made(tmp_path / "b", 2, model_seed)
    assert all(torch.equal(one.reference[name], other.reference[name]) for name in one.reference) == same
    assert one.task.prompt(0).text != other.task.prompt(0).text
