"""Installing the plugin in a process that has a run to join, and joining once there is an engine core to speak for."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from engine.plugin import versions, worker
from engine.plugin.log import LOG

LOOK_S: Final = 1.0
LOOK_LIMIT_S: Final = 3600.0

log = logging.getLogger(LOG)
_looking = threading.Event()


def install() -> None:
    """Get ready in this process, whichever of vLLM's it is. Any number of calls is as one."""
    why = versions.untested(versions.installed())
    if why:
        log.warning("driftline: %s", why)
        if not _looking.is_set():
            _looking.set()
            threading.Thread(target=_look_for_core, args=(why,), name="driftline-look", daemon=True).start()
        return
    versions.hook_workers(dict(worker.METHODS), _lacking)
    versions.hook_cores(serve, _lacking)


def serve(core: Any) -> Callable[[str], None]:
    """Join the run with this core; returns what is to be called when it ends. Raises nothing."""
    return join(core, "")


def join(core: Any, reports_only: str) -> Callable[[str], None]:
    """As `serve`; `reports_only` is why nothing of vLLM's may be touched, "" where it may."""
    try:
        # The probe and its sockets are loaded only here: most of vLLM's processes never come this far.
        from driftline.rundir import RunError
        from engine.plugin import framework
        from engine.plugin.core import CoreHandle
        from engine.plugin.environment import NameClaim, membership
        from engine.plugin.member import Member

        try:
            to = membership(os.environ)
        except RunError as error:
            log.warning("driftline: inert: %s", error)
            return _nothing
        claim = NameClaim(to)
        handle = CoreHandle(core, hooked=not reports_only)
        member = Member(to, claim, handle, reports_only, framework=framework.found(core))
        member.start()
        log.info("driftline: this engine joins run %s as '%s'", to.id, member.name)
        return _quietly(member.close)
    except Exception as error:  # an engine must not fall over its console
        log.warning("driftline: inert, because of %s: %s", type(error).__name__, error, exc_info=True)
        return _nothing


def _look_for_core(why: str) -> None:
    """On a version that is not known: find a core by looking, and report of it."""
    ends = time.monotonic() + LOOK_LIMIT_S
    while time.monotonic() < ends:
        core = versions.core_of_this_process()
        if core is not None:
            join(core, why)
            return
        time.sleep(LOOK_S)


def _quietly(close: Callable[[str], None]) -> Callable[[str], None]:
    def closed(why: str) -> None:
        try:
            close(why)
        except Exception as error:  # noqa: BLE001  the engine is ending, and that matters more
            log.debug("driftline: at the end: %s: %s", type(error).__name__, error)

    return closed


def _lacking(what: str) -> None:
    log.warning("driftline: inert, because %s", what)


def _nothing(_: str) -> None:
    """There is nothing to end."""
