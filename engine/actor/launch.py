"""From a run's configuration to one engine's environment and vLLM arguments. Pure functions; vLLM is not imported."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from driftline import bounded_file
from driftline.catalog.fixes import REMOVED
from driftline.config import EngineConfig, SamplingConfig
from driftline.environments import Environment
from driftline.keys import Keys
from driftline.rundir import Connection
from engine.plugin import POOL_VARIABLE
from engine.types import EngineError
from engine.weights.transport import BACKENDS, Kind

GIB: Final = 1 << 30
_MODEL_CONFIG_BYTES: Final = 16 << 20
"""Most bytes of a model's JSON files; those that name a label for each class are the longest."""

OURS: Final = frozenset(
    {
        "model", "dtype", "skip_tokenizer_init", "seed", "weight_transfer_config",
        "block_size", "enable_prefix_caching", "max_num_seqs", "max_model_len", "enforce_eager",
        "gpu_memory_utilization", "logprobs_mode", "async_scheduling", "generation_config", "disable_log_stats",
    }
)  # fmt: skip
"""vLLM arguments that `engine.args` may not name: another key of the configuration, or a fix, decides them."""


@dataclass(frozen=True)
class EngineSpec:
    """All that one actor needs to build its engine. `index` seeds its sampler, so that no two draw the same noise.

    `version` is the label of the weights that the model path holds: a replacement starts with that of its
    predecessor's last and gets the weights in its first sync. `transport` is `Transport.kind`. `environment` is None
    for the trainer's own.
    """

    name: str
    index: int
    config: EngineConfig
    sampling: SamplingConfig
    model: str
    dtype: str
    fixes: dict[str, str]
    log: str
    connection: Connection | None = None
    keys: Keys | None = None
    version: int = 0
    transport: Kind = "shm"
    environment: Environment | None = None


