"""V0's `LLMEngine` (vLLM 0.8.5) as a host.

V0 has no pause, no labels and no weight transfer. It needs none: its `step` is called from here, so whatever happens
between two calls (a label, a load, an abort) happens between two steps, exactly, and the keys and values of what is in
flight stay. Its core and its one worker share this process.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from engine.actor.host import Asked, EngineDiedError, Probed, RequestFailedError, Response, Sampling, Scored, Span
from engine.actor.stats import Counters
from engine.plugin import versions
from engine.plugin.report import V0
from engine.types import PauseMode

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Sequence:
    """One sample of a request, as one V0 request: V0 gives no deltas where a request has several."""

    done: asyncio.Future[None]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    finish: str = ""
    scores: bool = False
    prompt_logprobs: Any = None

    def add(self, ids: Sequence[int], found: Sequence[Any], label: str) -> None:
        """Tokens of one step, with a table of logprobs by token for each."""
        if not ids:
            return
        start, end = len(self.ids), len(self.ids) + len(ids)
        if self.spans and self.spans[-1].version == label:
            self.spans[-1] = replace(self.spans[-1], end=end)
        else:
            self.spans.append(Span(label, start, end))
        self.ids += ids
        self.logprobs += [table[token].logprob for token, table in zip(ids, found, strict=True)]

    def response(self) -> Response:
        """As it has ended."""
        logprobs = np.asarray(self.logprobs, dtype=np.float32)
        return Response(np.asarray(self.ids, dtype=np.int32), logprobs, self.spans, self.finish)


class V0Host:
    """See `engine.actor.host.Host`. Everything that touches `engine` holds the lock, `step` among it; FIFO."""

    exact_stamps = True

    def __init__(self, engine: Any, counters: Counters) -> None:
        self._engine, self._counters = engine, counters
        built = versions.read_core(engine)
        self.built = msgspec.structs.replace(
            built, generation=V0, prefix_caching=bool(built.prefix_caching), async_scheduling=False
        )
        self.workers = int(engine.vllm_config.parallel_config.world_size)
        self.errored = False
        self._label = ""
        self._live: dict[str, _Sequence] = {}
        self._lock, self._work = asyncio.Lock(), asyncio.Event()
        self._go, self._admits = asyncio.Event(), asyncio.Event()
        self._go.set()
        self._admits.set()
        self._stepping = asyncio.get_running_loop().create_task(self._run())

    @property
    def sequences(self) -> int:
        """See `Host`."""
        return sum(not one.scores for one in self._live.values())

    @property
    def sampled(self) -> int:
        """See `Host`."""
        return sum(len(one.ids) for one in self._live.values())

    async def generate(self, prompt: Sequence[int], sampling: Sampling, request: str) -> list[Response]:
        """See `Host`."""
        parameters = _parameters(sampling, delta=True, stop_token_ids=list(sampling.stop_ids), logprobs=0)
        await self._admits.wait()
        async with self._lock:
            group = [self._add(f"{request}-{index}", prompt, parameters) for index in range(sampling.n)]
        await self._ended(group)
        return [one.response() for one in group]

    async def score(self, asked: Asked, sampling: Sampling, request: str) -> list[Scored | None]:
        """One request a sequence: V0's prompt logprobs have been through the temperature (`sampling_metadata.py` gives

        every prompt row that of its request), and without a prefix cache they are computed as the sampled ones are.
        """
        last = max(asked.positions)
        tokens = [*asked.prompt, *map(int, asked.ids[: last + 1])]
        await self._admits.wait()
        async with self._lock:
            one = self._add(request, tokens, _parameters(sampling, delta=False, prompt_logprobs=0))
            one.scores = True
        await self._ended([one])
        if one.finish == "abort" or one.prompt_logprobs is None:
            return [None] * len(asked.positions)
        places = [len(asked.prompt) + place for place in asked.positions]
        return [Scored(float(one.prompt_logprobs[at][tokens[at]].logprob), one.spans[0].version) for at in places]

    async def probe(self, asked: Probed, sampling: Sampling, request: str) -> list[Scored] | None:
        """See `Host`."""
        del asked, sampling, request
        raise RequestFailedError("V0 of vLLM is not probed: not available here")

    def bending(self, sampling: Sampling) -> str:
        """See `Host`."""
        del sampling
        return ""

    async def stamp(self, label: str) -> None:
        """See `Host`."""
        async with self._lock:
            self._label = label

    async def call_workers(self, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> list[dict[str, Any]]:
        """See `Host`. On a thread: a load must not hold up the actor's event loop."""
        async with self._lock:
            answers: list[dict[str, Any]] = await asyncio.to_thread(
                self._engine.collective_rpc, method, None, tuple(args), kwargs
            )
        return answers

    async def pause(self, mode: PauseMode, *, settle: bool) -> None:
        """See `Host`. There is nothing to settle: a step's outputs are taken before the lock is free.

        "wait" also lets those go on that a pause has held, and nothing new begins until `resume`.
        """
        del settle
        if mode == "wait":
            self._admits.clear()
            self._go.set()
            await asyncio.gather(*(one.done for one in self._live.values()), return_exceptions=True)
        self._go.clear()
        self._admits.set()  # what begins now is held
        async with self._lock:  # the step that was going on is through
            if mode == "abort":
                self._abort()
            if mode != "keep":
                self._engine.reset_prefix_cache()

    async def resume(self) -> None:
        """See `Host`."""
        self._go.set()

    async def reset_prefix_cache(self) -> bool:
        """See `Host`."""
        async with self._lock:
            return bool(self._engine.reset_prefix_cache())

    async def abort(self) -> int:
        """See `Host`."""
        async with self._lock:
            return self._abort()

    async def init_transfer(self, init_info: dict[str, Any]) -> None:
        """See `Host`. V0 has no transport that has to meet the trainer."""
        del init_info

    def shutdown(self) -> None:
        """See `Host`. The engine ends with this process."""
        self._stepping.cancel()

    def _add(self, request: str, prompt: Sequence[int], parameters: Any) -> _Sequence:
        try:
            self._engine.add_request(request, {"prompt_token_ids": [int(token) for token in prompt]}, parameters)
        except ValueError as error:
            raise RequestFailedError(f"{type(error).__name__}: {error}") from error
        one = self._live[request] = _Sequence(asyncio.get_running_loop().create_future())
        self._work.set()
        return one

    async def _ended(self, group: list[_Sequence]) -> None:
        if self.errored:
            raise EngineDiedError
        await asyncio.gather(*(one.done for one in group))

    async def _run(self) -> None:
        try:
            while True:
                await self._work.wait()
                await self._go.wait()
                async with self._lock:
                    if not self._go.is_set():
                        continue
                    if not self._engine.has_unfinished_requests():
                        self._work.clear()
                        continue
                    self._take(await asyncio.to_thread(self._engine.step))
                await asyncio.sleep(0)
        except Exception as error:  # whatever a step raises: its requests are in an unknown state
            log.exception("V0's engine failed in a step")
            self.errored = True
            for one in self._live.values():
                if not one.done.done():
                    one.done.set_exception(EngineDiedError(f"{type(error).__name__}: {error}"))

    def _take(self, outputs: Iterable[Any]) -> None:
        """What one step gave, all of it sampled under the label of now."""
        counters = self._counters
        for output in outputs:
            one, made = self._live.get(output.request_id), output.outputs[0]
            if one is None:
                continue
            if not one.scores:
                one.add(list(made.token_ids), made.logprobs or (), self._label)
            elif made.token_ids:
                one.spans, one.prompt_logprobs = [Span(self._label, 0, len(made.token_ids))], output.prompt_logprobs
            counters.generated += len(made.token_ids)
            if output.finished:
                self._end(output.request_id, str(made.finish_reason))
        (scheduler,) = self._engine.scheduler
        counters.running, counters.waiting = len(scheduler.running), len(scheduler.waiting) + len(scheduler.swapped)
        counters.preemptions = int(scheduler.num_cumulative_preemption)
        total = self._engine.cache_config.num_gpu_blocks
        counters.kv_use = 1.0 - scheduler.block_manager.get_num_free_gpu_blocks() / total if total else 0.0

    def _abort(self) -> int:
        names = list(self._live)
        for name in names:
            self._engine.abort_request(name)
            self._end(name, "abort")
        return len(names)

    def _end(self, name: str, reason: str) -> None:
        one = self._live.pop(name)
        one.finish = reason
        if not one.done.done():
            one.done.set_result(None)


def build(args: dict[str, Any], counters: Counters) -> V0Host:
    """Raises whatever vLLM raises while it builds."""
    # Else its worker meets it on an address that other machines reach.
    os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")
    os.environ["VLLM_USE_V1"] = "0"
    if os.environ.get("VLLM_CPU_OMP_THREADS_BIND") == "nobind":  # a word of later versions
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "all"
    from vllm import EngineArgs, LLMEngine

    return V0Host(LLMEngine.from_engine_args(EngineArgs(**args)), counters)


def _parameters(sampling: Sampling, *, delta: bool, **more: Any) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        n=1, temperature=sampling.temperature, max_tokens=sampling.max_tokens, detokenize=False,
        output_kind=RequestOutputKind.DELTA if delta else RequestOutputKind.FINAL_ONLY, **more,
    )  # fmt: skip
