"""One engine: an async Ray actor hosting vLLM's `AsyncLLM`. Driven by `engine.pool`, never by anything else.

Rollouts and control calls share one event loop, so that a pause is never queued behind a generation; control calls
exclude each other through one lock.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from driftline.fixes import ON
from driftline.frames import EngineFix, EngineState, Phase
from engine import fixes, launch
from engine.stats import Counters, stat_logger, tokens_per_s
from engine.types import (
    Backend,
    EngineError,
    EngineInfo,
    EngineSample,
    Group,
    PauseReport,
    Place,
    RolloutRequest,
    Sequence,
    SyncReport,
    hit_rate,
)

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput
    from vllm.v1.engine.async_llm import AsyncLLM

    from driftline.probe import Probe

HEARTBEAT_S: Final = 0.5


class EngineActor:
    """See the module. Every method that fails raises EngineError with a whole sentence."""

    def __init__(self, spec: launch.EngineSpec) -> None:
        self._spec = spec
        self._name = spec.name
        self._llm: AsyncLLM | None = None
        self._probe: Probe | None = None
        self._counters = Counters()
        self._lock = asyncio.Lock()
        self._phase: Phase = "starting"
        self._version = 0
        self._requests = 0
        self._skip_prefix_reads = False
        self._paused = False
        self._damaged = ""
        self._fix_since: dict[str, int] = {}
        self._stop_ids: list[int] = []
        self._info: EngineInfo | None = None
        self._beat: asyncio.Task[None] | None = None

    async def place(self) -> Place:
        """Which process this is; answers before vLLM is imported."""
        return Place(pid=os.getpid(), node=socket.gethostname())

    async def start(self) -> EngineInfo:
        """Import vLLM, load the model, apply the wanted fixes. Blocks the actor while it does."""
        began = time.perf_counter()
        self._quieten()
        os.environ.update(launch.environment(self._spec.config))
        os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would overrule engine.kv_cache_gb
        self._probe = self._open_probe()
        if self._probe is not None:
            self._probe.send((await self.sample()).state)  # the next one comes only once vLLM has loaded
        self._llm = self._build()
        # Weights as loaded from the model path are version 0.
        await self._llm.update_weight_version(str(self._version))
        for fix_id, value in fixes.wanted_at_start(self._spec.fixes).items():
            state = fixes.describe(self._name, await self._backend())[fix_id]
            if state.how == "live" and state.effective != value:
                await self._apply(fix_id, value)
        # The first batch pays for vLLM's lazy set-up; a core that cannot take a step shows here.
        await self.generate(RolloutRequest(group=-1, prompt_ids=[0], n=1))
        self._counters.reset()
        self._phase = "running"
        self._info = self._describe(time.perf_counter() - began)
        self._beat = asyncio.create_task(self._heartbeat())
        return self._info

    async def watch(self) -> None:
        """Return never; raise EngineError once vLLM's core is dead. The pool holds this call open."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self._llm is not None and self._llm.errored:
                self._phase = "dead"
                raise EngineError(f"{self._name}: vLLM's engine core died; {self._cause()}")

    async def generate(self, request: RolloutRequest) -> Group:
        """Sample one group to its end; it lives through pauses and weight syncs."""
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        llm = self._require()
        self._requests += 1
        started = time.time()
        prompt = tokens_input([int(token) for token in request.prompt_ids])
        outputs = llm.generate(prompt, self._sampling(request.n), f"{self._name}-{self._requests}")
        try:
            final = [output async for output in outputs][-1]
        except EngineDeadError as error:
            raise EngineError(f"{self._name}: vLLM's engine core died; {self._cause()}") from error
        except (EngineGenerateError, ValueError) as error:  # vLLM's own refusals of a request are ValueErrors
            cause = error.__cause__ or error
            raise EngineError(f"{self._name}: group {request.group} failed: {type(cause).__name__}: {cause}") from error
        sequences = [self._sequence(output) for output in final.outputs]
        return Group(request.group, self._name, list(request.prompt_ids), sequences, started, time.time())

    async def pause(self) -> PauseReport:
        """Hold every sequence where it is, until `resume`. Pausing twice changes nothing."""
        async with self._lock:
            llm = self._require()
            began = time.perf_counter()
            changed = not self._paused
            await llm.pause_generation(mode="keep", clear_cache=False)
            self._paused, self._phase = True, "paused"
            return self._pause_report(changed, began)

    async def resume(self) -> PauseReport:
        """Let held sequences go on. Raises EngineError while the engine holds half-loaded weights."""
        async with self._lock:
            llm = self._require()
            if self._damaged:
                raise EngineError(f"{self._name}: stays paused: {self._damaged}; sync again")
            began = time.perf_counter()
            changed = self._paused
            await llm.resume_generation()
            self._paused, self._phase = False, "running"
            return self._pause_report(changed, began)

    async def sync(self, manifest: dict[str, Any], version: int) -> SyncReport:
        """Pause, load the manifest's weights, resume. An operator's pause outlasts it.

        Weights that the workers cannot read are refused before the pause, and the old ones serve on. A load that
        fails later leaves the engine paused: no token may come from half-loaded weights. Both return `ok` false.
        """
        async with self._lock:
            llm = self._require()
            start, marks = time.time(), [time.perf_counter()]
            before, stay = self._version, self._paused
            if refused := await self._check(llm, manifest):
                spent = time.perf_counter() - marks[0]
                return SyncReport(self._name, False, before, before, start, 0.0, 0.0, 0.0, spent, 0, 0, refused)
            self._phase = "syncing"
            marks = [time.perf_counter()]
            in_flight = llm.get_num_unfinished_requests()
            await llm.pause_generation(mode="keep", clear_cache=False)
            marks.append(time.perf_counter())
            detail = await self._load(llm, manifest, version)
            marks.append(time.perf_counter())
            if not (stay or self._damaged):
                await llm.resume_generation()
            marks.append(time.perf_counter())
            self._phase = "paused" if stay or self._damaged else "running"
            return SyncReport(
                engine=self._name, ok=not detail, version_before=before, version_after=self._version, start=start,
                pause_s=marks[1] - marks[0], load_s=marks[2] - marks[1], resume_s=marks[3] - marks[2],
                total_s=marks[3] - marks[0], bytes=manifest["size"], in_flight=in_flight, detail=detail,
            )  # fmt: skip

    async def set_fix(self, fix_id: str, value: str) -> EngineFix:
        """Make a live fix so; returns the state read back. Raises EngineError where it cannot be."""
        async with self._lock:
            state = fixes.describe(self._name, await self._backend())[fix_id]
            if sentence := fixes.refusal(state, fix_id, value):
                raise EngineError(sentence)
            if state.effective != value:
                await self._apply(fix_id, value)
            return fixes.describe(self._name, await self._backend())[fix_id]

    async def fix_states(self) -> dict[str, EngineFix]:
        """Every fix of the catalogue, read back now."""
        return fixes.describe(self._name, await self._backend())

    async def sample(self) -> EngineSample:
        """State and totals now; `tokens_per_s` and `prefix_hit_rate` of the state are left to the reader."""
        counters, info = self._counters, self._info
        state = EngineState(
            engine=self._name, phase=self._phase, version=self._version, time=time.time(), running=counters.running,
            waiting=counters.waiting, kv_use=counters.kv_use, preemptions=counters.preemptions, pid=os.getpid(),
            node=info.node if info else "", backend=info.backend if info else "", vllm=info.vllm if info else "",
            detail=self._damaged,
        )  # fmt: skip
        return EngineSample(state, counters.generated, counters.prefix_queries, counters.prefix_hits)

    async def close(self) -> None:
        """End vLLM's processes. The pool ends this one."""
        if self._beat is not None:
            self._beat.cancel()
        if self._probe is not None:
            self._probe.close(timeout=1.0)
        if self._llm is not None:
            llm, self._llm = self._llm, None
            llm.shutdown()

    def _build(self) -> AsyncLLM:
        try:
            import vllm
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.async_llm import AsyncLLM
        except Exception as error:  # an import of native code can fail in any way; all mean the same here
            raise EngineError(f"{self._name}: vLLM does not import: {type(error).__name__}: {error}") from error
        del vllm
        args = launch.vllm_args(self._spec, cpu=current_platform.is_cpu())
        self._stop_ids = launch.stop_ids(Path(self._spec.model))
        try:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**args), stat_loggers=[stat_logger(self._counters)])
        except Exception as error:  # whatever vLLM raises while it builds, the engine is not there
            cause = launch.last_error(Path(self._spec.log)) or launch.one_line(f"{type(error).__name__}: {error}")
            raise EngineError(f"{self._name}: vLLM did not start: {cause}; see {self._spec.log}") from error

    def _sampling(self, n: int) -> Any:
        """Nothing here may bend the distribution beyond the temperature: the trainer must be able to repeat it.

        No `min_tokens` (it masks EOS) and no `seed` (with a pause it kills the CPU build's core).
        """
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        return SamplingParams(
            n=n,
            temperature=self._spec.sampling.temperature,
            max_tokens=self._spec.sampling.max_tokens,
            stop_token_ids=self._stop_ids,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_reading_prefix_cache=self._skip_prefix_reads,
        )

    def _sequence(self, output: CompletionOutput) -> Sequence:
        ids = np.asarray(output.token_ids, dtype=np.int32)
        logprobs = np.asarray(output.logprobs.logprobs, dtype=np.float32)
        versions = np.full(ids.shape, -1, dtype=np.int32)
        for span in output.weight_versions or ():
            versions[span.start : span.end] = int(span.version)
        if logprobs.shape != ids.shape or (versions < 0).any() or output.finish_reason not in ("stop", "length"):
            raise EngineError(
                f"{self._name}: vLLM returned {len(ids)} tokens with {len(logprobs)} logprobs, weight versions "
                f"{output.weight_versions} and finish reason {output.finish_reason!r}"
            )
        return Sequence(ids, logprobs, versions, output.finish_reason)

    async def _check(self, llm: AsyncLLM, manifest: dict[str, Any]) -> str:
        try:
            await llm.collective_rpc("driftline_check_weights", args=(manifest,))
        except Exception as error:  # noqa: BLE001  vLLM hands a worker's failure over as a bare Exception
            return f"the weights cannot be read: {error}; version {self._version} serves on"
        return ""

    async def _load(self, llm: AsyncLLM, manifest: dict[str, Any], version: int) -> str:
        """Load while paused; returns "" or why it failed, which `_damaged` then says too."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        try:
            await llm.start_weight_update()
            await llm.update_weights(WeightTransferUpdateRequest(update_info=manifest))
            await llm.finish_weight_update(weight_version=str(version))
        except Exception as error:  # noqa: BLE001  as in _check
            self._damaged = f"the load of version {version} failed half-way: {error}"
            return self._damaged
        self._damaged = ""
        self._version = version
        return ""

    async def _apply(self, fix_id: str, value: str) -> None:
        llm = self._require()
        try:
            if fix_id == "processed-logprobs":
                await llm.collective_rpc("driftline_set_logprobs_mode", args=(fixes.logprobs_mode(value),))
            elif fix_id == "fp32-lm-head":
                dtype = fixes.head_dtype(value, (await self._backend()).model_dtype)
                await llm.collective_rpc("driftline_set_head_dtype", args=(dtype,))
            elif fix_id == "prefix-cache-off":
                self._skip_prefix_reads = value == ON
            else:
                raise EngineError(f"{self._name}: {fix_id} is not a live fix")
        except EngineError:
            raise
        except Exception as error:  # vLLM hands a worker's failure over as a bare Exception
            raise EngineError(f"{self._name}: {fix_id} {value} failed: {error}") from error
        self._fix_since[fix_id] = self._version

    async def _backend(self) -> Backend:
        from vllm.platforms import current_platform

        llm = self._require()
        facts = await llm.collective_rpc("driftline_facts")
        if any(other != facts[0] for other in facts[1:]):
            raise EngineError(f"{self._name}: its workers disagree: {facts}")
        config = llm.vllm_config
        return Backend(
            platform=current_platform.device_type,
            logprobs_mode=facts[0]["logprobs_mode"],
            model_dtype=facts[0]["model_dtype"],
            head_dtypes=tuple(facts[0]["head_dtypes"]),
            prefix_caching=bool(config.cache_config.enable_prefix_caching),
            skip_prefix_reads=self._skip_prefix_reads,
            async_scheduling=bool(config.scheduler_config.async_scheduling),
            since=dict(self._fix_since),
        )

    def _describe(self, seconds: float) -> EngineInfo:
        import vllm
        from vllm.platforms import current_platform

        config = self._require().vllm_config
        return EngineInfo(
            engine=self._name, pid=os.getpid(), node=socket.gethostname(), backend=current_platform.device_type,
            vllm=vllm.__version__, async_scheduling=bool(config.scheduler_config.async_scheduling), loaded_s=seconds,
        )  # fmt: skip

    def _open_probe(self) -> Probe | None:
        if self._spec.connection is None:
            return None
        from driftline.probe import Probe

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

    def _quieten(self) -> None:
        """Send this process's output, and what vLLM starts from it, into the engine's log."""
        with suppress(OSError):  # an actor on another machine may not have the run's folder: Ray's log keeps it then
            fd = os.open(self._spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            os.close(fd)

    def _pause_report(self, changed: bool, began: float) -> PauseReport:
        in_flight = self._require().get_num_unfinished_requests()
        return PauseReport(self._name, self._paused, changed, time.perf_counter() - began, in_flight)

    def _require(self) -> AsyncLLM:
        if self._llm is None:
            raise EngineError(f"{self._name}: not started, or closed")
        return self._llm

    def _cause(self) -> str:
        return f"{launch.last_error(Path(self._spec.log)) or 'no cause in its log'}; see {self._spec.log}"
