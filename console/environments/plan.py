"""How an environment is made: the commands, and what a process in it has to be started with. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from console.environments.known import Known

Build = Literal["cpu", "cuda"]
"""vLLM's CPU build with its pins, or the ordinary one, of which pip chooses what it stands on."""

_GPU_PARTS: Final = re.compile(r"^(nvidia|cuda)-")
"""What only the CUDA build of torch needs."""
BESIDE: Final = ("ray", "msgspec", "pyzmq", "numpy", "google-crc32c", "psutil")
"""What Driftline's engines and its plugin stand on, beside vLLM."""


@dataclass(frozen=True)
class Step:
    """A command with what it does as a title."""

    title: str
    command: tuple[str, ...]


def pins(text: str) -> list[str]:
    """The lines of a constraints file that are packages."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def pip(python: Path, *arguments: str) -> tuple[str, ...]:
    """A pip command of the environment that this Python belongs to."""
    return (str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments)


def cpu_steps(known: Known, folder: Path, python: str, wanted: Sequence[str], torch_index: str) -> list[Step]:
    """The steps that make a CPU environment; `wanted` are its pins.

    With an index that has CPU builds of torch, that build is asked for by its name, and what serves a GPU is left out:
    the environment is a few times smaller then.
    """
    packages = list(wanted)
    index: tuple[str, ...] = ()
    if torch_index:
        exact = {f"torch=={known.torch}": f"torch=={known.torch}+cpu"}
        packages = [exact.get(one, one) for one in packages if not _GPU_PARTS.match(one)]
        index = ("--extra-index-url", torch_index)
    own = interpreter(folder)
    return [
        _venv(folder, python),
        Step(
            f"installing {len(packages)} packages",
            # Without build isolation a package that comes as source is built with the pinned setuptools.
            pip(own, "install", "--no-deps", "--progress-bar", "off", *index, *packages),
        ),
    ]


def cuda_steps(known: Known, folder: Path, python: str, wanted: Sequence[str]) -> list[Step]:
    """The steps that make the environment of a GPU machine: the ordinary vLLM, Ray and the like at their pins."""
    exact = {re.split("==", one)[0]: one for one in wanted}
    packages = [exact.get(name, name) for name in BESIDE]
    install = pip(interpreter(folder), "install", "--progress-bar", "off", f"vllm=={known.version}", *packages)
    return [_venv(folder, python), Step(f"installing vllm {known.version} and what it wants", install)]


def _venv(folder: Path, python: str) -> Step:
    return Step(f"making {folder}", (python, "-m", "venv", str(folder)))


def interpreter(folder: Path) -> Path:
    """The Python of an environment."""
    return folder / "bin" / "python"


def variables(known: Known, libraries: Sequence[Path]) -> dict[str, str]:
    """What has to stand in the environment of every process that runs this vLLM on a CPU; `libraries` are preloaded."""
    preload = {"LD_PRELOAD": ":".join(map(str, libraries))} if libraries else {}
    return {**known.variables, **preload}
