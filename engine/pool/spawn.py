"""Actors of engines: started, brought up until vLLM has loaded, and ended with every process that came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from driftline.keys import Keys
from engine.actor.launch import EngineSpec, log_file
from engine.cluster.ray_calls import GoneError
from engine.cluster.ray_cluster import Cluster
from engine.pool.interpreters import OwnSpec, runtime_options
from engine.pool.members import Fleet, Member
from engine.types import EngineError, EngineInfo
from engine.weights.transport import Transport

T = TypeVar("T")

CLOSE_S: Final = 10.0
"""Longest wait, in seconds, for an engine to end by itself."""
TRACK_S: Final = 5.0
"""While an engine loads, its new processes are noted so often: vLLM starts some, and they must end with the actor."""
PENDING_CALLS: Final = 100_000
"""Calls one actor takes at once: far above any number of groups in flight, so that control calls never queue."""


class Spawner:
    """`template` is the spec of every engine but for its name, its key (of `keys`, by name), sampler seed, log, fixes
    and version, and for what `own` says of it."""

    def __init__(
        self,
        fleet: Fleet,
        cluster: Cluster,
        transport: Transport,
        template: EngineSpec,
        log_dir: Path,
        keys: Mapping[str, Keys] | None = None,
        own: Mapping[str, OwnSpec] | None = None,
    ) -> None:
        self._fleet = fleet
        self._cluster = cluster
        self._transport = transport
        self._template = template
        self._keys = keys or {}
        self._own = own or {}
        self._log_dir = log_dir
        self._starts = 0
        self._starts_of: dict[str, int] = {}
        self._members: set[Member] = set()
        self._closed = False

    def spawn(self, name: str) -> Member:
        """A new actor under a name, with the fixes wanted of it now; Ray starts it in the background."""
        if self._closed:
            raise EngineError("the engine pool is closed")
        count = self._starts_of[name] = self._starts_of.get(name, 0) + 1
        log = log_file(self._log_dir, name if count == 1 else f"{name}-{count}")
        newest = self._fleet.newest
        spec = replace(
            self._template, name=name, index=self._starts, fixes=self._fleet.wanted_of(name), log=str(log),
            keys=self._keys.get(name), version=newest.version if newest else 0,
        )  # fmt: skip
        if (own := self._own.get(name)) is not None:
            spec = replace(spec, config=own.config, dtype=own.dtype, environment=own.environment)
        self._starts += 1
        member = Member(name, self._actor(spec), log)
        self._members.add(member)
        return member

    async def bring_up(self, member: Member, timeout: float) -> None:
        """Wait until vLLM has loaded and the fixes are read back. Raises EngineError; the caller then ends the member.

        Its processes are held by the cluster from the first moment at which they are known.
        """
        try:
            async with asyncio.timeout(timeout):
                member.stage = "starting its process"
                location = await self._call(member, lambda actor: actor.location.remote())
                if self._cluster.same_machine(location.node):
                    member.pid = location.pid
                    await asyncio.to_thread(self._cluster.track_process, location.pid)
                member.stage = "loading vLLM and the model"
                noting = asyncio.create_task(self._track_processes())
                try:
                    info = member.info = await self._start(member)
                finally:
                    noting.cancel()
                await asyncio.to_thread(self._cluster.track_process)
                member.stage = "joining the weight transport"
                await self._join(member, info)
                member.states = await self._call(member, lambda actor: actor.fix_states.remote())
        except TimeoutError as error:
            raise GoneError(f"{member.name}: not up within {timeout:g} s ({member.stage}); see {member.log}") from error

    async def end(self, member: Member, *, gracefully: bool) -> None:
        """End an actor and its processes; `gracefully` lets it close vLLM and its telemetry first."""
        self._transport.leave(member.name)
        if gracefully:
            await self._fleet.ask(member, lambda actor: actor.close.remote(), CLOSE_S, fatal=False)
        self._kill(member)
        if member.pid is not None:
            await asyncio.to_thread(self._cluster.end_process, member.pid)

    async def end_all(self) -> None:
        """End every actor that was ever spawned and not ended yet; their processes are left to the cluster."""
        self._closed = True
        # An engine that is still loading answers nothing; killing it is all that can be done, and is enough.
        ready = [member for member in self._members if member.info is not None and member.status != "dead"]
        close = [self._fleet.ask(member, lambda actor: actor.close.remote(), CLOSE_S, fatal=False) for member in ready]
        await asyncio.gather(*close)
        for member in list(self._members):
            self._kill(member)

    def abandon(self) -> None:
        """Ray has died: start no actor any more, and leave those that there are to the cluster."""
        self._closed = True
        self._members.clear()

    def _actor(self, spec: EngineSpec) -> Any:
        import ray

        from engine.actor.actor import EngineActor

        # On several nodes engines go where there is room, evenly; on one it makes no difference.
        remote = ray.remote(EngineActor).options(
            num_cpus=spec.config.cpus, num_gpus=spec.config.gpus, max_restarts=0, max_task_retries=0,
            max_concurrency=PENDING_CALLS, scheduling_strategy="SPREAD",
            **runtime_options(spec.environment, self._log_dir),
        )  # fmt: skip
        return remote.remote(spec)

    def _kill(self, member: Member) -> None:
        import ray

        if self._cluster.lost:
            return  # it would wait for Ray's processes; the cluster ends the actor's
        self._members.discard(member)
        ray.kill(member.actor, no_restart=True)

    async def _call(self, member: Member, call: Callable[[Any], Awaitable[T]]) -> T:
        result = await self._fleet.ask(member, call)
        if isinstance(result, EngineError):
            raise result
        return result

    async def _start(self, member: Member) -> EngineInfo:
        return await self._call(member, lambda actor: actor.start.remote())

    async def _track_processes(self) -> None:
        while True:
            await asyncio.sleep(TRACK_S)
            await asyncio.to_thread(self._cluster.track_process)

    async def _join(self, member: Member, info: EngineInfo) -> None:
        try:
            await asyncio.to_thread(self._transport.join, info, self._init_call(member))
        except EngineError:
            raise
        except Exception as error:  # whatever CUDA or NCCL raises, this engine cannot be given weights
            raise EngineError(f"{member.name}: no weight transport: {type(error).__name__}: {error}") from error
        if sentence := self._transport.unreachable(info):
            raise EngineError(sentence)

    def _init_call(self, member: Member) -> Callable[[dict[str, Any]], None]:
        """`init` of `Transport.join`: blocks the thread that it is called on, never the pool's own."""
        loop = asyncio.get_running_loop()

        def init(settings: dict[str, Any]) -> None:
            call = self._call(member, lambda actor: actor.init_transfer.remote(settings))
            asyncio.run_coroutine_threadsafe(call, loop).result()

        return init
