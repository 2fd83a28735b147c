"""What this machine has of that which an environment needs. Reads the system; changes nothing."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from console.environments import libstdcxx
from console.environments.known import PYTHON
from console.environments.plan import Build
from driftline import bounded_file

_LIBRARY_BYTES: Final = 64 << 20
_DRIVER: Final = Path("/proc/driver/nvidia/version")
_LIBRARY_FOLDERS: Final = (
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
)
_ASK: Final = "import sys; print(*sys.version_info[:2])"


@dataclass(frozen=True)
class Machine:
    """`python` is an interpreter with its version, `glibcxx` the newest symbols of libstdc++ here, () for not known.

    `libraries` are the files found for names that are to be preloaded and that no package of the environment brings.
    """

    python: str
    version: tuple[int, int]
    free_gb: float
    glibcxx: tuple[int, ...]
    libraries: dict[str, Path]


def look(folder: Path, python: str | None, preload: Sequence[str]) -> Machine:
    """The machine, for an environment in this folder. Raises OSError for a Python that cannot be run."""
    found = python or _python()
    return Machine(
        python=found,
        version=version_of(found),
        free_gb=shutil.disk_usage(_existing(folder)).free / 1e9,
        glibcxx=newest_glibcxx(),
        libraries={name: path for name in preload if (path := find_library(name)) is not None},
    )


def build() -> Build:
    """The ordinary vLLM where NVIDIA's driver is loaded, else the CPU build."""
    return "cuda" if _DRIVER.exists() else "cpu"


def _python() -> str:
    """An interpreter of the wanted version: the running one, or what is called so on the PATH."""
    wanted = ".".join(map(str, PYTHON))
    if sys.version_info[:2] == PYTHON:
        # The one below this one's virtual environment: what that has installed is not to be seen from the new one.
        base = Path(sys.base_prefix) / "bin" / f"python{wanted}"
        return str(base) if base.exists() else sys.executable
    return shutil.which(f"python{wanted}") or sys.executable


def version_of(python: str) -> tuple[int, int]:
    """Major and minor version of an interpreter. Raises OSError where it cannot be run."""
    done = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=False, timeout=60)
    words = done.stdout.split()
    if done.returncode or len(words) != 2:
        raise OSError(f"{python} is no Python that runs: {done.stderr.strip()[-200:] or 'it prints no version'}")
    return int(words[0]), int(words[1])


def newest_glibcxx() -> tuple[int, ...]:
    """The newest symbols of the libstdc++ that this machine loads."""
    with contextlib.suppress(OSError):
        ctypes.CDLL("libstdc++.so.6")
        for line in Path("/proc/self/maps").read_text().splitlines():
            path = line.partition("/")[1] + line.partition("/")[2]
            if "libstdc++.so" in path:
                return libstdcxx.provided(bounded_file.read(Path(path), _LIBRARY_BYTES))
    return ()


def find_library(name: str) -> Path | None:
    """A library's file where the system keeps such, by the beginning of its name."""
    for folder in map(Path, _LIBRARY_FOLDERS):
        found = sorted(path for path in folder.glob(f"{name}*.so*") if "debug" not in path.name)
        if found:
            return found[0]
    return None


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
