"""V1's `AsyncLLM` as a host. Versions up to 0.28 give no weight labels: they are counted here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine.actor.counted_labels import CountedLabels
from engine.actor.host import Asked, EngineDiedError, Probed, RequestFailedError, Response, Sampling, Scored, Span
from engine.plugin import hosting, versions
from engine.types import PauseMode

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput
    from vllm.v1.engine.async_llm import AsyncLLM


BENDING: Final = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "min_tokens": 0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""vLLM's sampling parameters that do more than divide by the temperature, with what each is where it does nothing."""


class V1Host:
    """See `engine.actor.host.Host`."""

    def __init__(self, llm: AsyncLLM) -> None:
        self._llm = llm
        self.built = versions.read_core(llm)
        self.workers = int(llm.vllm_config.parallel_config.world_size)
        self._counted = None if hosting.labels_weights() else CountedLabels(llm.output_processor)
        # With async scheduling a step's outputs are stamped after the next one was sent off; counting needs an engine
        # that stands.
        self.exact_stamps = not self.built.async_scheduling and self._counted is None
        self._scoring = 0
        self._by_token = hosting.scores_by_token()

    @property
    def errored(self) -> bool:
        """See `Host`."""
        return bool(self._llm.errored)

    @property
    def sequences(self) -> int:
        """See `Host`."""
        return int(self._llm.output_processor.get_num_unfinished_requests()) - self._scoring

    @property
    def sampled(self) -> int:
        """Read from `AsyncLLM.output_processor.request_states`, which holds one state per sequence until it ends and

        whose detokenizer counts output tokens also when it detokenizes nothing; exact while generation is paused and
        the last outputs are through: see `Core.pause`.
        """
        states = self._llm.output_processor.request_states.values()
        return sum(state.detokenizer.num_output_tokens() for state in states if state.detokenizer is not None)

    async def generate(self, prompt: Sequence[int], sampling: Sampling, request: str) -> list[Response]:
        """See `Host`."""
        asked = _parameters(sampling, stop_token_ids=list(sampling.stop_ids), logprobs=0)
        try:
            final = await self._final(prompt, asked, request)
            return [self._response(request, output) for output in final.outputs]
        finally:
            if self._counted is not None:
                self._counted.forget(request, sampling.n)

    async def score(self, asked: Asked, sampling: Sampling, request: str) -> list[Scored | None]:
        """One request a token. vLLM's prompt logprobs would take one a sequence, but they are those of temperature 1

        whatever `logprobs_mode` says (0.32 documents it there: prompt tokens pass no sampling processor), and they read
        no prefix cache: nothing of what the fixes are about would show in them. Its forced decoding
        (`trace_decode_token_ids`) exists in the second model runner alone, which has no CPU. So each token is asked for
        where the sampler looks at it: one request for one more token after everything before it.
        """
        return await asyncio.gather(
            *(self._score(asked, place, sampling, f"{request}-{place}") for place in asked.positions)
        )

    async def probe(self, asked: Probed, sampling: Sampling, request: str) -> list[Scored] | None:
        """See `Host`. The text so far is a prompt here: penalties that count a response's own tokens find none."""
        more = dict(sampling.more)
        if "min_tokens" in more:
            more["min_tokens"] = int(more["min_tokens"] > asked.position)
        return await self._look(asked, replace(sampling, n=1, max_tokens=1, more=more), request)

    def bending(self, sampling: Sampling) -> str:
        """See `Host`."""
        asked = _parameters(sampling)
        return ", ".join(
            f"{name}={getattr(asked, name):g}"
            for name, none in BENDING.items()
            if getattr(asked, name, none) not in (none, -1)
        )

    async def _score(self, asked: Asked, place: int, sampling: Sampling, request: str) -> Scored | None:
        before = [*asked.prompt, *map(int, asked.ids[:place])]
        found = await self._look(Probed(before, [int(asked.ids[place])], place), sampling, request)
        return None if found is None else found[0]

    async def _look(self, asked: Probed, sampling: Sampling, request: str) -> list[Scored] | None:
        """One more token is sampled, and the logprobs of the wanted ids in its place are read."""
        which: dict[str, Any] = {"logprob_token_ids": list(asked.wanted)} if self._by_token else {"logprobs": -1}
        began = self._counted.label if self._counted is not None else ""
        self._scoring += 1
        try:
            parameters = _parameters(sampling, stop_token_ids=list(sampling.stop_ids), **which)
            output = (await self._final(asked.before, parameters, request)).outputs[0]
        finally:
            self._scoring -= 1
            if self._counted is not None:
                self._counted.forget(request, 1)
        if not output.token_ids:
            return None
        flat: Any = output.logprobs
        found = dict(zip(flat.token_ids, flat.logprobs, strict=True))
        if self._counted is not None:
            label = began if began == self._counted.label else ""
        else:
            spans = output.weight_versions or ()
            label = spans[0].version if spans else ""
        return [Scored(float(found[token]), label) for token in asked.wanted]

    async def stamp(self, label: str) -> None:
        """See `Host`."""
        if self._counted is not None:
            self._counted.stamp(label)
        else:
            await self._llm.update_weight_version(label)

    async def call_workers(self, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> list[dict[str, Any]]:
        """See `Host`."""
        answers: list[dict[str, Any]] = await self._llm.collective_rpc(method, args=tuple(args), kwargs=kwargs)
        return answers

    async def pause(self, mode: PauseMode, *, settle: bool) -> None:
        """See `Host`."""
        if settle or mode != "keep":
            await self._llm.pause_generation(mode=mode, clear_cache=mode != "keep")
        else:
            await self._llm.engine_core.pause_scheduler_async(mode=mode, clear_cache=False)

    async def resume(self) -> None:
        """See `Host`."""
        await self._llm.resume_generation()

    async def reset_prefix_cache(self) -> bool:
        """See `Host`."""
        return bool(await self._llm.reset_prefix_cache())

    async def abort(self) -> int:
        """See `Host`."""
        states = self._llm.output_processor.request_states
        count, requests = len(states), sorted({state.external_req_id for state in states.values()})
        await self._llm.abort(requests)
        return count

    async def init_transfer(self, init_info: dict[str, Any]) -> None:
        """See `Host`."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init_info))

    def shutdown(self) -> None:
        """See `Host`."""
        self._llm.shutdown()

    async def _final(self, prompt: Sequence[int], parameters: Any, request: str) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            outputs = self._llm.generate(hosting.token_prompt(prompt), parameters, request)
            return [output async for output in outputs][-1]
        except EngineDeadError as error:
            raise EngineDiedError from error
        except (EngineGenerateError, ValueError) as error:  # vLLM's own refusals of a request are ValueErrors
            cause = error.__cause__ or error
            raise RequestFailedError(f"{type(cause).__name__}: {cause}") from error

    def _response(self, request: str, output: CompletionOutput) -> Response:
        flat: Any = output.logprobs  # flat, as it was asked for; a response cut short before it began has none at all
        found = flat.logprobs if len(output.token_ids) else []
        if self._counted is not None:
            spans = self._counted.spans(request, output.index, len(output.token_ids))
        else:
            spans = [Span(one.version, one.start, one.end) for one in output.weight_versions or ()]
        return Response(
            np.asarray(output.token_ids, dtype=np.int32), np.asarray(found, dtype=np.float32), spans,
            output.finish_reason or "",
        )  # fmt: skip


def build(args: dict[str, Any], stat_logger: Any) -> V1Host:
    """Raises whatever vLLM raises while it builds."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    return V1Host(AsyncLLM.from_engine_args(AsyncEngineArgs(**args), stat_loggers=[stat_logger]))


def _parameters(sampling: Sampling, **more: Any) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    asked: dict[str, Any] = {
        "n": sampling.n, "temperature": sampling.temperature, "max_tokens": sampling.max_tokens, "flat_logprobs": True,
        "detokenize": False, "output_kind": RequestOutputKind.FINAL_ONLY,
        "skip_reading_prefix_cache": sampling.skip_prefix_reads,
    }  # fmt: skip
    return SamplingParams(**(asked | more | dict(sampling.more)))
