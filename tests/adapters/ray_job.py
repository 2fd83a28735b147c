"""A job of Ray's as verl and OpenRLHF start theirs: does an actor that holds the training loop reach the hooks?"""

from __future__ import annotations

import importlib
import sys

import ray

from tests.adapters.gpu_parts import stand_in


@ray.remote(num_cpus=0)
class TaskRunner:
    """The process of the training loop. It knows nothing of driftline."""

    def wrapped(self, module: str, path: str) -> bool:
        """Whether the framework's function, imported here, is the adapter's wrapper."""
        stand_in()
        owner, name = path.split(".")
        function = getattr(getattr(importlib.import_module(module), owner), name)
        return hasattr(function, "_driftline_wraps") and "driftline.adapters.framework" in sys.modules


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, runtime_env={"env_vars": {"NCCL_DEBUG": "WARN"}})
    runner = TaskRunner.remote()  # type: ignore[attr-defined]
    print("wrapped:", ray.get(runner.wrapped.remote(*sys.argv[1:])), flush=True)
    ray.shutdown()
