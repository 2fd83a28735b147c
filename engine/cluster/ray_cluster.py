"""Ray around the engines: joined or started here, and ended with every process that came of it."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
from collections.abc import Callable
from typing import Final

import psutil

from driftline.config import EngineConfig, engine_configs
from engine.cluster.guard import Guard
from engine.cluster.local_ray import unused_left_out
from engine.cluster.processes import ProcessGroup
from engine.cluster.watch import Watch
from engine.types import EngineError

ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    # Else Ray warns that a later version will show GPUs to actors that asked for none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
LOCAL: Final = {
    # Ray's switch for one-machine platforms; on Linux too it keeps every socket of a local Ray on the loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Ray's workers let every other process go first (15). These are engines: the trainer waits for their rollouts, an
    # operator for their answer, and on a busy machine both would wait for everything else.
    "RAY_worker_niceness": "0",
    # A worker for tasks of the driver's own, of which there are none: an import of Ray less at each start.
    "RAY_prestart_worker_first_driver": "0",
}

SHUTDOWN_S: Final = 30.0
"""Longest wait, in seconds, for Ray to end by itself. On a busy machine it takes a few; one of whose processes hangs or
dies meanwhile is waited for without a bound by Ray's own shutdown."""


class Cluster:
    """A Ray to put engines on: the one $RAY_ADDRESS names, else a local one without a dashboard."""

    def __init__(self) -> None:
        self.processes = ProcessGroup()
        self._actor_groups: dict[int, ProcessGroup] = {}
        # Actors come and go on the pool's threads while the trainer's closes, perhaps from a signal handler.
        self._lock = threading.RLock()
        self.local = not os.environ.get("RAY_ADDRESS")
        self._joined = False
        self._guard: Guard | None = None
        self._watch: Watch | None = None
        self.lost = ""
        """Why Ray cannot be spoken to any more; "" while it can."""

    def start(
        self,
        config: EngineConfig,
        on_lost: Callable[[str], None] = lambda _text: None,
        on_guard: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Join or start Ray. Raises EngineError when Ray does not start or has too little for the engines.

        `on_lost` is called, on another thread, with a sentence when a local Ray has lost one of its own processes;
        `on_guard` each time the guard has died and another one was started.

        Call it from a thread that lives as long as the engines do: Linux ends Ray's processes with the thread that
        started them.
        """
        # Ray reads these when it is imported.
        for name, value in (ENVIRONMENT | LOCAL if self.local else ENVIRONMENT).items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError as error:
            raise EngineError(f"Ray does not import: {error}; install driftline[cpu] or driftline[cuda]") from error
        if ray.is_initialized():
            raise EngineError("this process already uses Ray; an engine pool needs it for itself")
        self._guard = Guard()
        before = set(psutil.Process().children(recursive=True))
        self._joined = True
        try:
            if self.local:
                # A local Ray counts CPUs only to place actors; engines may share cores.
                cpus = max(os.cpu_count() or 1, math.ceil(sum(one.cpus for one in engine_configs(config))))
                with unused_left_out():
                    ray.init(
                        address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False,
                        logging_level=logging.ERROR, _node_ip_address="127.0.0.1",
                    )  # fmt: skip
            else:
                ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises everything from ValueError to its own; all mean that there is no Ray
            raise EngineError(f"Ray did not start: {type(error).__name__}: {error}") from error
        finally:
            for process in set(psutil.Process().children(recursive=True)) - before:
                self.processes.track(process.pid)
            self._guard.update(self.processes)

        def lost(text: str) -> None:
            self.lost = text
            on_lost(text)

        self._watch = Watch(self.processes.held, self._guard, lost, on_guard)
        self._check_room(config)

    def track_process(self, pid: int | None = None) -> None:
        """Take note of an actor's process (None: of what the known ones have started since), to end it in the end."""
        with self._lock:
            if pid is not None:
                self.processes.track(pid)
                self._actor_groups.setdefault(pid, ProcessGroup()).track(pid)
            for family in (self.processes, *self._actor_groups.values()):
                family.refresh()
            if self._guard is not None:
                self._guard.update(self.processes)

    def end_process(self, pid: int) -> list[int]:
        """Kill what is left of a held actor and of the processes it started; returns the pids."""
        with self._lock:
            family = self._actor_groups.pop(pid, None)
        return family.end(0.0) if family is not None else []

    def same_machine(self, node: str) -> bool:
        """Whether an actor's host name is this machine's."""
        return node == socket.gethostname()

    def stop(self, timeout: float = 10.0) -> list[int]:
        """Leave or end Ray, and every held process; returns the pids that had to be killed. Idempotent."""
        if self._watch is not None:
            self.lost = self._watch.close() or self.lost
            self._watch = None
        with self._lock:
            self.processes.refresh()
        if not self.lost and self._joined and not _shut_down():
            self.lost = f"Ray did not end by itself within {SHUTDOWN_S:g} s"
        self._joined = False
        if self.lost:
            # Ray's own shutdown would wait for the dead, for minutes; what is left of Ray is ended by its process ids.
            timeout = 0.0
        with self._lock:
            killed = self.processes.end(timeout)
            self._actor_groups.clear()
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        return killed

    def _check_room(self, config: EngineConfig) -> None:
        import ray

        there, engines = ray.cluster_resources(), engine_configs(config)
        for resource, key in (("CPU", "cpus"), ("GPU", "gpus")):
            each = [float(getattr(one, key)) for one in engines]
            if (needed := sum(each)) > there.get(resource, 0.0):
                alike = f"{each[0]:g}" if len(set(each)) == 1 else f"{min(each):g} to {max(each):g}"
                raise EngineError(
                    f"engine.count = {len(each)} with engine.{key} = {alike} needs {needed:g} {resource}s; "
                    f"this Ray has {there.get(resource, 0.0):g}"
                )


def _shut_down() -> bool:
    """Let Ray end itself; False where it had not after SHUTDOWN_S."""
    import ray

    thread = threading.Thread(target=ray.shutdown, name="ray-shutdown", daemon=True)
    thread.start()
    thread.join(SHUTDOWN_S)
    return not thread.is_alive()
