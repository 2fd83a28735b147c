"""Names of other frameworks for the metrics of the catalogue, where their formula is the catalogue's own.

The catalogue's aliases come first (`driftline.catalog.metrics`). Here are further names, with where each was read. A
name whose formula differs is not mapped: PipelineRL's `rl/ess` is taken after truncation, verl's `actor/ppo_kl` is a
signed k1, verl's `rollout_probs_diff_*` are of probabilities, NeMo-RL's `approx_entropy` is an estimate, its
`kl_penalty` is multiplied already, prime-rl's `is_masked` is a mask in probability space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from driftline.catalog.metrics import ALIASES, BY_NAME

KNOWN: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "PipelineRL, pipelinerl/finetune/rl/__init__.py and actor.py": (
        ("actor/reward_mean", "reward/mean"),
        ("actor/output_tokens_per_second", "engine/tokens_per_s"),
    ),
    "verl, verl/trainer/ppo/metric_utils.py and rollout_corr_helper.py": (
        ("critic/rewards/mean", "reward/mean"),
        ("actor/entropy_loss", "policy/entropy"),
        ("actor/grad_norm", "policy/grad_norm"),
        ("actor/lr", "policy/lr"),
        ("timing_s/update_weights", "sync/total_s"),
        ("timing_s/param_sync", "sync/total_s"),
    ),
    "TRL, trl/trainer/grpo_trainer.py": (
        ("reward_std", "reward/std"),
        ("learning_rate", "policy/lr"),
    ),
    "NeMo-RL, nemo_rl/algorithms/loss/loss_functions.py and grpo.py": (
        ("train/reward", "reward/mean"),
        ("train/grad_norm", "policy/grad_norm"),
        ("train/lr", "policy/lr"),
    ),
    "prime-rl, src/prime_rl/trainer/rl/loss.py and train.py": (
        ("mismatch_kl/all/mean", "mismatch/kl_k3"),
        ("mismatch_kl/mean", "mismatch/kl_k3"),
        ("entropy/all/mean", "policy/entropy"),
        ("entropy/mean", "policy/entropy"),
        ("optim/grad_norm", "policy/grad_norm"),
        ("optim/lr", "policy/lr"),
        ("reward/all/mean", "reward/mean"),
        ("time/broadcast_weights", "sync/total_s"),
    ),
    "SkyRL, skyrl/train/trainer.py": (
        ("reward/avg_raw_reward", "reward/mean"),
        ("policy/policy_entropy", "policy/entropy"),
        ("policy/rollout_train_logprobs_abs_diff_mean", "mismatch/abs_diff_mean"),
        ("policy/rollout_train_logprobs_abs_diff_max", "mismatch/abs_diff_max"),
        ("timing/sync_weights", "sync/total_s"),
    ),
    "slime, slime/backends/megatron_utils/loss.py": (
        ("rollout/raw_reward", "reward/mean"),
        ("train/entropy_loss", "policy/entropy"),
        ("perf/update_weights_time", "sync/total_s"),
    ),
    "open-instruct, issue 1473 and grpo_utils.py": (
        ("vllm_vs_local_logprob_diff_mean", "mismatch/abs_diff_mean"),
        ("vllm_vs_local_logprob_diff_max", "mismatch/abs_diff_max"),
        ("debug/vllm_vs_local_logprob_diff_mean", "mismatch/abs_diff_mean"),
        ("debug/vllm_vs_local_logprob_diff_max", "mismatch/abs_diff_max"),
    ),
    "OpenRLHF, openrlhf/models/loss.py": (("train/vllm_kl", "mismatch/kl_k1"),),
    "AReaL, areal/trainer/ppo/actor.py": (("ppo_actor/update/behave_imp_weight/avg", "correction/weight_mean"),),
}
"""By source, the names of a framework and their names in the catalogue."""

VERSIONS: Final[tuple[str, ...]] = (
    "fully_async/count/current_param_version",  # verl, fully_async
    "watcher/policy_version",  # prime-rl, orchestrator
    "policy_version",
    "model_version",
    "weights_version",
    "param_version",
)
"""Names under which a log gives the version of the weights of a step; the first one present counts. Versions of
single samples or tokens (AReaL's `v_theta`, PipelineRL's `actor/model_version_mean`) are not among them."""
UNKNOWN_VERSION: Final = -1
"""The version of a step whose log does not give one."""

PREFIXES: Final = ("train/", "training/", "metrics/")
"""Prefixes that loggers put before a trainer's own names: TRL's through the Hugging Face Trainer, for one."""

ASIDE: Final = "log/"
"""Prefix for a name of the catalogue whose metric the same log has under a name that fits better."""

RULES: Final[dict[str, str]] = {
    "actor/pg_clipfrac": "active",
    "clip_ratio/region_mean": "active",
    "train/clip_ratio/region_mean": "active",
    "rollout_corr/rollout_is_eff_sample_size": "truncated",
    "sampling/importance_sampling_ratio/mean": "truncated",
    "train/sampling/importance_sampling_ratio/mean": "truncated",
    "train/train_rollout_logprob_abs_diff": "sequence mean",
}
"""Names that the catalogue has for a metric though their rule differs in this: the label that their values carry.

active: counted only where the clip takes the gradient away, not on either side of it whatever the advantage's sign;
truncated: after weights were cut or masked; sequence mean: every sequence weighs the same, however long.
"""

_ALL: Final = {name: target for names in KNOWN.values() for name, target in names}


def catalogued(name: str) -> str | None:
    """The catalogue's name for a framework's, or None."""
    for one in (name, *(name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix))):
        if one in BY_NAME:
            return one
        if found := ALIASES.get(one) or _ALL.get(one):
            return found
    return None


def mapping(names: Iterable[str]) -> dict[str, str]:
    """The new name of each name, all distinct. If two are names of one metric, the catalogue's own name wins, else
    an alias, else the first in the alphabet; the other stays, or gets the prefix ASIDE if it is an alias.
    """
    taken: dict[str, str] = {}
    for name in sorted(names, key=lambda one: (one not in BY_NAME, one not in ALIASES, one)):
        target = catalogued(name)
        if target is None or target in taken.values():
            target = f"{ASIDE}{name}" if name in ALIASES else name
        taken[name] = target
    return taken


def labels(mapped: Mapping[str, str]) -> dict[str, str]:
    """Labels of metrics by their names in the catalogue, for the names in a result of `mapping`."""
    return {target: RULES[name] for name, target in mapped.items() if name in RULES and target in BY_NAME}


def version(values: Mapping[str, float]) -> int:
    """The version of the weights among a step's numbers, UNKNOWN_VERSION if there is none."""
    for name in VERSIONS:
        value = values.get(name, math.nan)
        if value >= 0 and value < 2**63 and value == int(value):
            return int(value)
    return UNKNOWN_VERSION
