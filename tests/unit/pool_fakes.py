"""Scripted actor handles for the pool's bookkeeping. They are no engines: they sample nothing and load nothing."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from driftline.catalog.fixes import BY_ID
from driftline.config import EngineConfig, SamplingConfig, ShadowConfig
from driftline.frames import EngineFix, EngineState, How
from engine.actor.launch import EngineSpec
from engine.pool.members import Member
from engine.pool.pool import EnginePool
from engine.pool.spawn import Spawner
from engine.types import (
    EngineError,
    EngineInfo,
    EngineSample,
    Group,
    PauseReport,
    ProcessLocation,
    RolloutRequest,
    ScoreRequest,
    Scores,
    Sequence,
    SyncReport,
)
from engine.weights.transport import SharedMemory

LIMIT_S = 30.0
METHODS = (
    "location", "start", "watch", "sample", "close", "generate", "pause", "resume", "sync", "release", "set_fix",
    "fix_states", "drain", "score",
)  # fmt: skip
HOW: Final[dict[str, How]] = {
    "async-scheduling-off": "engine_restart",
    "inflight-keep": "next_sync",
    "fp32-lm-head": "next_sync",
}


class Remote:
    """Gives a coroutine method the `.remote(...)` that the pool calls; it ends like Ray's when its actor dies."""

    def __init__(self, actor: Scripted, name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *args: Any, **named: Any) -> Awaitable[Any]:
        return self._run(*args, **named)

    async def _run(self, *args: Any, **named: Any) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._actor, f"do_{self._name}")
        call = asyncio.ensure_future(method(*args, **named))
        death = asyncio.ensure_future(self._actor.dead.wait())
        try:
            await asyncio.wait((call, death), return_when=asyncio.FIRST_COMPLETED)
        finally:
            death.cancel()
        if self._actor.dead.is_set():
            call.cancel()
            # Not at the top: Ray reads its environment when it is imported, which is for the pool to do.
            from ray.exceptions import RayActorError

            raise RayActorError
        result = call.result()
        if isinstance(result, EngineError):
            raise _task_error(result)
        return result


def _task_error(cause: EngineError) -> Exception:
    from ray.exceptions import RayTaskError

    error: Exception = RayTaskError("actor", "", cause)
    return error


