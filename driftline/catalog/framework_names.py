"""Names of other frameworks for the metrics of the catalogue: a table, with where each name was read.

A name stands here where its number is the catalogue's, or differs in a way that one label says. Not mapped are:
PipelineRL's `rl/ess` (after truncation, over other tokens), the signed k1 of new and old (verl's and slime's
`ppo_kl`, AReaL's `approx_kl`), verl's `rollout_probs_diff_*` (of probabilities) and `perf/throughput` (tokens a second
and GPU), NeMo-RL's `approx_entropy` (an estimate), `policy_kl_error` and `js_divergence_error` (other divergences),
prime-rl's `is_masked` (a mask in probability space), the `ratio` of TRL's AsyncGRPO, ROLL's `actor/approxkl`.

The catalogue's own names and aliases are known besides. Read at the commits of August 2026 unless said otherwise.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Staleness = Literal["", "always", "if async"]


class Name(NamedTuple):
    """A framework's name and what it is in the catalogue.

    `name` may have `*` for one part between slashes. `label` says by which other rule the number is. `beside`: the rule
    holds only in a log with one of these names too; `unless`: and with none of these (`x/*` is any name that begins
    so). `factor` turns the number into the catalogue's. `stale`: the two logprobs are of the same weights never, or
    only in a run that is not asynchronous.
    """

    name: str
    target: str
    label: str = ""
    beside: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    factor: float = 1.0
    stale: Staleness = ""


ACTIVE: Final = "active"
"""Counted only where the clip takes the gradient away, not on either side of it whatever the advantage's sign."""
TRUNCATED: Final = "truncated"
"""After weights were cut or masked."""
SEQUENCE_MEAN: Final = "sequence mean"
"""Every sequence weighs the same, however long."""
SEQUENCES: Final = "sequences"
"""Of whole sequences, not of tokens: an importance ratio is a product over the tokens."""
TRAJECTORIES: Final = "trajectories"
K1: Final = "k1"

_SLIME: Final = ("train/train_rollout_logprob_abs_diff", "train/pg_clipfrac", "rollout/raw_reward", "train/lr-pg_0")
_OPENRLHF: Final = ("train/vllm_kl", "train/ppo_clip_ratio", "train/actor_lr", "train/actor_grad_norm")
_TRL: Final = (
    "reward_std", "frac_reward_zero_std", "clip_ratio", "clip_ratio/*", "cispo_clip_ratio", "sampling/*",
)  # fmt: skip

