"""Attaching an adapter in the workers of a Ray job, where a framework has no way of its own to import one there.

Ray calls a function named in $RAY_RUNTIME_ENV_HOOK on a job's runtime environment, and a function named in that
environment as `worker_process_setup_hook` in each worker as it starts. Both are Ray's documented ways.
"""

from __future__ import annotations

import logging
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from driftline.membership import KEY_VARIABLE, LEASE_VARIABLE
from driftline.rundir import RUN_VARIABLE

HOOK_VARIABLE: Final = "RAY_RUNTIME_ENV_HOOK"
ATTACH_VARIABLE: Final = "DRIFTLINE_RAY_ATTACH"
SETUP: Final = "worker_process_setup_hook"
OWN: Final = "driftline.adapters.ray_workers.with_attach"
CARRIED: Final = (RUN_VARIABLE, KEY_VARIABLE, LEASE_VARIABLE)

log = logging.getLogger("driftline.adapters")


def attach_in_workers(function: str) -> bool:
    """Have Ray call a function ("package.module.function") in each worker of the jobs that this process starts.

    Before `ray.init`. Returns False with a line in the log where another hook of the same kind is set.
    """
    other = os.environ.get(HOOK_VARIABLE)
    if other and other != OWN:
        log.warning("driftline: Ray's workers are not attached: %s is %s already", HOOK_VARIABLE, other)
        return False
    os.environ[HOOK_VARIABLE], os.environ[ATTACH_VARIABLE] = OWN, function
    return True


def with_attach(runtime_env: Mapping[str, Any] | None) -> dict[str, Any]:
    """A job's runtime environment with the function to call in its workers, and the run's variables. For Ray."""
    given = dict(runtime_env or {})
    function = os.environ.get(ATTACH_VARIABLE, "")
    if not function:
        return given
    if given.get(SETUP):
        log.warning("driftline: Ray's workers are not attached: the job has a %s of its own", SETUP)
        return given
    carried = {name: value for name in CARRIED if (value := os.environ.get(name))}
    return {**given, SETUP: function, "env_vars": {**carried, **given.get("env_vars", {})}}


def run_module(arguments: Sequence[str], usage: str) -> None:
    """Run a module as `python -m` would: `-m MODULE ARGUMENTS...`. Raises SystemExit for other arguments."""
    if len(arguments) < 2 or arguments[0] != "-m":
        print(f"usage: {usage}", file=sys.stderr)
        raise SystemExit(2)
    sys.argv = list(arguments[1:])
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
