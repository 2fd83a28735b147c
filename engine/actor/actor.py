"""One engine: an async Ray actor hosting one vLLM (`engine.actor.host`). Driven by `engine.pool.pool` alone.

Rollouts and control calls share one event loop, so that a pause is never queued behind a generation. Control calls
exclude each other through one lock: each finds the engine as the one before left it, and waits for it.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from driftline import clocks
from driftline.frames import EngineFix, EngineState, Phase
from engine import fixes
from engine.actor import entry_point, epochs, launch, starting, v0, v1
from engine.actor.core import Core
from engine.actor.fix_switches import FixSwitches
from engine.actor.host import EngineDiedError, Host, RequestFailedError, Response, Sampling
from engine.actor.pause_reasons import PauseReasons
from engine.actor.scoring import Scoring
from engine.actor.stats import Counters, GpuMonitor, GpuReading, stat_logger, tokens_per_s
from engine.actor.weight_update import UpdateRequest, WeightUpdate
from engine.plugin import hosting, worker
from engine.types import (
    DeadCoreError,
    EngineError,
    EngineInfo,
    EngineSample,
    Finish,
    Group,
    HeldWeights,
    PauseReport,
    ProbeRequest,
    ProbeScores,
    ProcessLocation,
    RolloutRequest,
    ScoreRequest,
    Scores,
    Sequence,
    SyncReport,
    hit_rate,
)
from engine.weights.transport import Update

if TYPE_CHECKING:
    from driftline.producer.probe import Probe

HEARTBEAT_S: Final = 0.5
FINISHES: Final[dict[str, Finish]] = {"stop": "stop", "length": "length", "abort": "abort"}
"""vLLM's finish reasons that a sequence may end with."""


