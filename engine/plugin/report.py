"""An engine's account of itself: facts read back from vLLM's objects, as fix states and as one line. Pure.

`read` is the one place where facts become the value of a fix; `engine.fixes` adds what an engine of our own pool can
do about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from driftline.catalog.fixes import BY_ID, OFF, ON, REMOVED, WAIT
from driftline.frames import EngineFix, FixState, How

PROCESSED: Final = "processed_logprobs"
RAW: Final = "raw_logprobs"
MIXED: Final = "mixed"
SALTED: Final = "salted"
"""Of `prefix-cache-off`: the cache is on, and requests carry a salt, by which a framework keeps versions apart."""
V0: Final = "V0"
NOT_READ: Final = "its workers have not been asked yet"


class WorkerFacts(msgspec.Struct, frozen=True):
    """What one worker has read back. Dtypes are torch names without `torch.`; `head_owner` is the module whose code

    computes the last projection, `head_switch` whether vLLM itself has a dtype of its own for it, `head_ours` whether
    our own code computes it, which is so in a pool's engine of a vLLM that has none.
    """

    logprobs_modes: tuple[str, ...]
    model_dtype: str
    head_dtypes: tuple[str, ...]
    head_switch: bool
    head_owner: str
    head_ours: bool = False


class CoreFacts(msgspec.Struct, frozen=True):
    """What the engine core knows. None, or "", is what this vLLM does not say.

    `pause` is mode and clear_cache of the framework's last pause; `salted` and `scheduled` count requests with a cache
    salt, and all, of those scheduled last; `freed` is what the reset at the last switch returned. `generation` is
    "V0" for the engine that vLLM had before 0.9.
    """

    platform: str
    vllm: str
    prefix_caching: bool | None
    async_scheduling: bool | None
    cascade_attention: bool | None
    skip_reads: bool = False
    freed: bool | None = None
    salted: int = 0
    scheduled: int = 0
    pause: tuple[str, bool] | None = None
    sampling_defaults: Mapping[str, Any] | None = None
    sampling_source: str = ""
    runner: str = ""
    generation: str = "V1"
    reports_only: str = ""
    """Why nothing can be switched from here, as a clause; "" where it can."""


class Facts(msgspec.Struct, frozen=True):
    """An engine read back: its core, its workers (or why there is nothing from them), since when each fix is so."""

    core: CoreFacts
    workers: tuple[WorkerFacts, ...] = ()
    problem: str = NOT_READ
    since: Mapping[str, int] = msgspec.field(default_factory=dict)


class Reading(NamedTuple):
    """A fix as it was read back: its value ("" for not known), how that shows, and why it cannot be switched in the

    running engine ("" where it can).
    """

    effective: str
    detail: str
    fixed: str = ""

    @property
    def text(self) -> str:
        """Detail and reason."""
        return "; ".join(part for part in (self.detail, self.fixed) if part)


def read(facts: Facts, fix_id: str) -> Reading:
    """A fix of the catalogue as this engine has it."""
    return _READERS[fix_id](facts)


def logprobs_mode(value: str) -> str:
    """vLLM's `logprobs_mode` for a value of `processed-logprobs`."""
    return PROCESSED if value == ON else RAW


def worker_facts(answer: Mapping[str, Any]) -> WorkerFacts:
    """A worker's answer to `engine.plugin.worker.facts`."""
    return WorkerFacts(
        tuple(answer["logprobs_modes"]), answer["model_dtype"], tuple(answer["head_dtypes"]),
        bool(answer["head_switch"]), str(answer["head_owner"]), bool(answer["head_ours"]),
    )  # fmt: skip


def fixes(engine: str, facts: Facts, time: float) -> list[FixState]:
    """Every fix of the catalogue as this engine has it: a state that holds this engine's own report."""
    found = []
    for fix_id in BY_ID:
        reading = read(facts, fix_id)
        live = not reading.fixed and not facts.core.reports_only
        detail = "; ".join(part for part in (reading.text, "" if reading.fixed else facts.core.reports_only) if part)
        how: How = "live" if live else "not_available"
        mine = EngineFix(engine, reading.effective, how, facts.since.get(fix_id, -1), -1, detail)
        found.append(FixState(fix_id, reading.effective, 0, "", time, how, (mine,)))
    return found


def refusal(facts: Facts, fix_id: str, value: str) -> str:
    """Why this engine cannot take the value now, as a sentence; "" where it can."""
    reading = read(facts, fix_id)
    if facts.core.reports_only:
        return facts.core.reports_only
    if reading.effective == value:
        return ""
    if reading.fixed or value not in (ON, OFF):
        return f"{fix_id} {value} cannot be switched from here: {reading.text}"
    return ""


