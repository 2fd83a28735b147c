"""Requests to an engine pool and its results. Frozen values; no Ray, no vLLM, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from driftline.frames import EngineFix, EngineState
from engine.errors import DeadCoreError as DeadCoreError
from engine.errors import EngineError as EngineError

Finish = Literal["stop", "length", "abort"]
PauseMode = Literal["keep", "wait", "abort"]
"""What a pause does with requests in flight: freeze them, let them finish, or end them."""

Reset = Literal["kept", "freed", "refused"]
"""Outcome for the prefix cache: left alone, emptied, or not emptied because requests hold blocks."""

IN_BETWEEN = -1
"""The epoch of a token sampled while a fix was being switched: it belongs to neither state."""


@dataclass(frozen=True)
class RolloutRequest:
    """`n` samples of one prompt. `group` is the caller's own number, returned with the result."""

    group: int
    prompt_ids: list[int]
    n: int


@dataclass(frozen=True)
class Sequence:
    """One sampled response. All arrays have the length of the response, the stop token included.

    `logprobs` are the engine's own (natural logarithm) of the sampled tokens, raw or processed as the fix
    `processed-logprobs` says. `versions[i]` is the version of the weights that sampled token i, as vLLM's core
    recorded it in the step that sampled it; `epochs[i]` is the engine's fix epoch at that step (see Group.states).
    "abort" is a response that a pause cut short, with what it had.
    """

    ids: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]
    versions: npt.NDArray[np.int32]
    epochs: npt.NDArray[np.int32]
    finish: Finish


@dataclass(frozen=True)
class Group:
    """A completed request. `started` and `finished` are Unix times on the engine's clock.

    `states` maps each epoch that occurs in `epochs` (but IN_BETWEEN) to the value that every fix had on this engine
    in it; `prefix-cache-off` is a request's own from its submission on, so it is the group's value in all of them.
    An engine counts its epochs from 0, so they mean nothing beside another engine's, or another process's.
    """

    group: int
    engine: str
    prompt_ids: list[int]
    sequences: list[Sequence]
    started: float
    finished: float
    states: dict[int, dict[str, str]] = field(default_factory=dict)

    @property
    def aborted(self) -> bool:
        """Whether any response was cut short: the group has to be run again."""
        return any(sequence.finish == "abort" for sequence in self.sequences)


@dataclass(frozen=True)
class ScoreRequest:
    """Tokens for an engine to score that another one has sampled under the weights `version`.

    `positions[i]` are places in the response `sequences[i]`, ascending; each token there is to be scored after
    `prompt_ids` and what precedes it in its response.
    """

    group: int
    version: int
    prompt_ids: list[int]
    sequences: list[npt.NDArray[np.int32]]
    positions: list[npt.NDArray[np.int32]]

    @property
    def tokens(self) -> int:
        """How many are to be scored."""
        return sum(len(positions) for positions in self.positions)


@dataclass(frozen=True)
class Scores:
    """`logprobs[i]` of the tokens at `ScoreRequest.positions[i]`, NaN where the asked-for weights did not serve."""

    engine: str
    logprobs: list[npt.NDArray[np.float32]]
    seconds: float


@dataclass(frozen=True)
class ProbeRequest:
    """Tokens of recorded sequences for an engine to score in one of the ways that it can, under the weights `version`.

    Row i is `sequences[i]` after `prompts[i]`, scored at the ascending places `positions[i]`. `usual`: with the
    sampling parameters of a rollout, masks and penalties among them; else with nothing but `temperature` (0: the
    engine's own). `cached`: prefixes may come from the cache where a rollout's may; else none is read. `candidates[i]`
    int32 [len(positions[i]), C] are further ids whose logprobs are wanted at each place; none at all where it is empty.
    At most `at_once` requests are under way together.
    """

    version: int
    prompts: list[list[int]]
    sequences: list[npt.NDArray[np.int32]]
    positions: list[npt.NDArray[np.int32]]
    usual: bool = False
    temperature: float = 0.0
    cached: bool = True
    candidates: list[npt.NDArray[np.int32]] = field(default_factory=list)
    at_once: int = 32

    @property
    def tokens(self) -> int:
        """How many are to be scored, each by a request of its own."""
        return sum(len(positions) for positions in self.positions)


@dataclass(frozen=True)
class ProbeScores:
    """`logprobs[i]` float32 [len(positions[i]), 1 + C]: of the token itself, then of the candidates; NaN where the

    asked-for weights did not serve. `seconds` of the engine's time, for `requests` requests. `sampling` names the
    parameters of a rollout beyond the temperature that are not vLLM's defaults, "top_p=0.9"; "" for none, and where the
    request was not `usual`.
    """

    engine: str
    logprobs: list[npt.NDArray[np.float32]]
    seconds: float
    requests: int
    sampling: str = ""