class EngineActor:
    """See the module. Every method that fails raises EngineError with a whole sentence."""

    def __init__(self, spec: launch.EngineSpec) -> None:
        self._spec = spec
        self._name = spec.name
        self._core: Core | None = None
        self._probe: Probe | None = None
        self._counters = Counters()
        self._lock = asyncio.Lock()
        self._phase: Phase = "starting"
        self._born = time.time()
        self._requests = 0
        self._aborted = 0
        self._epochs = epochs.Epochs(spec.version)
        self._pauses = PauseReasons()
        self._lease: asyncio.Task[None] | None = None
        self._stop_ids: list[int] = []
        self._info: EngineInfo | None = None
        self._gpus: GpuMonitor | None = None
        self._beat: asyncio.Task[None] | None = None

    async def location(self) -> ProcessLocation:
        """Which process this is; answers before vLLM is imported."""
        return ProcessLocation(pid=os.getpid(), node=socket.gethostname())

    async def start(self) -> EngineInfo:
        """Import vLLM, load the model, apply the wanted fixes. Blocks the actor while it does."""
        began = time.perf_counter()
        self._quiet_logs()
        os.environ.update(launch.environment(self._spec.config))
        os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would overrule engine.kv_cache_gb
        if (other := self._spec.environment) is not None:
            found = find_spec("vllm")
            os.environ.update(launch.own_cache(str(found and found.origin), os.environ) | dict(other.variables))
        entry_point.ensure(self._name)
        self._probe = self._open_probe()
        if self._probe is not None:
            self._probe.send((await self.sample()).state)  # the next one comes only once vLLM has loaded
        with starting.without_collections(), starting.main_of_spawned():
            self._core = Core(self._name, self._build())
        wanted = fixes.wanted_at_start(self._spec.fixes)
        self._switches = FixSwitches(self._core, self._epochs, wanted)
        self._weight_update = WeightUpdate(
            self._core, self._switches, self._epochs, self._pauses, lambda: self._aborted
        )
        self._scoring = Scoring(
            self._core,
            self._spec.sampling.temperature,
            lambda: self._epochs.version,
            lambda: not self._pauses.active,
            self._sampling,
        )
        await self._switches.start(wanted)
        # The first batch pays for vLLM's lazy set-up; a core that cannot take a step shows here.
        await self.generate(RolloutRequest(group=-1, prompt_ids=[0], n=1))
        self._counters.reset()
        self._phase = "running"
        self._info = self._describe(time.perf_counter() - began)
        self._beat = asyncio.create_task(self._heartbeat())
        return self._info

    async def init_transfer(self, init_info: dict[str, Any]) -> None:
        """Let the workers meet the trainer, for a transport that needs it: see `Transport.join`."""
        await self._require().host.init_transfer(init_info)

    async def watch(self) -> None:
        """Return never; raise EngineError once vLLM's core is dead. The pool holds this call open."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self._core is not None and self._core.host.errored:
                self._phase = "dead"
                raise DeadCoreError(f"{self._name}: vLLM's engine core died; {self._cause()}")

    async def generate(self, request: RolloutRequest) -> Group:
        """Sample one group to its end; it lives through pauses and weight syncs that keep it.

        One that a sync or `drain` cuts short comes back with sequences whose `finish` is "abort".
        """
        core = self._require()
        self._requests += 1
        number, started = self._requests, time.time()
        own = {"prefix-cache-off": self._switches.prefix_cache_off}
        self._epochs.request_began(number)
        try:
            responses = await core.host.generate(
                request.prompt_ids, self._sampling(request.n), f"{self._name}-{number}"
            )
            sequences = [self._sequence(response) for response in responses]
            found = await self._states(sequences)
        except EngineDiedError as error:
            raise DeadCoreError(f"{self._name}: vLLM's engine core died; {self._cause()}") from error
        except RequestFailedError as error:
            raise EngineError(f"{self._name}: group {request.group} failed: {error}") from error
        finally:
            self._epochs.request_ended(number)
        self._aborted += sum(sequence.finish == "abort" for sequence in sequences)
        states = {epoch: fixed | own for epoch, fixed in found.items()}
        ids = list(request.prompt_ids)
        return Group(request.group, self._name, ids, sequences, started, time.time(), states)

    async def score(self, request: ScoreRequest) -> Scores:
        """Logprobs of tokens that another engine has sampled, as this one's sampler has them under the same weights."""
        self._require()
        try:
            return await self._scoring.run(request, skip_prefix_reads=self._switches.skip_prefix_reads)
        except Exception as error:  # whatever vLLM raises; of a dead core `watch` speaks
            raise EngineError(f"{self._name}: scoring failed: {type(error).__name__}: {error}") from error

    async def probe(self, request: ProbeRequest) -> ProbeScores:
        """Logprobs of the tokens of recorded sequences, in one of the ways that this engine can score them."""
        self._require()
        try:
            return await self._scoring.probe(request, skip_prefix_reads=self._switches.skip_prefix_reads)
        except Exception as error:  # whatever vLLM raises; of a dead core `watch` speaks
            raise EngineError(f"{self._name}: probing failed: {type(error).__name__}: {error}") from error

    async def held(self) -> HeldWeights:
        """What its first worker holds, tensor by tensor: with several, none holds a whole tensor of the trainer's."""
        core = self._require()
        (answer, *others) = await core.ask(worker.HELD)
        if others:
            raise EngineError(f"{self._name}: its {core.host.workers} workers hold slices; tensors cannot be compared")
        entries = {name: (dtype, tuple(shape), crc) for name, (dtype, shape, crc) in answer["entries"].items()}
        return HeldWeights(self._name, self._epochs.version, entries)

    async def drain(self) -> int:
        """Cut short what is in flight, so that its `generate` calls return now; returns how many sequences.

        Does not wait for other control calls: it also ends a sync's waiting for requests.
        """
        return await self._require().abort_all()

    async def pause(self, lease_until: float = 0.0) -> PauseReport:
        """Hold every sequence where it is, until `resume`, or until the lease (a Unix time; 0: none) runs out.

        Pausing a paused engine renews the lease and changes nothing else. The end of the lease resumes within a
        second, but never half-loaded weights.
        """
        async with self._lock:
            began = time.perf_counter()
            if not self._pauses.active:
                await self._require().pause("keep")
            changed = self._pauses.pause(clocks.by_monotonic(lease_until))
            if lease_until and (self._lease is None or self._lease.done()):
                self._lease = asyncio.create_task(self._expire())
            return self._pause_report(changed, began)

    async def resume(self) -> PauseReport:
        """Let held sequences go on; nothing changes on an engine that is not paused.

        Raises EngineError while the engine holds half-loaded weights. One that a sync holds goes on at `release`.
        """
        async with self._lock:
            if self._pauses.damaged:
                raise EngineError(f"{self._name}: stays paused: {self._pauses.damaged}; sync again")
            began = time.perf_counter()
            return self._pause_report(await self._end(self._pauses.resume()), began)

    async def release(self) -> PauseReport:
        """End the hold of a sync that was asked not to resume; an operator's pause outlasts it."""
        async with self._lock:
            began = time.perf_counter()
            return self._pause_report(await self._end(self._pauses.release()), began)

    async def sync(
        self,
        update: Update,
        version: int,
        expected: str,
        *,
        resume: bool = True,
        fixes: Mapping[str, str] | None = None,
    ) -> SyncReport:
        """Pause, load, hold the digest of what the model now has against `expected`, reset caches, resume.

        `inflight-keep` decides what the pause does with requests in flight. `fixes` change at this boundary, with
        generation standing still: `fp32-lm-head`, and `inflight-keep` for this pause already. `resume` false leaves
        the engine held until `release`. An operator's pause outlasts a sync (one that waits for requests lets those
        that were held finish); a sync during a sync waits for its turn.

        A segment that is not what `expected` says is refused before the pause, and the old weights serve on. A load
        that fails, or leaves other weights than expected, leaves the engine paused under its old version until a
        sync succeeds: no token comes from half-loaded weights. Both return `ok` false.
        """
        async with self._lock:
            self._require()
            return await self._weight_update.run(UpdateRequest(update, version, expected, resume, dict(fixes or {})))

    async def set_fix(self, fix_id: str, value: str) -> EngineFix:
        """Make a live fix so; returns the state read back. Raises EngineError where it cannot be."""
        async with self._lock:
            self._require()
            return await self._switches.switch(fix_id, value, running=not self._pauses.active)

    async def fix_states(self) -> dict[str, EngineFix]:
        """Every fix of the catalogue, read back now."""
        self._require()
        return await self._switches.read()

    async def sample(self) -> EngineSample:
        """State and totals now; `tokens_per_s` and `prefix_hit_rate` of the state are left to the reader."""
        counters, info, pauses = self._counters, self._info, self._pauses
        gpu = self._gpus.read() if self._gpus is not None else GpuReading()
        state = EngineState(
            engine=self._name, phase=self._phase_now(), version=self._epochs.version, time=time.time(),
            running=counters.running, waiting=counters.waiting, kv_use=counters.kv_use,
            preemptions=counters.preemptions, pid=os.getpid(), node=info.node if info else "",
            backend=info.backend if info else "", vllm=info.vllm if info else "", detail=pauses.damaged,
            gpu_memory_used=gpu.used, gpu_memory_total=gpu.total, gpu_use=gpu.busy, via="actor", since=self._born,
            environment=self._spec.environment.named if self._spec.environment else "",
        )  # fmt: skip
        scored = self._scoring.sampled if self._core is not None else 0
        return EngineSample(state, counters.generated - scored, counters.prefix_queries, counters.prefix_hits)

    async def close(self) -> None:
        """End vLLM's processes. The pool ends this one."""
        for task in (self._beat, self._lease):
            if task is not None:
                task.cancel()
        if self._probe is not None:
            self._probe.close(timeout=1.0)
        if self._core is not None:
            core, self._core = self._core, None
            core.host.shutdown()

    def _build(self) -> Host:
        try:
            import vllm
            from vllm.platforms import current_platform

            old = hosting.is_v0()
            own_transfer, by_token = hosting.transfers_weights(), hosting.scores_by_token()
        except Exception as error:  # an import of native code can fail in any way; all mean the same here
            raise EngineError(f"{self._name}: vLLM does not import: {type(error).__name__}: {error}") from error
        del vllm
        if not own_transfer and self._spec.transport != "shm":
            raise EngineError(
                f"{self._name}: this vLLM takes weights through shared memory alone, not by {self._spec.transport}; "
                'set engine.transport = "shm"'
            )
        args = launch.vllm_args(self._spec, cpu=current_platform.is_cpu(), transfers=own_transfer)
        if not by_token:
            args["max_logprobs"] = -1  # a token's logprob is asked for among those of the whole vocabulary
        self._stop_ids = launch.stop_ids(Path(self._spec.model))
        if current_platform.is_cpu():
            os.environ.update(hosting.kv_cache_variable(self._spec.config.kv_cache_gb))
        if current_platform.is_cuda():
            from vllm.third_party import pynvml

            self._gpus = GpuMonitor(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES"))
        try:
            if old:
                return v0.build(launch.v0_args(self._spec, args, cpu=current_platform.is_cpu()), self._counters)
            return v1.build(args, stat_logger(self._counters))
        except Exception as error:  # whatever vLLM raises while it builds, the engine is not there
            log = Path(self._spec.log)
            if killed := launch.killed_core(str(error), log):
                text = f"vLLM's engine core was killed by {killed} while it loaded"
                raise DeadCoreError(f"{self._name}: {text}; see {log}") from error
            cause = launch.missing_symbols(log) or launch.last_error(log)
            cause = cause or launch.one_line(f"{type(error).__name__}: {error}")
            raise EngineError(f"{self._name}: vLLM did not start: {cause}; see {log}") from error

    def _sampling(self, n: int) -> Sampling:
        sampling = self._spec.sampling
        skip = self._switches.skip_prefix_reads
        return Sampling(n, sampling.temperature, sampling.max_tokens, self._stop_ids, skip)

    def _sequence(self, response: Response) -> Sequence:
        ids, logprobs = response.ids, response.logprobs
        versions, stamped = epochs.stamps(response.spans, len(ids))
        finish = FINISHES.get(response.finish)
        if logprobs.shape != ids.shape or finish is None:
            raise EngineError(
                f"{self._name}: vLLM returned {len(ids)} tokens with {len(logprobs)} logprobs and finish reason "
                f"{response.finish!r}"
            )
        return Sequence(ids, logprobs, versions, stamped, finish)

    async def _states(self, sequences: list[Sequence]) -> dict[int, dict[str, str]]:
        """The values of the fixes in every epoch of these sequences."""
        stamped = {int(epoch) for sequence in sequences for epoch in np.unique(sequence.epochs)}
        if not self._epochs.all_described(stamped):
            async with self._lock:  # its holder is switching a fix, and describes the epoch before it lets go
                pass
        return self._epochs.states(stamped)

    async def _end(self, changed: bool) -> bool:
        """Go on if nothing pauses the engine any more; hands `changed` through."""
        if changed and not self._pauses.active:
            await self._require().resume(self._epochs.label)
        return changed

    async def _expire(self) -> None:
        """Resume when the lease of the pause has run out, however often it is renewed until then."""
        while (left := self._pauses.lease_left(time.monotonic())) is not None:
            if left:
                await asyncio.sleep(min(left, HEARTBEAT_S))
                continue
            async with self._lock:
                if self._pauses.lease_left(time.monotonic()) == 0:  # not renewed while the lock was another's
                    await self._end(self._pauses.resume())

    def _describe(self, seconds: float) -> EngineInfo:
        import ray

        core = self._require()
        return EngineInfo(
            engine=self._name, pid=os.getpid(), node=socket.gethostname(), backend=core.built.platform,
            vllm=core.built.vllm, async_scheduling=bool(core.built.async_scheduling), loaded_s=seconds,
            workers=core.host.workers, node_id=ray.get_runtime_context().get_node_id(), python=sys.executable,
        )  # fmt: skip

    def _open_probe(self) -> Probe | None:
        if self._spec.connection is None:
            return None
        assert self._spec.keys is not None, "a connection comes with its keys"
        from driftline.producer.probe import Probe

        return Probe(name=self._name, connection=self._spec.connection, keys=self._spec.keys)

    async def _heartbeat(self) -> None:
        before = await self.sample()
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            after = await self.sample()
            rate = hit_rate(after.prefix_hits - before.prefix_hits, after.prefix_queries - before.prefix_queries)
            if self._probe is not None:
                self._probe.send(
                    msgspec.structs.replace(
                        after.state,
                        tokens_per_s=tokens_per_s(before, after),
                        prefix_hit_rate=0.0 if math.isnan(rate) else rate,
                    )
                )
            before = after

    def _quiet_logs(self) -> None:
        """Send this process's output, and what vLLM starts from it, into the engine's log."""
        with suppress(OSError):  # an actor on another machine may not have the run's folder: Ray's log keeps it then
            fd = os.open(self._spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            os.close(fd)

    def _phase_now(self) -> Phase:
        if self._phase != "running":
            return self._phase
        if self._weight_update.active or self._pauses.held:
            return "syncing"
        return "paused" if self._pauses.active else "running"

    def _pause_report(self, changed: bool, began: float) -> PauseReport:
        seconds = time.perf_counter() - began
        return PauseReport(self._name, self._pauses.active, changed, seconds, self._require().in_flight)

    def _require(self) -> Core:
        if self._core is None:
            raise EngineError(f"{self._name}: not started, or closed")
        return self._core

    def _cause(self) -> str:
        return f"{launch.last_error(Path(self._spec.log)) or 'no cause in its log'}; see {self._spec.log}"
