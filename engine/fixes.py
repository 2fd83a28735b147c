"""The state of each fix of the catalogue on an engine: how it can take effect there, and its present value.

Pure functions from facts read back from the engine (`Backend`) to `EngineFix`; applying them is the actor's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from driftline.catalog.fixes import BY_ID, OFF, ON, REMOVED, WAIT
from driftline.frames import EngineFix, How
from engine.types import Backend, PauseMode

PROCESSED: Final = "processed_logprobs"
RAW: Final = "raw_logprobs"
MIXED: Final = "mixed"

PAUSES: Final[dict[str, PauseMode]] = {OFF: "abort", ON: "keep", WAIT: "wait"}
"""vLLM's `pause_generation` mode for each value of `inflight-keep`; all but "keep" clear the caches too."""


def describe(engine: str, backend: Backend) -> dict[str, EngineFix]:
    """Every fix of the catalogue as this engine has it."""
    return {fix_id: _describe(engine, backend, fix_id) for fix_id in BY_ID}


def path(state: EngineFix, fix_id: str, value: str) -> How:
    """How `value` would take effect on the engine with this state. Raises nothing: the catalogue checks values.

    `EngineFix.how` speaks of the other usual value; "removed" takes a restart, to it and from it. Of an engine that
    reports nothing (dead, or restarting) the catalogue's answer is returned.
    """
    if REMOVED in (value, state.effective) and value != state.effective:
        return "engine_restart"
    if not state.effective:
        return BY_ID[fix_id].how
    if state.how != "next_sync" and state.effective == value:
        return "live"  # nothing is left to do
    return state.how


def refusal(state: EngineFix, fix_id: str, value: str) -> str:
    """The reason why this engine can never take `value`, as a sentence; empty when it can (or already has it)."""
    if path(state, fix_id, value) != "not_available":
        return ""
    return f"{state.engine}: {fix_id} cannot be switched {value} here: {state.detail}"


def not_live(state: EngineFix, fix_id: str, value: str) -> str:
    """The reason why `value` cannot take effect at once, as a sentence; empty when it can."""
    how = path(state, fix_id, value)
    if how in ("live", "not_available"):
        return refusal(state, fix_id, value)
    when = "with the next weight sync" if how == "next_sync" else "with a restart of the engine"
    return f"{state.engine}: {fix_id} {value} takes effect {when}, not at once"


def logprobs_mode(value: str) -> str:
    """vLLM's `logprobs_mode` for a value of `processed-logprobs`."""
    return PROCESSED if value == ON else RAW


def head_dtype(value: str, model_dtype: str) -> str:
    """Dtype of the last projection for a value of `fp32-lm-head`.

    "off" is what vLLM does on a half-precision model; a float32 body (the CPU build's choice) then still gets a
    bfloat16 head, so that the switch means the same everywhere.
    """
    if value == ON:
        return "float32"
    return "bfloat16" if model_dtype == "float32" else model_dtype


def wanted_at_start(wanted: Mapping[str, str]) -> dict[str, str]:
    """Every fix with its value at start: vLLM's default where the configuration names none.

    But for `inflight-keep`: a trainer asks for "keep" with every pause unless configured otherwise.
    """
    usual = {fix_id: fix.values[0] for fix_id, fix in BY_ID.items()} | {"inflight-keep": ON}
    return usual | dict(wanted)


def _describe(engine: str, backend: Backend, fix_id: str) -> EngineFix:
    effective, how, detail = _READERS[fix_id](backend)
    return EngineFix(
        engine=engine, effective=effective, how=how, since_version=backend.since.get(fix_id, -1), detail=detail
    )


def _processed(backend: Backend) -> tuple[str, How, str]:
    return (ON if backend.logprobs_mode == PROCESSED else OFF), "live", f"logprobs_mode={backend.logprobs_mode}"


def _prefix_cache(backend: Backend) -> tuple[str, How, str]:
    if not backend.prefix_caching:
        return REMOVED, "engine_restart", "the engine was built without a prefix cache"
    if not backend.skip_prefix_reads:
        return OFF, "live", "requests read cached blocks"
    reset = {
        None: "",
        True: "; reset_prefix_cache() returned true: every block is gone",
        False: "; reset_prefix_cache() returned false: requests in flight hold blocks, which no new one reads",
    }[backend.freed]
    return ON, "live", f"requests submitted since then read no cached block{reset}"


def _async_scheduling(backend: Backend) -> tuple[str, How, str]:
    effective = OFF if backend.async_scheduling else ON
    if backend.platform == "cpu":
        return effective, "not_available", "vLLM's CPU platform forces async scheduling off"
    return effective, "engine_restart", "it is chosen when the engine is built"


def _inflight_keep(backend: Backend) -> tuple[str, How, str]:
    details = {
        ON: "a sync keeps requests in flight and clears no cache",
        WAIT: "a sync waits for requests in flight, then clears the caches",
        OFF: "a sync aborts requests in flight and clears the caches",
    }
    return backend.inflight, "next_sync", details[backend.inflight]


def _fp32_head(backend: Backend) -> tuple[str, How, str]:
    heads = set(backend.head_dtypes)
    effective = ON if heads == {"float32"} else OFF if "float32" not in heads else MIXED
    return effective, "next_sync", f"head {'/'.join(sorted(heads))}, body {backend.model_dtype}"


_READERS: Final[dict[str, Callable[[Backend], tuple[str, How, str]]]] = {
    "processed-logprobs": _processed,
    "prefix-cache-off": _prefix_cache,
    "async-scheduling-off": _async_scheduling,
    "inflight-keep": _inflight_keep,
    "fp32-lm-head": _fp32_head,
}