HeldEntry = tuple[str, tuple[int, ...], int]
"""dtype, shape and crc32c of a tensor, as `engine.weights.publish.Entry`."""


@dataclass(frozen=True)
class HeldWeights:
    """What an engine holds, tensor by tensor in the trainer's names, as it was when it was last loaded.

    `version` is what its tokens are labelled with. Tensors that a kernel has packed and that no load has brought are
    not in `entries`.
    """

    engine: str
    version: int
    entries: dict[str, HeldEntry]


@dataclass(frozen=True)
class ShadowPair:
    """Tokens that `sampled` has sampled and `scored` has scored: |difference of their logprobs|, in nats."""

    sampled: str
    scored: str
    differences: npt.NDArray[np.float64]


@dataclass(frozen=True)
class ShadowStep:
    """What was scored since the previous one. `share` is the fraction that is taken now, of the `wanted` one.

    `skipped` counts the tokens of taken groups that were not scored: no room, other weights, no engine for it.
    """

    pairs: tuple[ShadowPair, ...]
    skipped: int
    share: float
    wanted: float


@dataclass(frozen=True)
class SyncReport:
    """One weight sync on one engine. Seconds, bytes, Unix start time.

    `ok` false means that the engine does not hold the new weights: `version_after` then is the old version, and
    `detail` says why and whether the engine stays paused. `held_s` is how long generation stood still. `digest` is
    of the weights that the engine holds, as `engine.weights.publish.digest` has it; `straddling` counts the tokens that
    the sequences in flight had been given before the update, `aborted` the sequences that the pause cut short.
    `fixes` are the states of all fixes, read back after the load. `verified` is "held" when the digest is of the
    parameters that serve, "received" when some could only be checked as they arrived (see engine.verify), "" when
    nothing was loaded.
    """

    engine: str
    ok: bool
    version_before: int
    version_after: int
    start: float
    pause_s: float
    load_s: float
    resume_s: float
    total_s: float
    bytes: int
    in_flight: int
    detail: str = ""
    verify_s: float = 0.0
    reset_s: float = 0.0
    held_s: float = 0.0
    reset: Reset = "kept"
    digest: str = ""
    straddling: int = 0
    aborted: int = 0
    attempts: int = 1
    fixes: tuple[EngineFix, ...] = ()
    verified: str = ""


@dataclass(frozen=True)
class RestartReport:
    """One engine of a rolling restart: seconds without it, groups that others took over or that were run again."""

    engine: str
    down_s: float
    moved: int
    version: int
    fixes: tuple[EngineFix, ...] = ()


@dataclass(frozen=True)
class PauseReport:
    """A pause or resume on one engine. `in_flight` counts the sequences it was holding."""

    engine: str
    paused: bool
    changed: bool
    seconds: float
    in_flight: int


@dataclass(frozen=True)
class EngineSample:
    """An engine's state with the running totals since its start; rates are differences of two samples."""

    state: EngineState
    generated: int
    prefix_queries: int
    prefix_hits: int


@dataclass(frozen=True)
class PoolStats:
    """The pool over the interval since the previous call.

    `tokens_per_s`, `running` and `waiting` are sums over engines, `kv_use` is the fullest engine's fraction,
    `prefix_hit_rate` the fraction of queried prompt tokens found in the prefix cache: NaN when none was queried.
    """

    tokens_per_s: float
    running: int
    waiting: int
    kv_use: float
    prefix_hit_rate: float
    interval_s: float
    engines: tuple[EngineState, ...]


@dataclass(frozen=True)
class EngineInfo:
    """Description of an engine once it is up. `loaded_s`: seconds from the first import to ready.

    `workers` is the number of vLLM's worker processes: tensor-parallel size times pipeline-parallel size. `node` is
    the machine's host name, `node_id` Ray's id of its node: a machine may have several. `python` is its interpreter.
    """

    engine: str
    pid: int
    node: str
    backend: str
    vllm: str
    async_scheduling: bool
    loaded_s: float
    workers: int = 1
    node_id: str = ""
    python: str = ""


@dataclass(frozen=True)
class ProcessLocation:
    """Process and node of an actor: known before vLLM loads, so that its processes can always be ended."""

    pid: int
    node: str


def engine_names(count: int) -> list[str]:
    """Names of the engines of a pool, in order."""
    return [f"engine-{index}" for index in range(count)]


def hit_rate(hits: int, queries: int) -> float:
    """hits / queries; NaN when nothing was queried, as with `prefix-cache-off`."""
    return hits / queries if queries else math.nan
