"""From a vLLM server's pages to the frames of an engine: what the pages do not say is "not recorded". Pure.

Names of the metrics as in vLLM 0.32's `vllm/v1/metrics/loggers.py` (counters end in `_total` on the page).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from console.bridging.prometheus import samples
from driftline.catalog.fixes import BY_ID, OFF, ON, REMOVED
from driftline.frames import EngineFix, FixState

PREFIX: Final = "vllm:"
NO_DEV_MODE: Final = "not recorded: the server does not say; VLLM_SERVER_DEV_MODE=1 in its environment has it say"
NOT_SAID: Final = "not recorded: the server's configuration says nothing of it"
FIXED: Final = "as the server was started; a bridge switches nothing: let the engine itself join (docs/joining.md)"


@dataclass(frozen=True)
class Load:
    """What `/metrics` says: over all engines behind the server. Counters count since its start."""

    running: int = 0
    waiting: int = 0
    kv_use: float = 0.0
    generated: float = 0.0
    queried: float = 0.0
    hit: float = 0.0
    preempted: int = 0
    updating: bool = False
    """Whether a weight update is under way, where this vLLM says so."""


def load(page: str) -> Load | None:
    """The load on a page of Prometheus's; None where nothing on it is vLLM's."""
    found = samples(page, PREFIX)
    if not found:
        return None

    def total(name: str) -> float:
        return sum(found.get(f"{PREFIX}{name}", ()))

    use = found.get(f"{PREFIX}kv_cache_usage_perc") or found.get(f"{PREFIX}gpu_cache_usage_perc") or [0.0]
    return Load(
        max(int(total("num_requests_running")), 0), max(int(total("num_requests_waiting")), 0), sum(use) / len(use),
        total("generation_tokens_total"), total("prefix_cache_queries_total"), total("prefix_cache_hits_total"),
        max(int(total("num_preemptions_total")), 0), total("rl_weight_update_operations_in_flight") > 0,
    )  # fmt: skip


def rates(before: Load, now: Load, seconds: float) -> tuple[float, float]:
    """Tokens a second and the fraction of prefix-cache hits between two pages; 0 after a restart of the server."""
    tokens, queried, hit = now.generated - before.generated, now.queried - before.queried, now.hit - before.hit
    if seconds <= 0 or tokens < 0 or queried < 0:
        return 0.0, 0.0
    return tokens / seconds, hit / queried if queried > 0 else 0.0


@dataclass(frozen=True)
class Config:
    """What `/server_info` says of the configuration; "" and None for what it does not."""

    logprobs_mode: str = ""
    dtype: str = ""
    head_dtype: str = ""
    prefix_caching: bool | None = None
    async_scheduling: bool | None = None
    backend: str = ""
    model: str = ""
    problem: str = field(default=NO_DEV_MODE, compare=False)
    """Why there is nothing more."""


def config(page: Any) -> Config:
    """The configuration on a page of `/server_info?config_format=json`."""
    whole = _part(page, "vllm_config")
    model, scheduler = _part(whole, "model_config"), _part(whole, "scheduler_config")
    overrides = _part(model, "hf_overrides")
    return Config(
        _word(model.get("logprobs_mode")), _word(model.get("dtype")).removeprefix("torch."),
        _word(overrides.get("head_dtype")), _flag(_part(whole, "cache_config").get("enable_prefix_caching")),
        _flag(scheduler.get("async_scheduling")), _device(_part(whole, "device_config")),
        _word(model.get("model")), NOT_SAID,
    )  # fmt: skip


def _device(part: Mapping[str, Any]) -> str:
    """`cpu`, `cuda`: pydantic leaves `device_type` out, which vLLM does not take as an argument."""
    return _word(part.get("device_type")) or _word(part.get("device")).partition(":")[0]


def _part(page: Any, name: str) -> Mapping[str, Any]:
    part = page.get(name) if isinstance(page, dict) else None
    return part if isinstance(part, dict) else {}


def _word(value: Any) -> str:
    return value[:200] if isinstance(value, str) else ""


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def settings(found: Config) -> str:
    """The configuration in one line, in the words of an engine that joins by itself."""
    parts = [f"logprobs {found.logprobs_mode}"] if found.logprobs_mode else []
    if found.dtype:
        parts.append(f"head {found.head_dtype or 'not reported'}, body {found.dtype}")
    for name, value in (("prefix cache", found.prefix_caching), ("async scheduling", found.async_scheduling)):
        if value is not None:
            parts.append(f"{name} {'on' if value else 'off'}")
    return "; ".join(parts)


def fixes(engine: str, found: Config, time: float) -> list[FixState]:
    """Every fix of the catalogue as far as the configuration tells; none can be switched."""
    said = {
        "processed-logprobs": {"processed_logprobs": ON, "raw_logprobs": OFF}.get(found.logprobs_mode, ""),
        "prefix-cache-off": {True: OFF, False: REMOVED, None: ""}[found.prefix_caching],
        "async-scheduling-off": {True: OFF, False: ON, None: ""}[found.async_scheduling],
        # Without an override the head may still have a dtype of its own, by the model's configuration.
        "fp32-lm-head": ON if "float32" in (found.head_dtype, found.dtype) else OFF if found.head_dtype else "",
    }
    states = []
    for fix in BY_ID:
        value = said.get(fix, "")
        detail = FIXED if value else found.problem
        states.append(
            FixState(
                fix, value, 0, "", time, "not_available", (EngineFix(engine, value, "not_available", -1, -1, detail),)
            )
        )
    return states
