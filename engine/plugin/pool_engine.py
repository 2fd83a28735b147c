"""The plugin in the processes of an engine of our own pool: the workers' methods, and our ways for weights to travel.

Such an engine reports through its actor, which knows more of it than the core does; so the core is left alone.
"""

from __future__ import annotations

import gc
import logging

from driftline.after_import import after_import
from engine.plugin import own_head, versions, worker
from engine.plugin.log import LOG
from engine.weights.transport import TRANSFER_ENGINES

log = logging.getLogger(LOG)


def install() -> None:
    """Get ready in this process, whichever of vLLM's it is. Any number of calls is as one."""
    versions.hook_workers(dict(worker.METHODS), _lacking)
    versions.hook_transfer_engines(TRANSFER_ENGINES, _lacking)
    after_import("vllm.model_executor.layers.logits_processor", own_head.install)
    # vLLM collects garbage several times while it loads a model. All that its imports have left (a million objects) is
    # looked through each time, and stays anyway: a fifth of a core's start. vLLM itself freezes it, but once it is up.
    gc.freeze()
    gc.enable()  # off while vLLM is imported: `engine.actor.starting`


def _lacking(what: str) -> None:
    log.error("driftline: this engine's actor will not reach its workers, because %s", what)