def settings(facts: Facts) -> str:
    """How the engine is set, in one line."""
    core = facts.core
    parts = [f"logprobs {_one({mode for worker in facts.workers for mode in worker.logprobs_modes})}"]
    heads = {dtype for worker in facts.workers for dtype in worker.head_dtypes}
    bodies = {worker.model_dtype for worker in facts.workers}
    parts.append(f"head {_one(heads)}, body {_one(bodies)}")
    for name, value in (
        ("prefix cache", core.prefix_caching),
        ("async scheduling", core.async_scheduling),
        ("cascade attention", core.cascade_attention),
    ):
        parts.append(f"{name} {'not reported' if value is None else 'on' if value else 'off'}")
    if core.sampling_defaults is not None:
        defaults = ", ".join(f"{key} {value}" for key, value in sorted(core.sampling_defaults.items()))
        parts.append(f"sampling defaults {defaults or 'vLLM’s own'} ({core.sampling_source})")
    if core.runner:
        parts.append(f"{core.runner} model runner")
    return "; ".join(parts)[:600]


def _one(values: set[str]) -> str:
    return "/".join(sorted(values)) or "not read"


def _processed(facts: Facts) -> Reading:
    modes = {mode for worker in facts.workers for mode in worker.logprobs_modes}
    if not modes:
        return Reading("", "", facts.problem)
    if facts.core.generation == V0:
        return Reading(ON, "V0: processed by itself", "its sampler has no raw ones")
    effective = ON if modes == {PROCESSED} else MIXED if PROCESSED in modes else OFF
    return Reading(effective, f"logprobs_mode={_one(modes)}")


def _prefix_cache(facts: Facts) -> Reading:
    core = facts.core
    if core.prefix_caching is None:
        return Reading("", "", "this vLLM does not say whether it has a prefix cache")
    if not core.prefix_caching and core.generation == V0:
        return Reading(REMOVED, "V0: off by default", "the engine was built without a prefix cache")
    if not core.prefix_caching:
        return Reading(REMOVED, "", "the engine was built without a prefix cache")
    if core.skip_reads:
        freed = {
            None: "",
            True: "; reset_prefix_cache() returned true: every block is gone",
            False: "; reset_prefix_cache() returned false: requests in flight hold blocks, which no new one reads",
        }[core.freed]
        return Reading(ON, f"requests begun since then read no cached block{freed}")
    if core.salted:
        some = "" if core.salted == core.scheduled else f" ({core.salted} of the last {core.scheduled})"
        return Reading(
            SALTED if not some else MIXED, f"requests carry a cache salt{some}: blocks of one salt are shared"
        )
    return Reading(OFF, "requests read cached blocks, whichever weights they were computed with")


def _async_scheduling(facts: Facts) -> Reading:
    on = facts.core.async_scheduling
    if facts.core.generation == V0:
        return Reading(ON, "", "V0 has no async scheduling")
    if on is None:
        return Reading("", "", "this vLLM does not say how it schedules")
    if facts.core.platform == "cpu":
        return Reading(OFF if on else ON, "", "vLLM's CPU platform forces async scheduling off")
    how = "chosen when the framework builds the engine: --async-scheduling or --no-async-scheduling"
    return Reading(OFF if on else ON, "", how)


def _inflight(facts: Facts) -> Reading:
    why = "decided by its framework, which pauses the engine for a weight update"
    if facts.core.pause is None:
        return Reading("", "", f"no weight update has paused this engine yet; {why}")
    mode, clear = facts.core.pause
    effective = {("keep", False): ON, ("keep", True): MIXED, ("wait", True): WAIT, ("wait", False): WAIT}.get(
        facts.core.pause, OFF
    )
    return Reading(effective, f"the last pause was mode={mode}, clear_cache={clear}", why)


def _head(facts: Facts) -> Reading:
    why = 'the head\'s dtype is fixed when the model is loaded: --hf-overrides \'{"head_dtype": "float32"}\''
    if not facts.workers:
        return Reading("", "", facts.problem)
    first = facts.workers[0]
    if not first.head_switch:
        why = "this vLLM has no dtype of its own for the head (vLLM 0.26 and newer have, at load time)"
    if first.head_owner:
        return Reading("", "", f"the last projection is computed by {first.head_owner}, not by vLLM: not known")
    dtypes = {dtype for worker in facts.workers for dtype in worker.head_dtypes}
    if not dtypes:
        return Reading("", "", "the model has no logits processor that could be asked")
    effective = ON if dtypes == {"float32"} else MIXED if "float32" in dtypes else OFF
    ours = "; Driftline's code switches it, this vLLM has no dtype of its own for it" if first.head_ours else ""
    return Reading(effective, f"head {_one(dtypes)}, body {first.model_dtype}{ours}", why)


_READERS: Final[dict[str, Callable[[Facts], Reading]]] = {
    "processed-logprobs": _processed,
    "prefix-cache-off": _prefix_cache,
    "async-scheduling-off": _async_scheduling,
    "inflight-keep": _inflight,
    "fp32-lm-head": _head,
}
