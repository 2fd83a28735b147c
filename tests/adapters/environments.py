"""Which releases of which frameworks the adapters are run on, and where `make adapters` puts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from tests.unit.hubs import PATIENCE

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".venv-adapters"
SLOWEST_START: Final = 240.0
"""Seconds that the imports of a framework may take on a busy machine."""


class Release(NamedTuple):
    """A release of a framework; `module` calls its functions, `modes` are those of its trainers that it knows."""

    package: str
    version: str
    module: str

    @property
    def name(self) -> str:
        return f"{self.package}-{self.version}"

    @property
    def folder(self) -> Path:
        """Where its package is."""
        return Path(os.environ.get("PIPELINERL", "")) if self.package == "pipelinerl" else FOLDER / self.name

    @property
    def missing(self) -> str:
        """Why it cannot be run here, or ""."""
        if self.package == "pipelinerl":
            found = (self.folder / "pipelinerl" / "finetune").is_dir() and (FOLDER / "needs" / ".installed").exists()
            return "" if found else "PipelineRL has no release on the package index: make adapters PIPELINERL=CHECKOUT"
        wanted = [FOLDER / self.name / ".installed", FOLDER / "needs" / ".installed"]
        return "" if all(one.exists() for one in wanted) else f"{self.name} is not installed here: make adapters"


RELEASES: Final = (
    Release("verl", "0.9.0", "run_verl"),
    Release("verl", "0.9.1", "run_verl"),
    Release("openrlhf", "0.11.1", "run_openrlhf"),
    Release("openrlhf", "0.11.2", "run_openrlhf"),
    Release("skyrl", "0.2.0", "run_skyrl"),
    Release("skyrl", "0.3.0", "run_skyrl"),
    Release("skyrl", "0.4.0", "run_skyrl"),
)

PIPELINERL: Final = Release("pipelinerl", "", "run_pipelinerl")


class Training:
    """A framework's loop in a process of its own, joined to a run; `step` lets it do one step."""

    def __init__(self, release: Release, run: Path, log: Path, mode: str, without: str = "") -> None:
        path = [release.folder, FOLDER / "needs", ROOT]
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "DRIFTLINE_RUN": str(run),
            "CUDA_VISIBLE_DEVICES": "",
        }
        for name in ("RANK", "WORLD_SIZE", "DRIFTLINE_KEY"):
            environ.pop(name, None)
        self.log = log
        command = [sys.executable, "-m", f"tests.adapters.{release.module}", mode, without]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=file, stderr=file, text=True
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def step(self) -> None:
        assert self.process.poll() is None, self.said[-3000:]
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Let it come to its end; return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE + SLOWEST_START)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
