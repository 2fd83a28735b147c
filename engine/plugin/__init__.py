"""The way of any vLLM engine into a run: a general plugin that vLLM itself loads in each of its processes.

`register` is the entry point `vllm.general_plugins`. It costs no import of vLLM's, torch's or ours until there is a run
to join ($DRIFTLINE_RUN), it never raises, and it may be called any number of times in a process. An engine of our own
pool is reached by the same methods inside its workers, and joins through its actor.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from engine.plugin.log import LOG

POOL_VARIABLE: Final = "DRIFTLINE_POOL_ENGINE"
"""Set by the actors of our own pool for the processes that vLLM starts from them."""


def register() -> None:
    """Join the run that the environment names, from the process that holds an engine core; else say why not."""
    log = logging.getLogger(LOG)
    try:
        if os.environ.get(POOL_VARIABLE):
            from engine.plugin import pool_engine

            pool_engine.install()
            return
        if not os.environ.get("DRIFTLINE_RUN"):
            log.info("driftline: inert, because DRIFTLINE_RUN names no run")
            return
        from engine.plugin import joining

        joining.install()
    except Exception as error:  # an engine must not fall over its console
        log.warning("driftline: inert, because of %s: %s", type(error).__name__, error, exc_info=True)