class Scripted:
    """One handle. Attributes script it; `calls` records what was asked of it."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec, self.name = spec, spec.name
        self.values = dict(spec.fixes)
        self.version = spec.version
        self.paused = self.held = False
        self.calls: list[str] = []
        self.served: list[int] = []
        self.dead = asyncio.Event()
        self.loaded = asyncio.Event()
        self.loaded.set()
        self.answers = asyncio.Event()
        self.answers.set()
        self.refuse_start = ""
        self.refuse_fix: tuple[str, ...] = ()
        self.lie_fix = ""
        self.bad_loads = 0
        self.scores = 0.0
        self.scored: list[int] = []
        self.scoring = asyncio.Event()
        self.scoring.set()
        self.abort = 0
        self.sync_takes = asyncio.Event()
        self.sync_takes.set()
        self.turn = asyncio.Lock()  # control calls exclude each other, as an engine's do
        for method in METHODS:
            setattr(self, method, Remote(self, method))

    async def do_location(self) -> ProcessLocation:
        return ProcessLocation(pid=0, node="not this machine")  # so that no process is held for it

    async def do_start(self) -> EngineInfo | EngineError:
        await self.loaded.wait()
        if self.refuse_start:
            return EngineError(f"{self.name}: {self.refuse_start}")
        return EngineInfo(self.name, 0, socket.gethostname(), "cpu", "0", async_scheduling=True, loaded_s=0.0)

    async def do_watch(self) -> None:
        await self.dead.wait()

    async def do_sample(self) -> EngineSample:
        phase: Literal["paused", "running"] = "paused" if self.paused else "running"
        return EngineSample(EngineState(self.name, phase, self.version, time.time(), running=3), 0, 0, 0)

    async def do_close(self) -> None:
        self.calls.append("close")

    async def do_generate(self, request: RolloutRequest) -> Group:
        await self.answers.wait()
        self.served.append(request.group)
        finish: Literal["length", "abort"] = "length"
        if self.abort:
            self.abort -= 1
            finish = "abort"
        one = Sequence(
            np.zeros(1, np.int32), np.zeros(1, np.float32), np.full(1, self.version, np.int32), np.zeros(1, np.int32),
            finish,
        )  # fmt: skip
        return Group(request.group, self.name, request.prompt_ids, [one] * request.n, 0.0, 0.0)

    async def do_pause(self, lease_until: float = 0.0) -> PauseReport:
        async with self.turn:
            self.calls.append(f"pause {lease_until:.0f}")
            changed, self.paused = not self.paused, True
            return PauseReport(self.name, True, changed, 0.0, 0)

    async def do_resume(self) -> PauseReport:
        async with self.turn:
            self.calls.append("resume")
            changed, self.paused = self.paused, False
            return PauseReport(self.name, False, changed, 0.0, 0)

    async def do_release(self) -> PauseReport:
        self.calls.append("release")
        changed, self.held = self.held, False
        return PauseReport(self.name, self.paused, changed, 0.0, 0)

    async def do_sync(
        self, update: dict[str, Any], version: int, expected: str, *, resume: bool = True, fixes: dict[str, str]
    ) -> SyncReport:
        async with self.turn:
            self.calls.append(f"sync {version}")
            await self.sync_takes.wait()
            return self._synced(update, version, expected, resume=resume, fixes=fixes)

    def _synced(
        self, update: dict[str, Any], version: int, expected: str, *, resume: bool, fixes: dict[str, str]
    ) -> SyncReport:
        before, ok = self.version, not self.bad_loads
        if ok:
            self.version, self.held = version, not resume
            self.values |= fixes
        else:
            self.bad_loads -= 1
        return SyncReport(
            self.name, ok, before, self.version, 0.0, 0.0, 0.0, 0.0, 0.0, update["size"], 0,
            detail="" if ok else "bad load", digest=expected if ok else "", fixes=tuple(self.fixes().values()),
        )  # fmt: skip

    async def do_set_fix(self, fix_id: str, value: str) -> EngineFix | EngineError:
        self.calls.append(f"set_fix {fix_id} {value}")
        if value in self.refuse_fix:
            return EngineError(f"{self.name}: refused")
        if not self.lie_fix:
            self.values[fix_id] = value
        return self.fixes()[fix_id]

    async def do_fix_states(self) -> dict[str, EngineFix]:
        async with self.turn:  # an engine's worker does not answer while it loads
            return self.fixes()

    async def do_score(self, request: ScoreRequest) -> Scores | EngineError:
        await self.scoring.wait()
        self.scored.append(request.group)
        value = self.scores if request.version == self.version else np.nan
        return Scores(self.name, [np.full(len(one), value, np.float32) for one in request.positions], 0.0)

    async def do_drain(self) -> int:
        return 0

    def fixes(self) -> dict[str, EngineFix]:
        return {fix: EngineFix(self.name, self.values[fix], HOW.get(fix, "live")) for fix in BY_ID}


class ScriptedSpawner(Spawner):
    """Spawns scripted handles. `script` sees each before it is asked anything; `made` keeps them by name, in order."""

    script: Callable[[Scripted], None] = staticmethod(lambda _: None)
    made: dict[str, list[Scripted]]

    def _actor(self, spec: EngineSpec) -> Scripted:
        actor = Scripted(spec)
        self.script(actor)
        self.made.setdefault(spec.name, []).append(actor)
        return actor

    def _kill(self, member: Member) -> None:
        self._members.discard(member)
        member.actor.dead.set()


class ScriptedPool:
    """A pool with its real thread, queues, checks and parts over scripted handles, without Ray."""

    def __init__(
        self,
        folder: Path,
        count: int,
        script: Callable[[Scripted], None] | None = None,
        shadow: ShadowConfig | None = None,
        **config: Any,
    ) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.changed = threading.Condition()
        self.pool = EnginePool(
            EngineConfig(count=count, **config), SamplingConfig(), model=folder, dtype="float32",
            fixes={"processed-logprobs": "off"}, connection=None, keys=None, log_dir=folder,
            on_progress=lambda _: None, on_event=self._event, shadow=shadow,
        )  # fmt: skip
        pool, transport = self.pool, SharedMemory()
        spec = EngineSpec("", 0, pool._config, pool._sampling, str(folder), "float32", {}, "")
        self.spawner = ScriptedSpawner(pool._fleet, pool._cluster, transport, spec, folder)
        self.spawner.made = {}
        if script is not None:
            self.spawner.script = script
        pool._assemble(transport, self.spawner)
        try:
            pool._start_engines()
        except BaseException:
            pool.close()
            raise

    def _event(self, kind: str, text: str, level: str, data: dict[str, Any]) -> None:
        with self.changed:
            self.events.append((kind, data | {"text": text, "level": level}))
            self.changed.notify_all()

    def actor(self, name: str) -> Scripted:
        """The newest handle of a name."""
        return self.spawner.made[name][-1]

    def actors(self, name: str) -> list[Scripted]:
        return self.spawner.made[name]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Events of a kind, also those that the pool's thread is just about to report."""
        with suppress(EngineError):  # closed: all has been reported
            self.run(lambda: None)
        return [data for name, data in self.events if name == kind]

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something that the pool's thread brings about."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"the condition did not come about; events: {self.events}"
            with self.changed:
                self.changed.wait(0.01)

    def run(self, call: Callable[[], object]) -> None:
        """Do something to the handles on the pool's thread."""

        async def work() -> None:
            call()

        self.pool._loop.wait(work(), LIMIT_S)

    def groups(self, count: int) -> dict[int, str]:
        """Take so many groups; returns which engine served each, and checks that each came once."""
        found: dict[int, str] = {}
        while len(found) < count:
            batch = self.pool.take(LIMIT_S)
            assert batch, f"{len(found)} of {count} groups came"
            for group in batch:
                assert group.group not in found
                found[group.group] = group.engine
        return found
