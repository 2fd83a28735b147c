"""An engine's vLLM as the rest of the actor speaks to it: every failure an EngineError that names the engine.

What is asked of it without waiting in between is done in that order, between steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from engine.actor.host import Host
from engine.actor.launch import one_line
from engine.plugin import worker
from engine.plugin.report import Facts, worker_facts
from engine.types import EngineError, PauseMode


class Core:
    """A running vLLM. `name` is the engine's."""

    def __init__(self, name: str, host: Host) -> None:
        self.name, self.host = name, host
        self.built = host.built

    async def stamp(self, label: str) -> None:
        """Have the tokens of every step from now on carry this label."""
        await self.host.stamp(label)

    async def ask(self, method: str, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Call a method of `engine.plugin.worker` in every worker. Raises EngineError with a worker's own words."""
        try:
            answers = await self.host.call_workers(method, args, kwargs)
        except Exception as error:  # vLLM hands a worker's failure over as a bare Exception
            words = one_line(str(error))
            if f"'{method}' is not implemented" in words or f"has no attribute '{method}'" in words:
                words = f"its workers have not loaded Driftline's plugin, a vllm.general_plugins entry point: {words}"
            raise EngineError(f"{self.name}: {words}") from error
        for answer in answers:
            if worker.failure(answer):
                raise EngineError(f"{self.name}: {one_line(answer['error'] or answer['kind'])}")
        return answers

    async def facts(self, method: str = worker.FACTS, **kwargs: Any) -> Facts:
        """The facts that all workers agree on. Raises EngineError when they do not."""
        return Facts(self.built, (worker_facts(self.agreed(await self.ask(method, **kwargs))),), "")

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
            await self.host.pause(mode, settle=settle)
        except Exception as error:  # as in `ask`
            raise EngineError(f"{self.name}: pausing failed: {one_line(str(error))}") from error

    async def resume(self, label: str) -> None:
        """Schedule again, the first step already under this label."""
        await asyncio.gather(self.stamp(label), self.host.resume())

    async def reset_prefix_cache(self) -> bool:
        """Empty the prefix cache; false, and nothing done, while requests hold blocks."""
        return await self.host.reset_prefix_cache()

    @property
    def in_flight(self) -> int:
        """Sequences that have not come to their end."""
        return self.host.sequences

    @property
    def sampled(self) -> int:
        """Tokens that the sequences in flight have been given; exact while generation is paused and the last outputs

        are through: see `pause`.
        """
        return self.host.sampled

    async def abort_all(self) -> int:
        """End every sequence in flight with what it has; returns how many."""
        return await self.host.abort()
