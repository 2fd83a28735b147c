"""Scoring tokens that another engine has sampled, through this engine's own sampler.

vLLM's prompt logprobs would take one request a sequence, but they are those of temperature 1 whatever `logprobs_mode`
says (0.32 documents it there: prompt tokens pass no sampling processor), and they read no prefix cache: nothing of what
the fixes are about would show in them. Its forced decoding (`trace_decode_token_ids`) exists in the second model runner
alone, which has no CPU. So each token is asked for where the sampler looks at it: one request for one more token after
everything before it, with `logprob_token_ids`. What it says has been through temperature, mode, head and prefix cache
like any sampled token's, and is stamped with the weights that made it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine.actor import epochs
from engine.actor.async_llm import Core
from engine.types import IN_BETWEEN, ProbeRequest, ProbeScores, ScoreRequest, Scores

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput

AT_ONCE: Final = 32
"""Requests under way together: rollouts must not find the engine full of them, and after each such batch it is seen
whether the weights have changed meanwhile."""


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


def engine_args() -> dict[str, Any]:
    """Arguments that vLLM has to be built with so that it can be asked for a token's logprob."""
    return {} if _by_token() else {"max_logprobs": -1}


def _by_token() -> bool:
    """Whether this vLLM takes `logprob_token_ids`; an older one (0.18.1) is asked for the whole vocabulary's."""
    from vllm.sampling_params import SamplingParams

    return "logprob_token_ids" in SamplingParams.__struct_fields__


