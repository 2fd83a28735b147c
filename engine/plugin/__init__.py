"""The way of any vLLM engine into a run: a general plugin that vLLM itself loads in each of its processes.

`register` is the entry point `vllm.general_plugins`. It costs no import of vLLM's, torch's or ours until there is a run
to join ($DRIFTLINE_RUN), it never raises, and it may be called any number of times in a process.
"""

from __future__ import annotations

import logging
import os

from engine.plugin.log import LOG


def register() -> None:
    """Join the run that the environment names, from the process that holds an engine core; else say why not."""
    log = logging.getLogger(LOG)
    try:
        if not os.environ.get("DRIFTLINE_RUN"):
            log.info("driftline: inert, because DRIFTLINE_RUN names no run")
            return
        from engine.plugin import joining

        joining.install()
    except Exception as error:  # an engine must not fall over its console
        log.warning("driftline: inert, because of %s: %s", type(error).__name__, error, exc_info=True)
