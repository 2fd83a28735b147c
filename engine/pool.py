"""The pool: what a trainer holds to get rollouts, push weights and switch fixes on N engines at once.

One background thread awaits every Ray call; the trainer's thread only hands over and takes, and never waits for a
single engine longer than it said.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from driftline import fixes as fix_catalogue
from driftline.config import EngineConfig, SamplingConfig
from driftline.frames import EngineFix
from driftline.keys import Keys
from driftline.rundir import Connection
from engine.calls import LoopThread, ask, unwrap
from engine.cluster import Cluster
from engine.fixes import refusal, wanted_at_start
from engine.launch import EngineSpec, check_model, log_file
from engine.stats import pool_stats
from engine.types import (
    EngineError,
    EngineInfo,
    EngineSample,
    Group,
    PauseReport,
    PoolStats,
    RolloutRequest,
    SyncReport,
)
from engine.weights import publish, sweep

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

CONTROL_S: Final = 30.0
"""Longest wait, in seconds, for an engine to answer a control call other than a sync."""
STATS_S: Final = 2.0
CLOSE_S: Final = 10.0
PROGRESS_S: Final = 5.0
PENDING_CALLS: Final = 100_000
"""Calls one actor takes at once: far above any number of groups in flight, so that control calls never queue."""


@dataclass
class _Member:
    """One engine as the pool sees it. `base` is the sample that the last `stats` call ended with."""

    name: str
    actor: Any
    load: int = 0
    info: EngineInfo | None = None
    base: EngineSample | None = None
    dead: bool = False


class EnginePool:
    """N engines. Every method raises EngineError with a sentence that names the engine."""

    def __init__(
        self,
        config: EngineConfig,
        sampling: SamplingConfig,
        *,
        model: Path,
        dtype: str,
        fixes: dict[str, str],
        connection: Connection | None,
        keys: Keys | None,
        log_dir: Path,
        on_progress: Callable[[str], None],
    ) -> None:
        self._config = config
        self._sampling = sampling
        self._model = Path(model).resolve()
        self._dtype = dtype
        self._fixes = dict(fixes)
        self._connection = connection
        self._keys = keys
        self._log_dir = Path(log_dir).resolve()
        self._say = on_progress
        self._cluster = Cluster()
        self._loop = LoopThread("engine-pool")
        self._members: list[_Member] = []
        self._changed = threading.Condition()
        self._groups: deque[Group] = deque()
        self._in_flight = 0
        self._failure: EngineError | None = None
        self._closed = False

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start Ray and all engines side by side, and wait for them. On any failure everything started is ended.

        Call it from the thread that will outlive the pool (see Cluster.start), as a rule the main one.
        """
        if self._closed or self._loop.running:
            raise EngineError("an engine pool starts once")
        atexit.register(self.close)
        try:
            check_model(self._model)
            for fix_id, value in self._fixes.items():
                _check_fix(fix_id, value)
            self._log_dir.mkdir(parents=True, exist_ok=True)
            sweep()
            self._say("starting Ray")
            self._cluster.start(self._config)
            self._loop.start()
            self._start_engines()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every engine, vLLM's processes and Ray; leaves none behind. Idempotent, also from a signal handler."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        with self._changed:
            self._failure = self._failure or EngineError("the engine pool is closed")
            self._changed.notify_all()
        self._cluster.hold()
        if self._loop.running:
            try:
                self._loop.wait(self._end_engines(), CLOSE_S + 5.0)
            except EngineError as error:
                self._say(f"engines did not end by themselves ({error}); killing them")
            self._loop.stop()
        self._cluster.stop()

    @property
    def names(self) -> list[str]:
        """Names of the engines, in order."""
        return [f"engine-{index}" for index in range(self._config.count)]

    @property
    def infos(self) -> list[EngineInfo]:
        """What each started engine is and where it runs."""
        return [member.info for member in self._members if member.info is not None]

    # -- rollouts -----------------------------------------------------------------------------------------------

    def submit(self, request: RolloutRequest) -> None:
        """Hand a request to the engine with the fewest sequences in flight. Does not wait."""
        length, limit = len(request.prompt_ids), self._config.max_model_len
        if request.n < 1 or not 0 < length < limit:
            raise EngineError(
                f"group {request.group}: {request.n} samples of a prompt of {length} tokens; allowed: at least 1 "
                f"sample, 1 to {limit - 1} tokens (engine.max_model_len = {limit})"
            )
        self._check_alive()
        with self._changed:
            member = min(self._members, key=lambda member: member.load)
            member.load += request.n
            self._in_flight += 1
        self._loop.schedule(self._roll(member, request))

    def take(self, timeout: float) -> list[Group]:
        """Groups completed since the last call; waits for the first one, up to `timeout` seconds.

        Raises EngineError as soon as an engine is dead: its groups in flight are lost.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._groups or self._failure, timeout)
            self._raise_failure()
            groups = list(self._groups)
            self._groups.clear()
            return groups

    @property
    def in_flight(self) -> int:
        """Groups submitted and not yet completed."""
        return self._in_flight

    # -- steering -----------------------------------------------------------------------------------------------

    def sync(self, weights: Mapping[str, torch.Tensor], version: int, *, timeout: float = 120.0) -> list[SyncReport]:
        """Give every engine these weights (Hugging Face names): pause, load, resume, side by side.

        Requests in flight are kept and go on with the new weights. A report with `ok` false is an engine that has
        kept its old version or stays paused; a dead or silent engine raises.
        """
        self._check_alive()
        far = [info.engine for info in self.infos if not self._cluster.same_machine(info.node)]
        if far:
            raise EngineError(f"{far[0]} is on another machine: weights travel by shared memory, on one machine only")
        with publish(weights) as manifest:
            return self._all(lambda actor: actor.sync.remote(manifest, version), "sync", timeout)

    def pause(self) -> list[PauseReport]:
        """Hold every sequence where it is. A sync meanwhile leaves the engines paused."""
        return self._all(lambda actor: actor.pause.remote(), "pause")

    def resume(self) -> list[PauseReport]:
        """Let held sequences go on."""
        return self._all(lambda actor: actor.resume.remote(), "resume")

    def set_fix(self, fix_id: str, value: str) -> list[EngineFix]:
        """Switch a fix on every engine, live, or on none; returns the states read back.

        Raises EngineError where it is not available, or when an engine fails: the others are then set back.
        """
        _check_fix(fix_id, value)
        before = self.fix_states(fix_id)[fix_id]
        for state in before:
            if sentence := refusal(state, fix_id, value):
                raise EngineError(sentence)
        results = self._gather(lambda actor: actor.set_fix.remote(fix_id, value), CONTROL_S)
        good = [result for result in results if isinstance(result, EngineFix) and result.effective == value]
        if len(good) == len(results):
            return good
        wrong = next(result for result in results if result not in good)
        if isinstance(wrong, EngineFix):
            wrong = f"{wrong.engine}: it reads back '{wrong.effective}'"
        raise EngineError(f"{fix_id} was not switched {value}: {wrong}; {self._undo(fix_id, before)}")

    def fix_states(self, fix_id: str | None = None) -> dict[str, list[EngineFix]]:
        """Every fix of the catalogue (or the one named), per engine, read back from the engines now."""
        states = self._all(lambda actor: actor.fix_states.remote(), "reading fixes back")
        wanted = fix_catalogue.BY_ID if fix_id is None else (fix_id,)
        return {name: [state[name] for state in states] for name in wanted}

    def stats(self) -> PoolStats:
        """Load and rates since the previous call. A slow or dead engine is shown as it last was."""
        results = self._gather(lambda actor: actor.sample.remote(), STATS_S)
        befores, afters = [], []
        for member, result in zip(self._members, results, strict=True):
            after = member.base if isinstance(result, EngineError) else result
            if after is None:
                continue
            befores.append(member.base or after)
            afters.append(after)
            member.base = after
        return pool_stats(befores, afters)

    # -- on the loop's thread -----------------------------------------------------------------------------------

    async def _roll(self, member: _Member, request: RolloutRequest) -> None:
        group = await self._ask(member, lambda actor: actor.generate.remote(request))
        with self._changed:
            member.load -= request.n
            self._in_flight -= 1
            if isinstance(group, EngineError):
                self._failure = self._failure or group
            else:
                self._groups.append(_writable(group))
            self._changed.notify_all()

    async def _watch(self, member: _Member) -> None:
        """Hold a call open that ends only when the engine does, so that its death is known without traffic."""
        result = await self._ask(member, lambda actor: actor.watch.remote())
        with self._changed:
            member.dead = True
            if isinstance(result, EngineError):
                self._failure = self._failure or result
            self._changed.notify_all()

    async def _ask(self, member: _Member, call: Callable[[Any], Awaitable[T]]) -> T | EngineError:
        return await ask(member.name, lambda: call(member.actor), log_file(self._log_dir, member.name))

    async def _ask_all(self, call: Callable[[Any], Awaitable[T]], timeout: float) -> list[T | EngineError]:
        async def one(member: _Member) -> T | EngineError:
            try:
                return await asyncio.wait_for(self._ask(member, call), timeout)
            except TimeoutError:
                return EngineError(f"{member.name}: no answer within {timeout:g} s")

        return await asyncio.gather(*(one(member) for member in self._members))

    async def _end_engines(self) -> None:
        import ray

        # An engine that is still loading answers nothing; killing it is all that can be done, and is enough.
        ready = [member for member in self._members if member.info is not None and not member.dead]
        asks = [asyncio.wait_for(self._ask(member, lambda actor: actor.close.remote()), CLOSE_S) for member in ready]
        await asyncio.gather(*asks, return_exceptions=True)
        for member in self._members:
            ray.kill(member.actor, no_restart=True)

    # -- between the threads ------------------------------------------------------------------------------------

    def _start_engines(self) -> None:
        import ray

        from engine.actor import EngineActor

        remote = ray.remote(EngineActor).options(
            num_cpus=self._config.cpus, num_gpus=self._config.gpus, max_restarts=0, max_task_retries=0,
            max_concurrency=PENDING_CALLS,
        )  # fmt: skip
        for index, name in enumerate(self.names):
            spec = EngineSpec(
                name=name, index=index, config=self._config, sampling=self._sampling, model=str(self._model),
                dtype=self._dtype, fixes=wanted_at_start(self._fixes), log=str(log_file(self._log_dir, name)),
                connection=self._connection, keys=self._keys,
            )  # fmt: skip
            self._members.append(_Member(name, remote.remote(spec)))
        deadline = time.monotonic() + self._config.start_timeout
        for place in self._start_all(lambda actor: actor.place.remote(), "starting its process", deadline):
            if self._cluster.same_machine(place.node):
                self._cluster.hold(place.pid)
        infos = self._start_all(lambda actor: actor.start.remote(), "loading vLLM and the model", deadline)
        for member, info in zip(self._members, infos, strict=True):
            member.info = info
            self._say(f"{info.engine}: vLLM {info.vllm} on {info.backend}, ready in {info.loaded_s:.0f} s")
            self._loop.schedule(self._watch(member))
        self._cluster.hold()
        self.stats()

    def _start_all(self, call: Callable[[Any], Awaitable[T]], what: str, deadline: float) -> list[T]:
        began = time.monotonic()
        future = self._loop.schedule(self._ask_all(call, max(1.0, deadline - began)))
        said = -PROGRESS_S
        while not future.done():
            if (elapsed := time.monotonic() - began) - said >= PROGRESS_S:
                said = elapsed
                for name in self.names:
                    self._say(f"{name}: {what} ({elapsed:.0f} s)")
            # A short wait, so that Ctrl-C is heard.
            with suppress(TimeoutError):
                future.result(0.2)
        return unwrap(future.result())

    def _all(self, call: Callable[[Any], Awaitable[T]], what: str, timeout: float = CONTROL_S) -> list[T]:
        self._check_alive()
        try:
            return unwrap(self._gather(call, timeout))
        except EngineError as error:
            raise EngineError(f"{what}: {error}") from error

    def _gather(self, call: Callable[[Any], Awaitable[T]], timeout: float) -> list[T | EngineError]:
        return self._loop.wait(self._ask_all(call, timeout), timeout + 5.0)

    def _undo(self, fix_id: str, before: list[EngineFix]) -> str:
        values = {state.engine: state.effective for state in before}

        async def back(member: _Member) -> EngineFix | EngineError:
            return await self._ask(member, lambda actor: actor.set_fix.remote(fix_id, values[member.name]))

        async def everyone() -> list[EngineFix | EngineError]:
            return await asyncio.gather(*(back(member) for member in self._members))

        try:
            results = self._loop.wait(everyone(), CONTROL_S)
        except EngineError as error:
            return f"setting the other engines back failed: {error}"
        wrong = [member.name for member, r in zip(self._members, results, strict=True) if isinstance(r, EngineError)]
        return f"{', '.join(wrong)} could not be set back" if wrong else "every engine is as it was"

    def _check_alive(self) -> None:
        if not self._loop.running and not self._closed:
            raise EngineError("the engine pool is not started")
        with self._changed:
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise EngineError(str(self._failure)) from self._failure


def _writable(group: Group) -> Group:
    """Ray hands arrays over read-only, which torch warns about; these small ones are worth a copy."""
    sequences = [
        replace(s, ids=s.ids.copy(), logprobs=s.logprobs.copy(), versions=s.versions.copy()) for s in group.sequences
    ]
    return replace(group, sequences=sequences)


def _check_fix(fix_id: str, value: str) -> None:
    try:
        fix_catalogue.check(fix_id, value)
    except fix_catalogue.UnknownFixError as error:
        raise EngineError(str(error)) from error
