"""The state of each fix of the catalogue on an engine of our own pool: its value, and how it can take effect there.

The value is read by `engine.plugin.report`, as it is of any engine; a pool can do more about it than the plugin, since
it restarts its engines and loads their weights. Pure functions; applying them is the actor's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from driftline.catalog.fixes import BY_ID, OFF, ON, REMOVED, WAIT
from driftline.frames import EngineFix, How
from engine.plugin.report import V0, Facts, read
from engine.types import PauseMode

PAUSES: Final[dict[str, PauseMode]] = {OFF: "abort", ON: "keep", WAIT: "wait"}
"""vLLM's `pause_generation` mode for each value of `inflight-keep`; all but "keep" clear the caches too."""


_INFLIGHT: Final = {
    ON: "a sync keeps requests in flight and clears no cache",
    WAIT: "a sync waits for requests in flight, then clears the caches",
    OFF: "a sync aborts requests in flight and clears the caches",
}


def describe(engine: str, facts: Facts, inflight: str) -> dict[str, EngineFix]:
    """Every fix of the catalogue as this engine has it.

    `inflight` is the value of `inflight-keep` with which the last sync paused (before the first: the value at start).
    """
    found = {}
    for fix_id in BY_ID:
        effective, how, detail = _state(facts, fix_id, inflight)
        found[fix_id] = EngineFix(engine, effective, how, facts.since.get(fix_id, -1), detail=detail)
    return found


def path(state: EngineFix, fix_id: str, value: str) -> How:
    """How `value` would take effect on the engine with this state. Raises nothing: the catalogue checks values.

    `EngineFix.how` speaks of the other usual value; "removed" takes a restart, to it and from it. Of an engine that
    reports nothing (dead, or restarting) the catalogue's answer is returned. V0 has no prefix cache to restart with.
    """
    if state.effective == REMOVED and state.how == "not_available":
        return "live" if value in (ON, REMOVED) else "not_available"
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


def _state(facts: Facts, fix_id: str, inflight: str) -> tuple[str, How, str]:
    """Value, way and detail of a fix. What the plugin reports as fixed the pool changes at a sync or by a restart."""
    if fix_id == "inflight-keep":
        return inflight, "next_sync", _INFLIGHT[inflight]
    reading = read(facts, fix_id)
    if not reading.fixed:
        return reading.effective, "live", reading.detail
    if reading.effective == REMOVED and facts.core.generation != V0:
        return REMOVED, "engine_restart", reading.text
    if fix_id == "fp32-lm-head" and reading.effective:
        return reading.effective, "next_sync", reading.detail
    if fix_id == "async-scheduling-off" and reading.effective and facts.core.platform != "cpu":
        return reading.effective, "engine_restart", "it is chosen when the engine is built"
    return reading.effective, "not_available", reading.text