KNOWN: Final[dict[str, tuple[Name, ...]]] = {
    "PipelineRL, pipelinerl/finetune/rl/__init__.py, utils.py and actor.py": (
        Name("rl/entropy", "policy/entropy", SEQUENCE_MEAN),
        Name("rl/kl", "policy/kl_ref", SEQUENCE_MEAN),
        Name("rl/kl_new_old", "policy/kl_new_old", SEQUENCE_MEAN),
        Name("kl_new_old", "policy/kl_new_old", SEQUENCE_MEAN),
        Name("rl/clamp_log_ratio_new_old_indicator", "policy/clip_fraction", SEQUENCE_MEAN),
        Name("clamp_log_ratio_new_old_indicator", "policy/clip_fraction", SEQUENCE_MEAN),
        Name("actor/reward_mean", "reward/mean"),
        Name("actor/output_tokens_per_second", "engine/tokens_per_s"),
    ),
    "verl, verl/trainer/ppo/metric_utils.py and rollout_corr_helper.py": (
        Name("actor/pg_clipfrac", "policy/clip_fraction", ACTIVE),
        Name("critic/rewards/mean", "reward/mean"),
        Name("actor/entropy_loss", "policy/entropy"),
        Name("actor/grad_norm", "policy/grad_norm"),
        Name("actor/lr", "policy/lr"),
        Name("timing_s/update_weights", "sync/total_s"),
        Name("timing_s/param_sync", "sync/total_s"),
        Name("rollout_corr/kl", "mismatch/kl_k1", stale="if async"),
        Name("rollout_corr/k3_kl", "mismatch/kl_k3", stale="if async"),
        Name("rollout_corr/rollout_is_mean", "mismatch/ratio_mean", stale="if async"),
        Name("rollout_corr/rollout_is_eff_sample_size", "mismatch/ess", TRUNCATED, stale="if async"),
        Name("rollout_corr/rollout_rs_seq_masked_fraction", "correction/masked_sequences", "any token"),
        Name("training/off_policy/trajectory_staleness/mean", "async/version_lag_mean", TRAJECTORIES),
        Name("training/off_policy/trajectory_staleness/max", "async/version_lag_max", TRAJECTORIES),
    ),
    "verl before 2026, pull requests 3694 and 3750": (
        Name("mismatch/mismatch_kl", "mismatch/kl_k1", stale="if async"),
        Name("mismatch/mismatch_k3_kl", "mismatch/kl_k3", stale="if async"),
        Name("mismatch/rollout_is_mean", "mismatch/ratio_mean", stale="if async"),
        Name("mismatch/rollout_is_eff_sample_size", "mismatch/ess", TRUNCATED, stale="if async"),
    ),
    "verl-omni, pull request 291": (
        Name("rollout_corr/logprob_abs_diff/mean", "mismatch/abs_diff_mean", stale="if async"),
        Name("rollout_corr/logprob_abs_diff/max", "mismatch/abs_diff_max", stale="if async"),
    ),
    "TRL, trl/trainer/grpo_trainer.py and trl/experimental/async_grpo": (
        Name("clip_ratio/region_mean", "policy/clip_fraction", ACTIVE),
        Name("sampling/importance_sampling_ratio/mean", "mismatch/ratio_mean", f"{SEQUENCES}, {TRUNCATED}"),
        Name("reward_std", "reward/std"),
        Name("learning_rate", "policy/lr"),
        # In AsyncGRPO `kl` is of the new policy and the engine's logprobs, in GRPO of the reference.
        Name("kl", "policy/kl_new_old", beside=("ratio", "weight_sync_time_s")),
        Name("kl", "policy/kl_ref", beside=_TRL),
    ),
    "NeMo-RL, nemo_rl/algorithms/loss/loss_functions.py, grpo.py and async_utils/replay_buffer.py": (
        Name("train/reward", "reward/mean"),
        Name("train/grad_norm", "policy/grad_norm"),
        Name("train/lr", "policy/lr"),
        Name("train/gen_kl_error", "mismatch/kl_k3", stale="if async"),
        Name("train/token_mult_prob_error", "mismatch/mult_prob_error", stale="if async"),
        Name("train/sampling_importance_ratio", "mismatch/ratio_mean", TRUNCATED, stale="if async"),
        Name("train/kl_penalty", "policy/kl_ref"),
        Name("train/avg_trajectory_age", "async/version_lag_mean", TRAJECTORIES),
        Name("timing/train/prepare_for_generation/transfer_and_update_weights", "sync/load_s"),
    ),
    "prime-rl, src/prime_rl/trainer/rl/loss.py, train.py, orchestrator/metrics.py and inference_metrics.py": (
        Name("train/agg/effective/*/reward/mean", "reward/mean", "effective"),
        Name("train/agg/all/*/reward/mean", "reward/mean"),
        Name("reward/all/mean", "reward/mean"),
        Name("train/*/reward/mean", "reward/mean", unless=("train/agg/*", "reward/all/mean")),
        Name("mismatch_kl/all/mean", "mismatch/kl_k3", stale="if async"),
        Name("mismatch_kl/mean", "mismatch/kl_k3", stale="if async"),
        Name("mismatch_kl", "mismatch/kl_k3", stale="if async"),
        Name("mismatch_kl/*/mean", "mismatch/kl_k3", unless=("mismatch_kl/all/mean",), stale="if async"),
        Name("entropy/all/mean", "policy/entropy"),
        Name("entropy/mean", "policy/entropy"),
        Name("entropy/*/mean", "policy/entropy", unless=("entropy/all/mean",)),
        Name("optim/grad_norm", "policy/grad_norm"),
        Name("optim/lr", "policy/lr"),
        Name("off_policy/mean", "async/version_lag_mean", "episodes"),
        Name("off_policy/max", "async/version_lag_max", "episodes"),
        Name("off_policy/dropped", "async/stale_dropped", "episodes"),
        Name("time/broadcast_weights", "sync/total_s"),
        Name("inference/agg/num_requests_running", "engine/running"),
        Name("inference/agg/num_requests_waiting", "engine/waiting"),
        Name("inference/agg/kv_cache_usage_perc", "engine/kv_use"),
        Name("inference/agg/prefix_cache_hit_rate/pooled", "engine/prefix_hit_rate"),
    ),
    "OpenRLHF, openrlhf/models/loss.py and trainer/ray/ppo_actor.py": (
        Name("train/vllm_kl", "mismatch/kl_k1", stale="if async"),
        Name("train/ppo_clip_ratio", "policy/clip_fraction", ACTIVE),
        Name("train/actor_grad_norm", "policy/grad_norm"),
        Name("train/actor_lr", "policy/lr"),
        Name("train/kl", "policy/kl_ref", K1, beside=_OPENRLHF, unless=("train/k3_kl",)),
    ),
    "SkyRL, skyrl/train/trainer.py, ppo_utils.py, worker.py and off_policy_correction_utils.py": (
        Name("reward/avg_raw_reward", "reward/mean"),
        Name("policy/policy_entropy", "policy/entropy"),
        Name("policy/policy_kl", "policy/kl_ref"),
        Name("policy/policy_lr", "policy/lr"),
        Name("policy/loss_metrics/clip_ratio", "policy/clip_fraction", ACTIVE),
        Name("policy/loss_metrics/is_ratio_mean", "mismatch/ratio_mean", stale="if async"),
        Name("policy/rollout_train_logprobs_abs_diff_mean", "mismatch/abs_diff_mean", stale="if async"),
        Name("policy/rollout_train_logprobs_abs_diff_max", "mismatch/abs_diff_max", stale="if async"),
        Name("async/num_groups_dropped", "async/stale_dropped"),
        Name("timing/sync_weights", "sync/total_s"),
    ),
    "slime, slime/backends/megatron_utils/loss.py; with its mismatch helper (MIS), mis.py": (
        Name("rollout/raw_reward", "reward/mean"),
        Name("train/entropy_loss", "policy/entropy", SEQUENCE_MEAN, beside=_SLIME, unless=_OPENRLHF),
        Name("train/entropy_loss", "policy/entropy"),
        Name("train/pg_clipfrac", "policy/clip_fraction", f"{ACTIVE}, {SEQUENCE_MEAN}"),
        Name("train/kl_loss", "policy/kl_ref", SEQUENCE_MEAN),
        Name("train/kl", "mismatch/kl_k1", SEQUENCE_MEAN, beside=("train/k3_kl",), stale="if async"),
        Name("train/k3_kl", "mismatch/kl_k3", SEQUENCE_MEAN, stale="if async"),
        Name("train/train_rollout_logprob_abs_diff", "mismatch/abs_diff_mean", SEQUENCE_MEAN, stale="if async"),
        Name("train/tis", "mismatch/ratio_mean", SEQUENCE_MEAN, stale="if async"),
        Name("train/tis_clipfrac", "correction/truncated_fraction", SEQUENCE_MEAN),
        Name("train/lr-pg_0", "policy/lr"),
        Name("perf/update_weights_time", "sync/total_s"),
    ),
    "AReaL, areal/trainer/ppo/actor.py, engine/fsdp_engine.py and rl_trainer.py": (
        Name("ppo_actor/task_reward/avg", "reward/mean"),
        Name("ppo_actor/update/entropy/avg", "policy/entropy"),
        Name("ppo_actor/update/clip_ratio/avg", "policy/clip_fraction", ACTIVE),
        Name("ppo_actor/update/behave_imp_weight/avg", "correction/weight_mean"),
        # k1 and k3 of the new policy and the one that sampled, with all that the weights have moved since.
        Name("ppo_actor/update/compute_logp/kl_div_direct/avg", "mismatch/kl_k1", stale="always"),
        Name("ppo_actor/update/compute_logp/kl_div_dual/avg", "mismatch/kl_k3", stale="always"),
        # A raw log ratio, proximal against behaviour policy: k1 with its sign turned.
        Name("ppo_actor/update/behave_approx_kl/avg", "mismatch/kl_k1", "sign turned", factor=-1.0, stale="if async"),
        Name("ppo_actor/update/version_stats/sample_staleness_theta_avg", "async/version_lag_mean"),
        Name("ppo_actor/update/version_stats/sample_staleness_theta_max", "async/version_lag_max"),
        Name("ppo_actor/update/grad_norm", "policy/grad_norm"),
        Name("ppo_actor/update/lr", "policy/lr"),
        Name("timeperf/update_weights", "sync/total_s"),
    ),
    "open-instruct, open_instruct/grpo_utils.py and ground_truth_utils.py; the bare names in issue 1473": (
        Name("debug/vllm_vs_local_logprob_diff_mean", "mismatch/abs_diff_mean", stale="if async"),
        Name("debug/vllm_vs_local_logprob_diff_max", "mismatch/abs_diff_max", stale="if async"),
        # Older versions weigh each token by the probability that the engine gave it; the sign is k1's in all.
        Name("debug/vllm_local_reverse_kl", "mismatch/kl_k1", "p-weighted in older versions", stale="if async"),
        Name("vllm_vs_local_logprob_diff_mean", "mismatch/abs_diff_mean", stale="if async"),
        Name("vllm_vs_local_logprob_diff_max", "mismatch/abs_diff_max", stale="if async"),
        Name("policy/entropy_avg", "policy/entropy"),
        Name("policy/clipfrac_avg", "policy/clip_fraction", ACTIVE),
        Name("objective/verifiable_reward", "reward/mean"),
        Name("time/weight_sync", "sync/total_s"),
    ),
    "ROLL, roll/utils/train_infer_corrections.py and the pipelines' actor workers": (
        Name("actor/train_infer_ratio_token_mean", "mismatch/ratio_mean", stale="if async"),
        Name("actor/ppo_ratio_clipfrac", "policy/clip_fraction"),
        Name("time/step_model_update", "sync/total_s"),
    ),
    "ms-swift, swift/rlhf_trainers/grpo_trainer.py": (
        Name("rollout_correction/kl", "mismatch/kl_k1", stale="if async"),
        Name("rollout_correction/k3_kl", "mismatch/kl_k3", stale="if async"),
        Name("rollout_correction/is_weight_mean", "mismatch/ratio_mean", stale="if async"),
        Name("rollout_correction/ess", "mismatch/ess", stale="if async"),
    ),
    "torchforge, apps/grpo/main.py, replay_buffer.py and titan.py": (
        Name("reward/evaluate_response/avg_total_reward", "reward/mean"),
        Name("buffer/sample/avg_sampled_policy_age", "async/version_lag_mean", TRAJECTORIES),
        Name("buffer/sample/max_sampled_policy_age", "async/version_lag_max", TRAJECTORIES),
        Name("rl_trainer/learning_rate", "policy/lr"),
    ),
}
"""By source, names of a framework; of several names for one metric the earlier one wins."""

ASYNCHRONOUS: Final[tuple[str, ...]] = (
    "off_policy/*", "dispatcher/off_policy/*", "training/off_policy/*", "fully_async/*", "async/*", "buffer/sample/*",
    "train/avg_trajectory_age", "ppo_actor/update/version_stats/*", "watcher/policy_version", "stats/lag",
)  # fmt: skip
"""Names that only an asynchronous run logs: its engine's logprobs are of older weights than the trainer's."""

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
SUFFIXES: Final = ("@sum", "@mean", "/avg")
"""Endings that say how a logger reduced a name: ROLL's, AReaL's."""
