"""Scoring tokens that another engine has sampled, through this engine's own sampler, under the same weights.

How a vLLM is asked for them is its host's: see `engine.actor.v1` and `engine.actor.v0`. What it says has been through
temperature, mode, head and prefix cache like any sampled token's, and is stamped with the weights that made it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.actor import epochs
from engine.actor.core import Core
from engine.actor.host import Asked, Probed, Sampling, Scored
from engine.types import IN_BETWEEN, ProbeRequest, ProbeScores, ScoreRequest, Scores

AT_ONCE: Final = 32
"""Tokens asked for together: rollouts must not find the engine full of them, and after each such batch it is seen
whether the weights have changed meanwhile."""

_Chunk = tuple[int, int, npt.NDArray[np.int32]]
"""Tokens of one response: its row, where they begin among the positions asked for, and the positions."""


class Scoring:
    """`current` is the version of the weights that serve, `free` whether requests can be scheduled, `usual` how a

    rollout of so many samples is asked for.
    """

    def __init__(
        self,
        core: Core,
        temperature: float,
        current: Callable[[], int],
        free: Callable[[], bool],
        usual: Callable[[int], Sampling],
    ) -> None:
        self._core, self._temperature, self._current, self._free = core, temperature, current, free
        self._usual = usual
        self._asked = 0
        self.sampled = 0
        """Tokens that were sampled for it, which are no rollout's."""

    async def run(self, request: ScoreRequest, *, skip_prefix_reads: bool) -> Scores:
        """Score the tokens; NaN for those that the asked-for weights did not score. Raises what its host raises."""
        began = time.perf_counter()
        found = [np.full(len(positions), math.nan, dtype=np.float32) for positions in request.positions]
        sampling = Sampling(1, self._temperature, 1, skip_prefix_reads=skip_prefix_reads)
        chunks = [
            (row, start, request.positions[row][start : start + AT_ONCE])
            for row in range(len(request.positions))
            for start in range(0, len(request.positions[row]), AT_ONCE)
        ]
        for batch in _batches(chunks):
            if self._current() != request.version or not self._free():
                break
            scored = await asyncio.gather(
                *(
                    self._score(Asked(request.prompt_ids, request.sequences[row], list(map(int, places))), sampling)
                    for row, _, places in batch
                )
            )
            for (row, start, places), values in zip(batch, scored, strict=True):
                found[row][start : start + len(places)] = [_under(one, request.version) for one in values]
        return Scores(self._core.name, found, time.perf_counter() - began)

    async def probe(self, request: ProbeRequest, *, skip_prefix_reads: bool) -> ProbeScores:
        """Score the tokens in the way that is asked for, as `run`. Raises what its host raises."""
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
        said = self._core.host.bending(self._usual(1)) if request.usual else ""
        return ProbeScores(self._core.name, found, time.perf_counter() - began, asked, said)

    async def _probe(self, request: ProbeRequest, row: int, at: int, skip_prefix_reads: bool) -> list[float]:
        ids, position = request.sequences[row], int(request.positions[row][at])
        before, token = [*request.prompts[row], *map(int, ids[:position])], int(ids[position])
        wanted = [token, *(map(int, request.candidates[row][at]) if request.candidates else ())]
        sampling = self._usual(1)
        if not request.usual:
            skip = skip_prefix_reads or not request.cached or sampling.skip_prefix_reads
            sampling = Sampling(1, request.temperature or self._temperature, 1, skip_prefix_reads=skip)
        self._asked += 1
        probed = Probed(before, wanted, position)
        scored = await self._core.host.probe(probed, sampling, f"{self._core.name}-score-{self._asked}")
        self.sampled += scored is not None
        if scored is None:
            return [math.nan] * len(wanted)
        return [_under(one, request.version) for one in scored]

    async def _score(self, asked: Asked, sampling: Sampling) -> Sequence[Scored | None]:
        self._asked += 1
        scored = await self._core.host.score(asked, sampling, f"{self._core.name}-score-{self._asked}")
        self.sampled += sum(one is not None for one in scored)
        return scored


def _batches(chunks: list[_Chunk]) -> Iterator[list[_Chunk]]:
    """Chunks together, at most AT_ONCE tokens each time."""
    batch: list[_Chunk] = []
    for chunk in chunks:
        if batch and sum(len(places) for _, _, places in batch) + len(chunk[2]) > AT_ONCE:
            yield batch
            batch = []
        batch.append(chunk)
    if batch:
        yield batch


def _under(scored: Scored | None, version: int) -> float:
    """A logprob of these weights, with no fix being switched; else NaN."""
    if scored is None or not scored.label:
        return math.nan
    stamped, epoch = epochs.parse(scored.label)
    return scored.logprob if stamped == version and epoch != IN_BETWEEN else math.nan
