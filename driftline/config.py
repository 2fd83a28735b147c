"""One TOML file describes a run; this is its type, its limits and its error messages.

The file as run is copied into the run directory, so that a run can be repeated from its directory alone. This
module is in the contract because the console checks a file before it starts anything, and imports neither
engine nor trainer.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from driftline import toml_file
from driftline.catalog import fixes as fix_catalogue

Positive = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Rate = Annotated[float, Meta(gt=0)]
Weight = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=256)]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
EngineDtype = Literal["model", "float32", "bfloat16", "float16"]


LEAST_TEMPERATURE = 0.01
"""What vLLM raises lower temperatures to, with a warning in its log alone; the trainer would go on with the other."""

_INT64 = 2**63


class ConfigError(toml_file.TomlError):
    """A configuration that cannot be run: one sentence with the file, the key and what is allowed."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Common options of every table of the file."""


class RunConfig(_Section, frozen=True):
    """`seed` seeds the tasks and the trainer, and the model unless `model.seed` does.

    Engines draw their own noise (see engine/).
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")] = "run"
    steps: Positive = 90
    seed: Natural = 0


class ModelConfig(_Section, frozen=True):
    """`path`: a local Hugging Face directory; empty makes a tiny Qwen2 with its tokenizer on the spot.

    `seed`: of the tiny model's weights and of its warm start, -1 for `run.seed`. With one `seed`, runs of several
    `run.seed` start from one model, as runs of one pretrained checkpoint do.
    """

    path: str = ""
    dtype: Dtype = "auto"
    hidden: Positive = 128
    layers: Positive = 2
    heads: Positive = 4
    warm_start_batches: Natural = 80
    seed: Annotated[int, Meta(ge=-1)] = -1


class TaskConfig(_Section, frozen=True):
    """`prefix` is the length in tokens of the instruction that every prompt shares."""

    name: Literal["reverse-digits"] = "reverse-digits"
    digits: Annotated[int, Meta(ge=1, le=32)] = 6
    prefix: Natural = 32


class EngineGroup(_Section, frozen=True):
    """`[[engine.each]]`: `count` engines alike, with what they have otherwise than `[engine]` and `[fixes]` say.

    `fixes` hold for these engines alone: a change for the whole pool leaves them as they are.
    """

    count: Count = 1
    environment: str | None = None
    dtype: EngineDtype | None = None
    fixes: dict[str, str] = {}
    max_num_seqs: Positive | None = None
    block_size: Positive | None = None
    kv_cache_gb: Rate | None = None
    gpu_memory_utilization: Fraction | None = None
    enforce_eager: bool | None = None
    cpus: Weight | None = None
    args: dict[str, str | int | float | bool] | None = None


class EngineConfig(_Section, frozen=True):
    """`count` engines, each one Ray actor with one vLLM inside. Extra vLLM arguments go into `args` as they are.

    `environment`: name of an environment (`driftline env list`) or path of the Python that the engines run on, "" for
    the trainer's own. `dtype`: what their models are loaded in, "model" for that of `[model]`. `each`: engines that are
    not all alike; then their counts are the pool's.

    `replacements`: how many times in a run a dead engine may be replaced before the run fails. `transport`: how
    weights travel; "auto" takes CUDA IPC or NCCL where there are GPUs, else shared memory on this machine.
    """

    count: Count = 1
    environment: str = ""
    dtype: EngineDtype = "model"
    max_num_seqs: Positive = 64
    max_model_len: Positive = 256
    block_size: Positive = 32
    kv_cache_gb: Rate = 1.0
    gpu_memory_utilization: Fraction = 0.6
    enforce_eager: bool = True
    cpus: Weight = 1.0
    gpus: Weight = 0.0
    start_timeout: Seconds = 600.0
    replacements: Natural = 8
    transport: Literal["auto", "shm", "ipc", "nccl"] = "auto"
    args: dict[str, str | int | float | bool] = {}
    each: tuple[EngineGroup, ...] = ()


class ShadowConfig(_Section, frozen=True):
    """Shadow scoring: `share` of the groups that `from` engines sample is scored by one of the `on` engines as well.

    Both empty means any engine, and any other one. At most `positions` tokens of a sequence are scored, drawn at
    random, and at most `queue` groups wait: what finds no room is left out and counted.
    """

    share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    sampled: tuple[str, ...] = msgspec.field(default=(), name="from")
    scored: tuple[str, ...] = msgspec.field(default=(), name="on")
    positions: Positive = 16
    queue: Annotated[int, Meta(ge=1, le=1024)] = 8


class SamplingConfig(_Section, frozen=True):
    """Only what a trainer can reproduce: anything else that bends the distribution stays off."""

    temperature: Rate = 0.7
    max_tokens: Positive = 8


class RolloutConfig(_Section, frozen=True):
    """`ahead` is how many groups may be in flight or waiting beyond those that the next step needs.

    A group with a token more than `max_lag` versions behind the trainer is stale (-1: none ever is); `stale` says
    whether it is dropped or kept. Both are counted.
    """

    prompts: Positive = 16
    samples: Annotated[int, Meta(ge=2)] = 8
    ahead: Natural = 8
    max_lag: Annotated[int, Meta(ge=-1)] = -1
    stale: Literal["keep", "drop"] = "keep"


class TrainerConfig(_Section, frozen=True):
    """`objective`: "ppo" clips token ratios, "gspo" the length-normalised sequence ratio.

    `head`: dtype of the trainer's last projection: "fix" follows the fix `fp32-lm-head` together with the engines,
    "float32" and "model" (the body's dtype, bfloat16 for a float32 body) stay what they are.
    """

    objective: Literal["ppo", "gspo"] = "ppo"
    clip_low: Rate = 0.2
    clip_high: Rate = 0.2
    lr: Rate = 1e-3
    weight_decay: Weight = 0.0
    grad_clip: Rate = 1.0
    passes: Positive = 2
    kl_coef: Weight = 0.0
    advantage_std: bool = True
    head: Literal["fix", "float32", "model"] = "fix"
    keep_versions: Annotated[int, Meta(ge=2, le=64)] = 8
    threads: Natural = 0


class CorrectionConfig(_Section, frozen=True):
    """Objective-side correction that the run starts with (`driftline.catalog.corrections`), and the limits of each.

    Defaults: cap and IcePop band of verl and NeMo-RL; sequences whose geometric mean ratio is off by more than 1 %
    (SkyRL) or of which one token is off by more than `sequence_max_diff` nats are masked.
    """

    value: Literal["off", "tis", "sequence-mask", "icepop"] = "off"
    tis_cap: Rate = 2.0
    icepop_low: Rate = 0.5
    icepop_high: Rate = 5.0
    sequence_low: Rate = 0.99
    sequence_high: Rate = 1.01
    sequence_max_diff: Rate = 3.0


class SyncConfig(_Section, frozen=True):
    """`every` trainer steps (0: only when an operator asks). `timeout` bounds one engine's whole sync.

    `resume`: "each" lets an engine go on as soon as it holds the new weights, "barrier" all engines together.
    A failed load is tried again `retries` times; until one succeeds its engine stays paused.
    """

    every: Natural = 1
    timeout: Seconds = 120.0
    resume: Literal["each", "barrier"] = "each"
    retries: Natural = 2


class CheckpointConfig(_Section, frozen=True):
    """`every` steps (0: only at the end); `keep` newest are kept."""

    every: Natural = 0
    keep: Positive = 2


class DiagnosisConfig(_Section, frozen=True):
    """`active`: "on-alarm" has the trainer make an active round by itself where its mismatch goes wrong, at most one in
    `apart` seconds; "on-request" leaves that to operators."""

    active: Literal["on-alarm", "on-request"] = "on-alarm"
    apart: Seconds = 300.0


class HubConfig(_Section, frozen=True):
    """`bind` is the interface the hub listens on; every socket is CURVE, also on loopback.

    The journal keeps at most `keep_gb` GB and `keep_hours` hours (0: everything). `compact` turns its closed segments
    into Parquet while the run goes on; then nothing is deleted before that.
    """

    bind: str = "127.0.0.1"
    pause_lease: Seconds = 600.0
    keep_gb: Weight = 0.0
    keep_hours: Weight = 0.0
    compact: bool = False


class Config(_Section, frozen=True):
    """A whole run."""

    run: RunConfig = RunConfig()
    model: ModelConfig = ModelConfig()
    task: TaskConfig = TaskConfig()
    engine: EngineConfig = EngineConfig()
    sampling: SamplingConfig = SamplingConfig()
    rollout: RolloutConfig = RolloutConfig()
    trainer: TrainerConfig = TrainerConfig()
    correction: CorrectionConfig = CorrectionConfig()
    sync: SyncConfig = SyncConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    diagnosis: DiagnosisConfig = DiagnosisConfig()
    hub: HubConfig = HubConfig()
    shadow: ShadowConfig = ShadowConfig()
    fixes: dict[str, str] = {}


def load(path: Path) -> Config:
    """Read and check a file. Raises ConfigError."""
    return parse(toml_file.read(path, ConfigError), str(path))


def parse(text: str, where: str) -> Config:
    """Check the text of a file named `where`. Raises ConfigError."""
    raw = toml_file.parse(text, where, ConfigError)
    if isinstance(raw.get("engine"), list):
        raw["engine"] = _as_one_table(raw["engine"], where)
    config = toml_file.convert(raw, Config, where, ConfigError)
    _refuse_unbounded(raw, where)
    if config.engine.each:
        if "count" in raw["engine"]:
            raise ConfigError(f"{where}: engine.count: [[engine.each]] tables have counts of their own")
        total = sum(group.count for group in config.engine.each)
        config = msgspec.structs.replace(config, engine=msgspec.structs.replace(config.engine, count=total))
    _check_together(config, where)
    return config


def engine_configs(config: EngineConfig) -> list[EngineConfig]:
    """What each engine of a pool is configured with, in the order of their names."""
    if not config.each:
        return [config] * config.count
    found = []
    for group in config.each:
        own = {name: getattr(group, name) for name in _OF_ENGINE if getattr(group, name) is not None}
        found += [msgspec.structs.replace(config, **own, each=())] * group.count
    return found


def engine_fixes(config: EngineConfig) -> list[dict[str, str]]:
    """The fixes that each engine of a pool is to have otherwise than the pool, in the order of their names."""
    if not config.each:
        return [{}] * config.count
    return [dict(group.fixes) for group in config.each for _ in range(group.count)]


_OF_ENGINE: Final = tuple(name for name in EngineGroup.__struct_fields__ if name not in ("count", "fixes"))


def _as_one_table(tables: list[object], where: str) -> dict[str, object]:
    """`[[engine]]` tables as `[engine]` with `each`: keys of the whole pool may stand in any of them, in one value."""
    shared: dict[str, object] = {}
    each = []
    for index, table in enumerate(tables):
        if not isinstance(table, dict):
            raise ConfigError(f"{where}: engine[{index}]: expected a table")
        for name in table.keys() & (set(EngineConfig.__struct_fields__) - set(EngineGroup.__struct_fields__)):
            if shared.setdefault(name, table[name]) != table[name]:
                raise ConfigError(
                    f"{where}: engine[{index}].{name}: {table[name]} here and {shared[name]} in a table before; "
                    "it is one for the whole pool"
                )
        each.append({name: value for name, value in table.items() if name in EngineGroup.__struct_fields__})
        if unknown := table.keys() - set(EngineConfig.__struct_fields__):
            allowed = ", ".join(name for name in EngineConfig.__struct_fields__ if name != "each")
            raise ConfigError(f"{where}: unknown key 'engine[{index}].{min(unknown)}'; allowed: {allowed}, fixes")
    return {**shared, "each": each}


def digest(text: str) -> str:
    """First 12 hex digits of the file's SHA-256: which configuration a run or a snapshot belongs to."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _refuse_unbounded(raw: dict[str, object], where: str, path: str = "") -> None:
    # TOML has inf, and Python integers of any size: no key means anything by either, and what would fail is far away.
    for name, value in raw.items():
        if isinstance(value, dict):
            _refuse_unbounded(value, where, f"{path}{name}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _refuse_unbounded(item, where, f"{path}{name}[{index}].")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}: {path}{name}: {value} is not a finite number")
        elif isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise ConfigError(f"{where}: {path}{name}: {value} has more than 64 bits")


def _check_together(config: Config, where: str) -> None:
    _check_fixes(config.fixes, f"{where}: fixes")
    for index, group in enumerate(config.engine.each):
        _check_fixes(group.fixes, f"{where}: engine.each[{index}].fixes")
    _check_shadow(config, where)
    for band in ("icepop", "sequence"):
        low, high = getattr(config.correction, f"{band}_low"), getattr(config.correction, f"{band}_high")
        if not low <= 1 <= high:
            raise ConfigError(
                f"{where}: correction.{band}_low and {band}_high: {low:g} to {high:g} does not hold 1, "
                "the ratio of two backends that agree"
            )
    if config.model.hidden % config.model.heads:
        raise ConfigError(
            f"{where}: model.hidden: {config.model.hidden} is not a multiple of model.heads = {config.model.heads}"
        )
    if not config.model.path and (size := config.model.hidden // config.model.heads) % 2:
        raise ConfigError(
            f"{where}: model.hidden: {config.model.hidden} over model.heads = {config.model.heads} is {size}; "
            "rotary embeddings need an even head"
        )
    if config.sampling.temperature < LEAST_TEMPERATURE:
        raise ConfigError(
            f"{where}: sampling.temperature: {config.sampling.temperature:g} is below {LEAST_TEMPERATURE:g}, "
            "the least that vLLM samples at"
        )
    lag, apart = config.rollout.max_lag, config.sync.every
    if config.rollout.stale == "drop" and 0 <= lag < apart - 1:
        raise ConfigError(
            f'{where}: rollout.max_lag: with rollout.stale = "drop" and sync.every = {apart} at least {apart - 1}, or '
            f"every group before a sync would be dropped, not {lag}"
        )
    needed = config.task.prefix + 2 * config.task.digits + 4
    if config.engine.max_model_len < needed:
        raise ConfigError(
            f"{where}: engine.max_model_len: {config.engine.max_model_len} is below the {needed} tokens "
            "that task.prefix and task.digits need"
        )


def _check_fixes(fixes: dict[str, str], at: str) -> None:
    for fix_id, value in fixes.items():
        try:
            fix_catalogue.check(fix_id, value)
        except fix_catalogue.UnknownFixError as error:
            raise ConfigError(f"{at}: {error}") from error


def _check_shadow(config: Config, where: str) -> None:
    shadow = config.shadow
    names = [f"engine-{index}" for index in range(config.engine.count)]
    for key, given in (("from", shadow.sampled), ("on", shadow.scored)):
        for name in given:
            if name not in names:
                raise ConfigError(f"{where}: shadow.{key}: there is no '{name}'; allowed: {', '.join(names)}")
    if shadow.share and not any(a != b for a in shadow.sampled or names for b in shadow.scored or names):
        raise ConfigError(f"{where}: shadow.share: an engine is scored by another one, and there is none")