IN_CORE: Final = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""vLLM's executor for one worker inside the engine core's process, by its path: see `vllm_args`."""


def environment(config: EngineConfig) -> dict[str, str]:
    """Environment of an actor and of the processes vLLM starts from it; set before vLLM or torch is imported.

    Thread counts follow `engine.cpus`: vLLM would otherwise pin every engine's threads to the same first cores.
    """
    threads = str(max(1, int(config.cpus)))
    eager_cpu = config.enforce_eager and not config.gpus
    return {
        POOL_VARIABLE: "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "NO_COLOR": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        # vLLM compiles one small sampler kernel even when eager: half a minute of a C++ compiler before the first token
        # of a fresh machine, for a fifth more tokens a second of a tiny model.
        **({"TORCH_COMPILE_DISABLE": "1"} if eager_cpu else {}),
    }


def own_cache(package: str, environ: Mapping[str, str]) -> dict[str, str]:
    """A cache of its own for the vLLM of another environment; `package` is that one's file.

    vLLM keeps what it knows of a model's class in one file for all versions. Of two that take turns each finds the
    other's, and starts a process that imports vLLM to find out again: a third of an engine's start.
    """
    home = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(environ.get("VLLM_CACHE_ROOT") or home / "vllm")
    name = hashlib.sha256(package.encode()).hexdigest()[:12]
    return {"VLLM_CACHE_ROOT": str(root / f"driftline-{name}")}


def vllm_args(spec: EngineSpec, *, cpu: bool, transfers: bool = True) -> dict[str, Any]:
    """Arguments of vLLM's `AsyncEngineArgs`. Raises EngineError for an `engine.args` key that is not free.

    One worker runs inside the engine core's process, as it does by default on a GPU. vLLM's CPU platform would put it
    into a process of its own, because it sets the threads of each worker through that process's environment; here
    `environment` has set them for all (`nobind`). That is an import of vLLM less at each start (a third of its
    processor time), 0.6 GB less, and no two processes that spin while they wait for each other.

    `transfers`: whether its workers take weights through a transfer engine of ours (`hosting.transfers_weights`).
    """
    config = spec.config
    if taken := OURS & config.args.keys():
        raise EngineError(f"engine.args: {min(taken)} is decided by another key of the configuration or by a fix")
    args: dict[str, Any] = {
        "model": spec.model,
        "dtype": spec.dtype,
        "skip_tokenizer_init": True,
        "seed": spec.index,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "block_size": config.block_size,
        "enforce_eager": config.enforce_eager,
        "enable_prefix_caching": spec.fixes["prefix-cache-off"] != REMOVED,
        "generation_config": "vllm",
        "disable_log_stats": True,
    }
    if transfers:
        args["weight_transfer_config"] = {"backend": BACKENDS[spec.transport]}
    if cpu:
        args["kv_cache_memory_bytes"] = int(config.kv_cache_gb * GIB)
        if not any(key.endswith("_parallel_size") and value != 1 for key, value in config.args.items()):
            args["distributed_executor_backend"] = IN_CORE
    else:
        args["gpu_memory_utilization"] = config.gpu_memory_utilization
        args["async_scheduling"] = spec.fixes["async-scheduling-off"] == "off"
    return args | (dict(spec.environment.arguments) if spec.environment else {}) | config.args


_NOT_OF_V0: Final = frozenset(
    {
        "weight_transfer_config", "kv_cache_memory_bytes", "async_scheduling", "distributed_executor_backend",
        "max_logprobs",
    }
)  # fmt: skip


def v0_args(spec: EngineSpec, args: dict[str, Any], *, cpu: bool) -> dict[str, Any]:
    """Arguments of V0's `EngineArgs`, from those of a newer vLLM.

    The dtype is named, and the base of the rotary embeddings: its transformers (4) knows neither key of a
    configuration that transformers 5 has written, and would take float16 and the architecture's own base without a
    word. A prefix cache it has only where it is asked for, and on a CPU not at all (that needs Intel's extension of
    torch, as do blocks of another size than 16), so none is asked for.
    """
    config = _model_config(Path(spec.model))
    kept = {name: value for name, value in args.items() if name not in _NOT_OF_V0} | {"enable_prefix_caching": None}
    if cpu:
        kept["block_size"] = 16
    if kept["dtype"] == "auto":
        kept["dtype"] = config.get("dtype") or config.get("torch_dtype") or "auto"
    rope = config.get("rope_parameters") or {}
    if "rope_theta" in rope and "rope_theta" not in config:
        kept["hf_overrides"] = {"rope_theta": rope["rope_theta"]} | kept.get("hf_overrides", {})
    return kept


def _model_config(model: Path) -> dict[str, Any]:
    path = model / "config.json"
    try:
        found: dict[str, Any] = json.loads(bounded_file.read(path, _MODEL_CONFIG_BYTES))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise EngineError(f"{path}: cannot be read: {reason}") from error
    return found


def log_file(folder: Path, engine: str) -> Path:
    """The log file of an engine's process and of vLLM's processes."""
    return folder / f"{engine}.log"


def check_model(model: Path) -> None:
    """Raise EngineError unless `model` looks like a local Hugging Face model."""
    if not model.is_dir():
        raise EngineError(f"model {model}: no such directory; a local Hugging Face model directory is needed")
    if not (model / "config.json").is_file():
        raise EngineError(f"model {model}: holds no config.json; a local Hugging Face model directory is needed")


def stop_ids(model: Path) -> list[int]:
    """Token ids that end a response: `eos_token_id` of generation_config.json and config.json, sorted.

    Only ids cross to the engine, which has no tokenizer to ask.
    """
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        path = model / name
        if path.is_file():
            try:
                ids = json.loads(bounded_file.read(path, _MODEL_CONFIG_BYTES)).get("eos_token_id")
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not JSON"
                raise EngineError(f"{path}: cannot be read: {reason}") from error
            found.update([ids] if isinstance(ids, int) else ids or [])
    return sorted(found)


_RAISED = re.compile(r"(?:^|\s)((?:\w+\.)*\w*(?:Error|Exception): .+)$")
_KILLED = re.compile(r"Failed core proc\(s\): \{[^}]*: -(\d+)")
"""What vLLM says of a core that did not come up, with the exit codes of its processes: negative for a signal."""
_NO_CODE: Final = "Failed core proc(s): {}"
"""As vLLM says it where it saw the end of a process a moment before the system could give its exit code."""


def last_error(log: Path) -> str:
    """The last exception line of an engine's log, "" when there is none: vLLM reports its core's causes only there."""
    causes = [match[1] for line in _tail(log).splitlines() if (match := _RAISED.search(line))]
    # "Engine core initialization failed" and its like only point at the cause above them.
    return one_line(next((c for c in reversed(causes) if "root cause above" not in c and "stack trace" not in c), ""))


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 256 * 1024))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


_SYMBOLS: Final = re.compile(r"version `?'?(GLIBC(?:XX)?_[\d.]+)'? not found")


def missing_symbols(log: Path) -> str:
    """What vLLM's compiled part lacks on this system, as a sentence; "" where its log says nothing of it.

    vLLM only warns of that, and fails later over an operator that is not there.
    """
    found = _SYMBOLS.search(_tail(log))
    if found is None:
        return ""
    library = "libstdc++" if "XX" in found[1] else "C library"
    repair = "; driftline env add NAME --repair makes an environment that does without it" if "XX" in found[1] else ""
    return f"its compiled part wants {found[1]}, which this system's {library} does not have{repair}"


def killed_core(text: str, log: Path) -> str:
    """What ended vLLM's core while it loaded, by what vLLM raises then; "" where it was no signal.

    A core that fails by itself writes its cause to its log. One whose exit code was not there yet and that has written
    none was killed, by whatever signal.
    """
    found = _KILLED.search(text)
    if found is None:
        return "a signal" if _NO_CODE in text and not last_error(log) else ""
    try:
        return signal.Signals(int(found[1])).name
    except ValueError:
        return f"signal {found[1]}"


def one_line(text: str, limit: int = 400) -> str:
    """`text` without line breaks, and without pydantic's pointer to its web site, at most `limit` characters."""
    line = " ".join(text.partition("For further information visit")[0].split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