class Scoring:
    """`current` is the version of the weights that serve, `free` whether requests can be scheduled, `usual` makes the

    sampling parameters of a rollout of so many samples.
    """

    def __init__(
        self,
        core: Core,
        temperature: float,
        current: Callable[[], int],
        free: Callable[[], bool],
        usual: Callable[[int], Any],
    ) -> None:
        self._core, self._temperature, self._current, self._free = core, temperature, current, free
        self._usual = usual
        self._asked = 0
        self._by_token = _by_token()
        self.sampled = 0
        """Tokens that were sampled for it, which are no rollout's."""

    async def run(self, request: ScoreRequest, *, skip_prefix_reads: bool) -> Scores:
        """Score the tokens; NaN for those that the asked-for weights did not score. Raises what vLLM raises."""
        began = time.perf_counter()
        found = [np.full(len(positions), math.nan, dtype=np.float32) for positions in request.positions]
        places = [(row, at) for row, positions in enumerate(request.positions) for at in range(len(positions))]
        for start in range(0, len(places), AT_ONCE):
            if self._current() != request.version or not self._free():
                break
            batch = places[start : start + AT_ONCE]
            scored = await asyncio.gather(*(self._score(request, row, at, skip_prefix_reads) for row, at in batch))
            for (row, at), value in zip(batch, scored, strict=True):
                found[row][at] = value
        return Scores(self._core.name, found, time.perf_counter() - began)

    async def probe(self, request: ProbeRequest, *, skip_prefix_reads: bool) -> ProbeScores:
        """Score the tokens in the way that is asked for, as `run`. Raises what vLLM raises."""
        began = time.perf_counter()
        width = 1 + (request.candidates[0].shape[1] if request.candidates else 0)
        found = [np.full((len(positions), width), math.nan, dtype=np.float32) for positions in request.positions]
        places = [(row, at) for row, positions in enumerate(request.positions) for at in range(len(positions))]
        asked = 0
        for start in range(0, len(places), request.at_once):
            if self._current() != request.version or not self._free():
                break
            batch = places[start : start + request.at_once]
            asked += len(batch)
            scored = await asyncio.gather(*(self._probe(request, row, at, skip_prefix_reads) for row, at in batch))
            for (row, at), values in zip(batch, scored, strict=True):
                found[row][at] = values
        said = self._bending() if request.usual else ""
        return ProbeScores(self._core.name, found, time.perf_counter() - began, asked, said)

    async def _score(self, request: ScoreRequest, row: int, at: int, skip_prefix_reads: bool) -> float:
        ids, position = request.sequences[row], int(request.positions[row][at])
        before, token = [*request.prompt_ids, *map(int, ids[:position])], int(ids[position])
        sampling = self._plain([token], self._temperature, skip_prefix_reads)
        return (await self._ask(before, [token], sampling, request.version))[0]

    async def _probe(self, request: ProbeRequest, row: int, at: int, skip_prefix_reads: bool) -> list[float]:
        ids, position = request.sequences[row], int(request.positions[row][at])
        before, token = [*request.prompts[row], *map(int, ids[:position])], int(ids[position])
        wanted = [token, *(map(int, request.candidates[row][at]) if request.candidates else ())]
        if request.usual:
            sampling = self._as_sampled(wanted, position)
        else:
            skip = skip_prefix_reads or not request.cached or bool(self._usual(1).skip_reading_prefix_cache)
            sampling = self._plain(wanted, request.temperature or self._temperature, skip)
        return await self._ask(before, wanted, sampling, request.version)

    async def _ask(self, before: list[int], wanted: list[int], sampling: Any, version: int) -> list[float]:
        """Logprobs of the tokens after this text, NaN where the weights of this version did not make them."""
        from vllm.inputs import TokensPrompt

        self._asked += 1
        current = self._current()
        self._core.scoring += 1
        try:
            prompt = TokensPrompt(prompt_token_ids=before)
            outputs = self._core.llm.generate(prompt, sampling, f"{self._core.name}-score-{self._asked}")
            output = [one async for one in outputs][-1].outputs[0]
        finally:
            self._core.scoring -= 1
        self.sampled += len(output.token_ids)
        same = current == self._current() == version
        if not _scored_under(output, version, unlabelled=same):
            return [math.nan] * len(wanted)
        return _logprobs(output, wanted)

    def _plain(self, wanted: list[int], temperature: float, skip_prefix_reads: bool) -> Any:
        """Nothing but the temperature."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        return SamplingParams(
            temperature=temperature, max_tokens=1, flat_logprobs=True, detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY, skip_reading_prefix_cache=skip_prefix_reads,
            **self._asking(wanted),
        )  # fmt: skip

    def _as_sampled(self, wanted: list[int], position: int) -> Any:
        """What a rollout is sampled with, for one token at this place of its response.

        Its text so far is a prompt here: penalties that count a response's own tokens alone find none of them.
        """
        sampling = self._usual(1)
        sampling.max_tokens, sampling.logprobs = 1, None
        sampling.min_tokens = int(sampling.min_tokens > position)
        for name, value in self._asking(wanted).items():
            setattr(sampling, name, value)
        return sampling

    def _bending(self) -> str:
        """The parameters of a rollout that bend the distribution beyond the temperature."""
        usual = self._usual(1)
        return ", ".join(
            f"{name}={getattr(usual, name):g}"
            for name, none in BENDING.items()
            if getattr(usual, name, none) not in (none, -1)
        )

    def _asking(self, wanted: list[int]) -> dict[str, Any]:
        return {"logprob_token_ids": wanted} if self._by_token else {"logprobs": -1}


def _scored_under(output: CompletionOutput, version: int, *, unlabelled: bool) -> bool:
    """Whether a one-token output is of these weights, with no fix being switched.

    `unlabelled` is the answer for a vLLM whose outputs carry no label.
    """
    if not output.token_ids:
        return False  # cut short by a pause
    if not hasattr(output, "weight_versions"):
        return unlabelled
    (stamped,), (epoch,) = epochs.stamps(output.weight_versions or (), 1)
    return bool(stamped == version and epoch != IN_BETWEEN)


def _logprobs(output: CompletionOutput, wanted: list[int]) -> list[float]:
    """The logprobs of these tokens in a one-token output."""
    flat: Any = output.logprobs
    found = dict(zip(flat.token_ids, flat.logprobs, strict=True))
    return [float(found[token]) for token in wanted]
