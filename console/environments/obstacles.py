"""What stands in the way of an environment on this machine, as one sentence with what to do. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from console.environments import libstdcxx
from console.environments.known import PYTHON, Known
from console.environments.machine import Machine
from console.environments.plan import Build

FROM_PACKAGES: Final = {"libiomp5": "intel-openmp"}
"""Libraries that a package of the environment brings, and that package."""
_SMALL: Final = 0.5
"""The part of an environment's size, at most, that is left where torch is its CPU build."""
DEBIAN: Final = {"libtcmalloc": "libtcmalloc-minimal4"}
"""Debian's package of a library."""


def obstacle(known: Known, machine: Machine, folder: Path, build: Build, *, repair: bool, small: bool) -> str:
    """Why it cannot be made, "" where it can. `small`: torch comes from an index with CPU builds."""
    if machine.version != PYTHON:
        wanted, found = (".".join(map(str, version)) for version in (PYTHON, machine.version))
        return (
            f"{known.name} is pinned for Python {wanted}, and {machine.python} is {found}; "
            f"name one: --python /path/to/python{wanted}"
        )
    if (need := needed_gb(known, small=small)) > machine.free_gb:
        return (
            f"{known.name} takes {need:.1f} GB while it is made, its packages among them, and "
            f"{folder} has {machine.free_gb:.1f} GB free; DRIFTLINE_ENVIRONMENTS names a folder on a larger disk"
        )
    if build == "cuda":
        return ""
    if lacks_libstdcxx(known, machine) and not repair:
        newest = ".".join(map(str, machine.glibcxx))
        return (
            f"{known.name}'s compiled part asks for GLIBCXX_{known.glibcxx}, and this system's libstdc++ ends at "
            f"{newest}: use a newer system (GCC 13: Debian 13, Ubuntu 24.04), or let the one reference that asks for "
            f"it be changed in the environment's own copy: --repair"
        )
    for name in known.preload:
        if name not in FROM_PACKAGES and name not in machine.libraries:
            package = DEBIAN.get(name)
            how = f"; install it: apt-get install {package}" if package else ""
            refuses = f"vLLM {known.version} refuses to start on a CPU without {name} in LD_PRELOAD"
            return f"{refuses}, and this machine has none{how}"
    return ""


def needed_gb(known: Known, *, small: bool) -> float:
    """Free disk that making it takes, in 10^9 bytes: its own size, and the packages while they are unpacked."""
    whole = known.disk_gb + known.download_gb
    return whole * _SMALL if small else whole


def lacks_libstdcxx(known: Known, machine: Machine) -> bool:
    """Whether its compiled part cannot be loaded here as it comes."""
    return bool(known.glibcxx and machine.glibcxx and machine.glibcxx < libstdcxx.number(known.glibcxx))
