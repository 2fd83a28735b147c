"""vLLM's `AsyncLLM` as the rest of the engine speaks to it: every failure an EngineError that names the engine.

What is asked of it without waiting in between is done in that order, between steps: its core reads one socket.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from engine.actor.launch import one_line
from engine.types import EngineError, PauseMode

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


_WORKER: Final = re.compile(
    r"Call to \w+ method failed: (?:Worker failed with error '(?P<process>.*)', please check the stack trace.*"
    r"|(?P<core>.*))",
    re.DOTALL,
)
"""The text that vLLM puts around the error message of a worker in a process of its own, and of one in the core's."""


def worker_error(text: str) -> str:
    """A worker's own words in what vLLM reports of its failure, on one line."""
    found = _WORKER.search(text)
    return one_line((found["process"] or found["core"]) if found else text)


class Core:
    """A running vLLM. `name` is the engine's."""

    def __init__(self, name: str, llm: AsyncLLM) -> None:
        from vllm.platforms import current_platform

        self.name, self.llm = name, llm
        self.scoring = 0
        """Requests in flight that score another engine's tokens: see engine.actor.scoring."""
        config = llm.vllm_config
        self.platform = str(current_platform.device_type)
        self.prefix_caching = bool(config.cache_config.enable_prefix_caching)
        self.async_scheduling = bool(config.scheduler_config.async_scheduling)
        self.workers = int(config.parallel_config.world_size)

    async def stamp(self, label: str) -> None:
        """Have the tokens of every step from now on carry this label."""
        await self.llm.update_weight_version(label)

    async def ask(self, method: str, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Call a method of `DriftlineWorker` in every worker. Raises EngineError with the worker's own words."""
        try:
            answers: list[dict[str, Any]] = await self.llm.collective_rpc(method, args=args, kwargs=kwargs)
        except Exception as error:  # vLLM hands a worker's failure over as a bare Exception
            raise EngineError(f"{self.name}: {worker_error(str(error))}") from error
        return answers

    async def facts(self, method: str = "driftline_facts", **kwargs: Any) -> dict[str, Any]:
        """The facts that all workers agree on. Raises EngineError when they do not."""
        return self.agreed(await self.ask(method, **kwargs))

    def agreed(self, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The one answer of all workers. Raises EngineError when they disagree."""
        if any(other != answers[0] for other in answers[1:]):
            raise EngineError(f"{self.name}: its workers disagree: {answers}")
        return answers[0]

    async def pause(self, mode: PauseMode, *, settle: bool = True) -> None:
        """Stop scheduling: "keep" freezes requests, "abort" ends them, "wait" lets them finish; the last two clear

        the caches as well, which is vLLM's own default. `settle`: wait also, as vLLM does for its callers' sake, 20 ms
        for the last outputs to be through. A sync need not: they are by the time its weights have been loaded.
        """
        try:
            if settle or mode != "keep":
                await self.llm.pause_generation(mode=mode, clear_cache=mode != "keep")
            else:
                await self.llm.engine_core.pause_scheduler_async(mode=mode, clear_cache=False)
        except Exception as error:  # as in `ask`
            raise EngineError(f"{self.name}: pausing failed: {one_line(str(error))}") from error

    async def resume(self, label: str) -> None:
        """Schedule again, the first step already under this label."""
        await asyncio.gather(self.stamp(label), self.llm.resume_generation())

    async def reset_prefix_cache(self) -> bool:
        """Empty the prefix cache; false, and nothing done, while requests hold blocks."""
        return bool(await self.llm.reset_prefix_cache())

    @property
    def in_flight(self) -> int:
        """Sequences that have not come to their end."""
        return int(self.llm.get_num_unfinished_requests()) - self.scoring

    @property
    def sampled(self) -> int:
        """Tokens that the sequences in flight have been given.

        Read from `AsyncLLM.output_processor.request_states`, which holds one state per sequence until it ends and
        whose detokenizer counts output tokens also when it detokenizes nothing; exact while generation is paused and
        the last outputs are through: see `pause`.
        """
        states = self.llm.output_processor.request_states.values()
        return sum(state.detokenizer.num_output_tokens() for state in states if state.detokenizer is not None)

    async def abort_all(self) -> int:
        """End every sequence in flight with what it has; returns how many."""
        states = self.llm.output_processor.request_states
        count, requests = len(states), sorted({state.external_req_id for state in states.values()})
        await self.llm.abort(requests)
        return count
