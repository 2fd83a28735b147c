"""An adapter reaches the actor that holds a framework's training loop, on a real Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.adapters.environments import FOLDER, RELEASES, ROOT, SLOWEST_START, Release
from tests.unit.hubs import Hub

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

PLACES = {
    "verl": ("verl.utils.tracking", "Tracking.log"),
    "openrlhf": ("openrlhf.trainer.ppo_trainer", "BasePPOTrainer.train_step"),
}


def distribution(folder: Path) -> Path:
    """The entry points of pyproject.toml as those of an installed package."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    place = folder / "driftline-0.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: driftline\nVersion: 0.0\n")
    (place / "entry_points.txt").write_text(f"[verl.plugins]\ndriftline = {points['verl.plugins']['driftline']}\n")
    return folder


@pytest.mark.parametrize(
    "release", [one for one in RELEASES if one.name in ("verl-0.9.1", "openrlhf-0.11.2")], ids=lambda one: one.name
)
def test_the_actor_of_the_training_loop_is_attached(release: Release, tmp_path: Path) -> None:
    if release.missing:
        pytest.skip(release.missing)
    with ExitStack() as stack:
        hub = Hub(tmp_path)
        hub.start()
        stack.callback(hub.end)
        path = [distribution(tmp_path / "site"), FOLDER / release.name, FOLDER / "needs", ROOT]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "DRIFTLINE_RUN": str(hub.run.path)}
        way = ["-m", "driftline.adapters.openrlhf"] if release.package == "openrlhf" else []
        command = [sys.executable, *way, "-m", "tests.adapters.ray_job", *PLACES[release.package]]
        done = subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=2 * SLOWEST_START, check=False
        )
    assert "wrapped: True" in done.stdout, (done.stdout + done.stderr)[-3000:]
