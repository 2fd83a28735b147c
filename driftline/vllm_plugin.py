"""What vLLM loads as Driftline's plugin: the way to `engine.plugin`, or one sentence where that cannot be reached.

`engine` is a common name: a file `engine.py` in the folder that a run is started from hides the package of that name.
This module has no such neighbour, so it can say so; it costs no import until there is a run to join.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from typing import Final

PACKAGE: Final = "engine"
LOG: Final = "vllm.driftline"
"""As `engine.plugin.log`, which cannot be imported where it is needed."""


def register() -> None:
    """Join the run that the environment names; see `engine.plugin.register`. Never raises."""
    if (obstacle := _obstacle()) is not None:
        logging.getLogger(LOG).warning("driftline: inert, because %s", obstacle)
        return
    # By its name: this room knows no engine, and is what others install without one.
    importlib.import_module(f"{PACKAGE}.plugin").register()


def _obstacle() -> str | None:
    """Why the package cannot be imported, as a clause; None where it can."""
    ours = Path(__file__).parents[1] / PACKAGE
    loaded = sys.modules.get(PACKAGE)
    spec = importlib.util.find_spec(PACKAGE) if loaded is None else None
    origin = getattr(loaded, "__file__", None) or (spec.origin if spec else None)
    if origin is None:
        return f"Driftline's own package '{PACKAGE}' is not beside {ours.parent / 'driftline'}"
    if Path(origin).resolve().parent == ours.resolve():
        return None
    return (
        f"{origin} hides Driftline's own package '{PACKAGE}': "
        "start the run from another folder, or with PYTHONSAFEPATH=1"
    )
