"""The way of the plugin into the processes that vLLM starts from an actor: these load plugins by entry points alone.

Where driftline is installed, its own entry point is there. A checkout on PYTHONPATH has none; then vLLM's processes are
given a folder with the metadata of one, which lies in the checkout.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Final

from engine import plugin
from engine.types import EngineError

GROUP: Final = "vllm.general_plugins"
NAME: Final = "driftline"
VALUE: Final = "driftline.vllm_plugin:register"
FOLDER: Final = Path(plugin.__file__).parent / "entry_point"
"""A place for `sys.path` that holds the metadata of a distribution with this entry point, and nothing else."""
ALLOWED: Final = "VLLM_PLUGINS"


def ensure(engine: str) -> None:
    """See to it that this process, and those that start from it, have the entry point, and may load it.

    Call it before vLLM is imported. Raises EngineError where that cannot be.
    """
    if not _there():
        # Spawned processes get this one's sys.path, others its environment.
        sys.path.append(str(FOLDER))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(FOLDER))))
        if not _there():
            raise EngineError(
                f"{engine}: driftline is not installed in {sys.prefix}, and {FOLDER} is not there, so that vLLM's "
                "processes cannot load its plugin: install it there with pip"
            )
    allowed = os.environ.get(ALLOWED)
    if allowed is not None and NAME not in allowed.split(","):
        os.environ[ALLOWED] = ",".join(filter(None, (allowed, NAME)))


def _there() -> bool:
    found = importlib.metadata.entry_points(group=GROUP, name=NAME)
    return any(point.value == VALUE for point in found)
