"""A running vLLM, of whichever version, as the rest of the actor speaks to it.

`engine.actor.v1` has V1's `AsyncLLM` behind it, `engine.actor.v0` V0's `LLMEngine`. What is asked without waiting in
between is done in that order, between steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engine.plugin.report import CoreFacts
from engine.types import PauseMode


@dataclass(frozen=True)
class Sampling:
    """What a request asks for. Nothing in it may bend the distribution beyond the temperature: the trainer must be

    able to repeat it. So there is no `min_tokens` (it masks EOS), and no `seed` (with a pause it kills the CPU build's
    core). `more` are further parameters by vLLM's names; the actor sets none.
    """

    n: int
    temperature: float
    max_tokens: int
    stop_ids: Sequence[int] = ()
    skip_prefix_reads: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """Tokens [start, end) of a response were sampled under the label `version`."""

    version: str
    start: int
    end: int


@dataclass(frozen=True)
class Response:
    """One sampled response: token ids int32 and logprobs float32 (nats), both [length], and why it ended."""

    ids: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]
    spans: Sequence[Span]
    finish: str


@dataclass(frozen=True)
class Asked:
    """Tokens of one response to be scored: those at `positions` (ascending) of `ids`, each after `prompt` and what is

    before it in `ids`.
    """

    prompt: Sequence[int]
    ids: npt.NDArray[np.int32]
    positions: Sequence[int]


@dataclass(frozen=True)
class Probed:
    """A place of a response: what comes before it, the ids whose logprobs are wanted there, and its position."""

    before: Sequence[int]
    wanted: Sequence[int]
    position: int


@dataclass(frozen=True)
class Scored:
    """A token's logprob, and the label of the weights that scored it; "" where more than one may have."""

    logprob: float
    label: str


class EngineDiedError(Exception):
    """vLLM's core is dead."""


class RequestFailedError(Exception):
    """vLLM refused a request, or failed over it; the engine lives on."""


class Host(Protocol):
    """See the module. `exact_stamps`: `stamp` is exact also while steps are made; else generation has to stand."""

    built: CoreFacts
    workers: int
    exact_stamps: bool

    @property
    def errored(self) -> bool:
        """Whether vLLM's core is dead."""

    @property
    def sequences(self) -> int:
        """Those of rollouts that have not come to their end."""

    @property
    def sampled(self) -> int:
        """Tokens that the sequences in flight have been given; exact while generation stands."""

    async def generate(self, prompt: Sequence[int], sampling: Sampling, request: str) -> list[Response]:
        """Sample to the end. Raises EngineDiedError, and RequestFailedError with vLLM's words."""

    async def score(self, asked: Asked, sampling: Sampling, request: str) -> list[Scored | None]:
        """One for each position, None for one that a pause cut short. Raises as `generate` does."""

    async def probe(self, asked: Probed, sampling: Sampling, request: str) -> list[Scored] | None:
        """One for each wanted id, sampled as `sampling` says; None where a pause cut it short. Raises as `generate`

        does, and RequestFailedError where this vLLM cannot.
        """

    def bending(self, sampling: Sampling) -> str:
        """The parameters of such a request that do more than divide by the temperature: "top_p=0.9", "" for none."""

    async def stamp(self, label: str) -> None:
        """Have the tokens of every step from now on carry this label."""

    async def call_workers(self, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> list[dict[str, Any]]:
        """Call a method in every worker. Raises what vLLM raises."""

    async def pause(self, mode: PauseMode, *, settle: bool) -> None:
        """See `engine.actor.core.Core.pause`."""

    async def resume(self) -> None:
        """Schedule again."""

    async def reset_prefix_cache(self) -> bool:
        """Empty the prefix cache; false, and nothing done, while requests hold blocks."""

    async def abort(self) -> int:
        """End every sequence in flight with what it has; returns how many."""

    async def init_transfer(self, init_info: dict[str, Any]) -> None:
        """Let the workers meet the trainer, for a transport that needs it."""

    def shutdown(self) -> None:
        """End vLLM's processes."""
