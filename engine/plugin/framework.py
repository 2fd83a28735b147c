"""Whose engine this is: the framework that has started it, as far as its process shows.

A framework leaves one of two traces in an engine core's process: the worker extension that it has vLLM load, or, where
the core lives in the framework's own process, its package among the loaded modules.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Container, Mapping
from typing import Any, Final

VARIABLE: Final = "DRIFTLINE_FRAMEWORK"
"""Says it where nothing shows: `DRIFTLINE_FRAMEWORK="mine 1.2"`."""
KNOWN: Final[dict[str, tuple[str, str]]] = {
    "verl": ("verl", "verl"),
    "trl": ("TRL", "trl"),
    "skyrl": ("SkyRL", "skyrl"),
    "openrlhf": ("OpenRLHF", "openrlhf"),
    "pipelinerl": ("PipelineRL", "pipelinerl"),
    "prime_rl": ("prime-rl", "prime-rl"),
    "nemo_rl": ("NeMo-RL", "nemo-rl"),
    "areal": ("AReaL", "areal"),
    "open_instruct": ("open-instruct", "open-instruct"),
}
"""Packages by the name that is imported: the name for people, and that of the distribution."""
MOST: Final = 60


def found(core: Any) -> str:
    """The framework with its version, "TRL 1.2.0"; "" where none shows. Raises nothing."""
    try:
        extension = str(core.vllm_config.parallel_config.worker_extension_cls or "")
        return named(extension, sys.modules, os.environ)
    except Exception:  # noqa: BLE001  a name is not worth an engine
        return ""


def named(extension: str, loaded: Container[str], environ: Mapping[str, str]) -> str:
    """The same from the class of the worker extension, the loaded modules, and what the environment says."""
    if said := environ.get(VARIABLE, "").strip():
        return said[:MOST]
    package = extension.partition(".")[0]
    if package not in KNOWN:
        package = next((one for one in KNOWN if one in loaded), package)
    name, distribution = KNOWN.get(package, (package, package))
    return f"{name} {_version(distribution)}".strip()[:MOST] if name else ""


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
