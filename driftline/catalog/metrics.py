"""Catalogue of metrics: the one place where a name gets its formula, its policy pair and its limits.

Notation: `new` is the policy being trained, `old` the policy whose logprobs the objective divides by (here,
as in PipelineRL, the engine's rollout logprobs; under one of `driftline.catalog.corrections` it is `now`), `roll` the
engine's logprob of a token it sampled, `train` the trainer's logprob of that token under the *same weights*, `now`
the trainer's logprob under the weights at the start of the step, `ref` the frozen start. d = train - roll, r =
exp(d). All are natural logarithms of probabilities at the sampling temperature, before any truncation or clipping.
"token mean" weighs every response token of the step equally.

Three causes are kept apart: `mismatch/*` (same weights, two backends), `staleness/*` (same backend, older
weights) and `policy/*` (the learning itself, which in an objective over rollout logprobs contains the other two).
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

Health = Literal["none", "healthy", "warn", "alarm"]
Direction = Literal["low", "high"]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. `warn` and `alarm` are limits on |value| in the bad direction `worse`, or None.

    `other_warn` and `other_alarm` are those in the other direction, of a quantity that is healthy in between only.
    `aggregation` is "token mean", "sequence mean", "step" (one number a step) or "pool" (over the engines).
    `source` names who published the formula or the limits.
    """

    name: str
    title: str
    formula: str
    unit: str
    pair: str
    aggregation: str
    source: str
    worse: Direction = "high"
    warn: float | None = None
    alarm: float | None = None
    other_warn: float | None = None
    other_alarm: float | None = None
    aliases: tuple[str, ...] = ()

    def limit(self, word: Literal["warn", "alarm"], side: Direction) -> float | None:
        """The limit of this name on |value| in this direction, None where there is none."""
        if side == self.worse:
            return self.warn if word == "warn" else self.alarm
        return self.other_warn if word == "warn" else self.other_alarm


_PAIR_MM = "train|roll, same weights"
_PAIR_SH = "roll|roll of another engine, same weights"
_PAIR_NO = "new|old"
_PAIR_CO = "now|roll"
_NEMO = "NeMo-RL loss_functions.py and its GRPO guide"

METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        name="reward/mean",
        title="reward",
        formula="mean of the sequences' rewards",
        unit="reward",
        pair="-",
        aggregation="sequence mean",
        source="all frameworks",
        worse="low",
        aliases=("reward", "rl/reward", "critic/score/mean"),
    ),
    Metric(
        name="reward/std",
        title="reward std",
        formula="standard deviation of the sequences' rewards (n - 1)",
        unit="reward",
        pair="-",
        aggregation="step",
        source="TRL reward_std",
        worse="low",
    ),
    Metric(
        name="reward/zero_std_fraction",
        title="zero-std groups",
        formula="fraction of prompt groups whose rewards are all equal",
        unit="fraction",
        pair="-",
        aggregation="step",
        source="TRL frac_reward_zero_std; limit: rl-metrics survey, row 19",
        warn=0.9,
        aliases=("frac_reward_zero_std",),
    ),
    Metric(
        name="policy/clip_fraction",
        title="clip fraction",
        formula="1[ratio outside [1-eps_low, 1+eps_high]], any sign of the advantage; "
        "ratio per token (ppo) or per sequence, counted by sequence (gspo)",
        unit="fraction",
        pair=_PAIR_NO,
        aggregation="token mean (ppo), sequence mean (gspo)",
        source="PipelineRL finetune/rl; TRL clip_ratio for the low and high parts",
        aliases=(
            "clamp_log_ratio_new_old_indicator",
            "rl/clamp_log_ratio_new_old_indicator",
            "actor/pg_clipfrac",
            "clip_ratio/region_mean",
        ),
    ),
    Metric(
        name="policy/clip_fraction_low",
        title="clip fraction low",
        formula="1[ratio < 1-eps_low and A < 0]",
        unit="fraction",
        pair=_PAIR_NO,
        aggregation="token mean (ppo), sequence mean (gspo)",
        source="TRL clip_ratio/low_mean",
        aliases=("clip_ratio/low_mean",),
    ),
    Metric(
        name="policy/clip_fraction_high",
        title="clip fraction high",
        formula="1[ratio > 1+eps_high and A > 0]",
        unit="fraction",
        pair=_PAIR_NO,
        aggregation="token mean (ppo), sequence mean (gspo)",
        source="TRL clip_ratio/high_mean",
        aliases=("clip_ratio/high_mean",),
    ),
    # Over tokens that old sampled, so that it estimates KL(old‖new); the name is PipelineRL's.
    Metric(
        name="policy/kl_new_old",
        title="KL old‖new (k3)",
        formula="exp(l) - l - 1, l = new - old",
        unit="nats",
        pair=_PAIR_NO,
        aggregation="token mean",
        source="Schulman k3; PipelineRL kl_new_old; limit: verl alert",
        warn=1e-2,
        alarm=0.1,
        aliases=("kl_new_old", "rl/kl_new_old"),
    ),
    Metric(
        name="policy/kl_ref",
        title="KL to reference (k3)",
        formula="exp(l) - l - 1, l = ref - new",
        unit="nats",
        pair="new|ref",
        aggregation="token mean",
        source="Schulman k3; TRL kl",
        aliases=("rl/kl", "actor/kl_loss"),
    ),
    Metric(
        name="policy/entropy",
        title="entropy",
        formula="-sum over the vocabulary of p log p, at temperature T",
        unit="nats",
        pair="new",
        aggregation="token mean",
        source="PipelineRL entropy (exact, not sampled)",
        worse="low",
        aliases=("entropy", "rl/entropy", "actor/entropy"),
    ),
    Metric(
        name="policy/grad_norm",
        title="gradient norm",
        formula="L2 norm before clipping, mean over the passes",
        unit="-",
        pair="-",
        aggregation="step",
        source="torch.nn.utils.clip_grad_norm_",
        aliases=("stats/grad_norm", "grad_norm"),
    ),
    Metric(
        name="policy/lr",
        title="learning rate",
        formula="learning rate of the step",
        unit="-",
        pair="-",
        aggregation="step",
        source="optimizer",
        aliases=("stats/lr", "lr"),
    ),
    Metric(
        name="mismatch/abs_diff_mean",
        title="mismatch mean|Δlogp|",
        formula="|d|",
        unit="nats",
        pair=_PAIR_MM,
        aggregation="token mean",
        source="TRL sampling_logp_difference/mean; limits: vime 64 (0.011 flat), "
        "0.05 = NeMo's 1.05 multiplicative error",
        warn=0.03,
        alarm=0.05,
        aliases=("sampling/sampling_logp_difference/mean", "train/train_rollout_logprob_abs_diff"),
    ),
    Metric(
        name="mismatch/abs_diff_p99",
        title="mismatch p99|Δlogp|",
        formula="99th percentile of |d| (linear)",
        unit="nats",
        pair=_PAIR_MM,
        aggregation="token",
        source="TRL issue 6789 (p95 0.113)",
        warn=0.2,
        alarm=0.5,
    ),
    Metric(
        name="mismatch/abs_diff_max",
        title="mismatch max|Δlogp|",
        formula="max |d|",
        unit="nats",
        pair=_PAIR_MM,
        aggregation="token",
        source="TRL sampling_logp_difference/max; NeMo-RL 2100",
        alarm=3.0,
        aliases=("sampling/sampling_logp_difference/max",),
    ),
    Metric(
        name="mismatch/kl_k3",
        title="mismatch KL (k3)",
        formula="r - 1 - d",
        unit="nats",
        pair=_PAIR_MM,
        aggregation="token mean",
        source=f"{_NEMO} (1e-3 acceptable); prime-rl mismatch_kl",
        warn=1e-3,
        alarm=1e-2,
        aliases=("mismatch_kl", "rollout_corr/k3_kl", "train/gen_kl_error"),
    ),
    Metric(
        name="mismatch/kl_k1",
        title="mismatch KL (k1, signed)",
        formula="roll - train = -d",
        unit="nats",
        pair=_PAIR_MM,
        aggregation="token mean",
        source="verl rollout_corr/kl; limit: verl health check",
        warn=1e-3,
        alarm=0.1,
        aliases=("rollout_corr/kl",),
    ),
    Metric(
        name="mismatch/mult_prob_error",
        title="token mult prob error",
        formula="exp|d|",
        unit="-",
        pair=_PAIR_MM,
        aggregation="token mean",
        source=f"{_NEMO} token_mult_prob_error: 1.05; warn: as that of mismatch/abs_diff_mean, exp(0.03)",
        warn=1.03,
        alarm=1.05,
        aliases=("train/token_mult_prob_error",),
    ),
    Metric(
        name="mismatch/ratio_mean",
        title="importance ratio mean",
        formula="r",
        unit="-",
        pair=_PAIR_MM,
        aggregation="token mean",
        source="verl rollout_is_mean, alert above 2 and below 0.5; warn: NeMo-RL's guide, around 1",
        warn=1.05,
        alarm=2.0,
        other_warn=0.95,
        other_alarm=0.5,
        aliases=(
            "sampling/importance_sampling_ratio/mean",
            "rollout_corr/rollout_is_mean",
            "train/sampling_importance_ratio",
        ),
    ),
    Metric(
        name="mismatch/ess",
        title="effective sample size",
        formula="(sum r)^2 / (n sum r^2)",
        unit="fraction",
        pair=_PAIR_MM,
        aggregation="step",
        source="PipelineRL rl/ess; limits: verl, for weights truncated at 2. Here nothing is truncated: one token in n "
        "with a ratio of sqrt(n) halves it",
        worse="low",
        warn=0.5,
        alarm=0.3,
        aliases=("rollout_corr/rollout_is_eff_sample_size",),
    ),
    Metric(
        name="staleness/abs_diff_mean",
        title="staleness mean|Δlogp|",
        formula="|now - train|",
        unit="nats",
        pair="now|train, same backend",
        aggregation="token mean",
        source="AReaL version_stats, as a logprob difference",
    ),
    Metric(
        name="async/version_lag_mean",
        title="version lag",
        formula="trainer's version - token's version",
        unit="versions",
        pair="-",
        aggregation="token mean",
        source="AReaL sample_staleness; SkyRL staleness_mean",
        aliases=("async/staleness_mean", "off_policy/mean"),
    ),
    Metric(
        name="async/version_lag_max",
        title="version lag max",
        formula="largest lag of a token",
        unit="versions",
        pair="-",
        aggregation="step",
        warn=4,
        alarm=8,
        source="SkyRL staleness_max; limit: SkyRL max_staleness_steps",
        aliases=("async/staleness_max", "off_policy/max"),
    ),
    Metric(
        name="async/stale_groups",
        title="stale groups",
        formula="groups with a token more than rollout.max_lag versions behind the start of the step",
        unit="groups",
        pair="-",
        aggregation="step",
        source="prime-rl max_off_policy_steps",
    ),
    Metric(
        name="async/stale_dropped",
        title="stale groups dropped",
        formula="of the stale groups those not trained on",
        unit="groups",
        pair="-",
        aggregation="step",
        source="as above",
    ),
    Metric(
        name="sync/pause_s",
        title="sync pause",
        formula="pause requested to paused, slowest engine",
        unit="s",
        pair="-",
        aggregation="pool",
        source="TRL weight_sync_time_s, split in phases",
    ),
    Metric(
        name="sync/load_s",
        title="sync load",
        formula="weights sent to weights in use, slowest engine",
        unit="s",
        pair="-",
        aggregation="pool",
        source="as above",
    ),
    Metric(
        name="sync/verify_s",
        title="sync verify",
        formula="digest of the weights in use, slowest engine",
        unit="s",
        pair="-",
        aggregation="pool",
        source="as above",
    ),
    Metric(
        name="sync/reset_s",
        title="sync cache reset",
        formula="prefix cache reset, slowest engine",
        unit="s",
        pair="-",
        aggregation="pool",
        source="as above",
    ),
    Metric(
        name="sync/resume_s",
        title="sync resume",
        formula="resume requested to resumed, slowest engine",
        unit="s",
        pair="-",
        aggregation="pool",
        source="as above",
    ),
    Metric(
        name="sync/total_s",
        title="sync total",
        formula="pause requested to resumed, slowest engine",
        unit="s",
        pair="-",
        aggregation="pool",
        source="as above",
        aliases=("weight_sync_time_s", "timing/train/weight_sync"),
    ),
    Metric(
        name="engine/tokens_per_s",
        title="generation tok/s",
        formula="tokens sampled since the last step / seconds",
        unit="tokens/s",
        pair="-",
        aggregation="pool",
        source="TRL generation_tok_per_s",
        worse="low",
        aliases=("generation_tok_per_s", "output_tokens_per_second"),
    ),
    Metric(
        name="engine/running",
        title="running requests",
        formula="sum over the engines",
        unit="requests",
        pair="-",
        aggregation="pool",
        source="vLLM num_requests_running",
    ),
    Metric(
        name="engine/waiting",
        title="waiting requests",
        formula="sum over the engines",
        unit="requests",
        pair="-",
        aggregation="pool",
        source="vLLM num_requests_waiting",
    ),
    Metric(
        name="engine/kv_use",
        title="KV cache use",
        formula="largest over the engines",
        unit="fraction",
        pair="-",
        aggregation="pool",
        source="vLLM kv_cache_usage_perc",
        warn=0.9,
        alarm=0.98,
    ),
    Metric(
        name="engine/prefix_hit_rate",
        title="prefix hit rate",
        formula="prefix-cache hit tokens / queried tokens since the last step, over the engines",
        unit="fraction",
        pair="-",
        aggregation="pool",
        source="vLLM prefix_cache_hits / prefix_cache_queries",
    ),
    Metric(
        name="shadow/abs_diff_mean",
        title="shadow mean|Δlogp|",
        formula="|roll - shadow|: the sampling engine's logprob and another engine's under the same weights, each by "
        "its own sampler",
        unit="nats",
        pair=_PAIR_SH,
        aggregation="token mean",
        source="limits: as mismatch/abs_diff_mean",
        warn=0.03,
        alarm=0.05,
    ),
    Metric(
        name="shadow/abs_diff_p99",
        title="shadow p99|Δlogp|",
        formula="99th percentile of |roll - shadow| (linear)",
        unit="nats",
        pair=_PAIR_SH,
        aggregation="token",
        source="limits: as mismatch/abs_diff_p99",
        warn=0.2,
        alarm=0.5,
    ),
    Metric(
        name="shadow/tokens",
        title="shadow tokens",
        formula="tokens that another engine has scored since the last step",
        unit="tokens",
        pair="-",
        aggregation="pool",
        source="driftline",
    ),
    Metric(
        name="shadow/skipped",
        title="shadow skipped",
        formula="tokens of the groups of the share that were not scored: no room, other weights, across an update",
        unit="tokens",
        pair="-",
        aggregation="pool",
        source="driftline",
    ),
    Metric(
        name="shadow/share",
        title="shadow share",
        formula="fraction of the sampled groups that is scored now, at most the one that is wanted",
        unit="fraction",
        pair="-",
        aggregation="pool",
        source="driftline",
    ),
    Metric(
        name="correction/weight_mean",
        title="correction weight mean",
        formula="weight of the objective's correction, 1 without one; w = exp(prox - roll), cut or masked",
        unit="-",
        pair=_PAIR_CO,
        aggregation="token mean",
        source="verl rollout_is_mean, after truncation; alert above 2 and below 0.5",
        alarm=2.0,
        other_alarm=0.5,
    ),
    Metric(
        name="correction/truncated_fraction",
        title="truncated",
        formula="1[w > cap], tis",
        unit="fraction",
        pair=_PAIR_CO,
        aggregation="token mean",
        source="verl rollout_is_ratio_fraction_high; asked for in TRL 5231",
        aliases=("rollout_corr/rollout_is_ratio_fraction_high",),
    ),
    Metric(
        name="correction/masked_fraction",
        title="masked tokens",
        formula="1[weight = 0], sequence-mask and icepop",
        unit="fraction",
        pair=_PAIR_CO,
        aggregation="token mean",
        source="verl rollout_rs_masked_fraction; SkyRL token_mask_ratio",
        aliases=("rollout_corr/rollout_rs_masked_fraction",),
    ),
    Metric(
        name="correction/masked_sequences",
        title="masked sequences",
        formula="1[every token of the sequence is masked]",
        unit="fraction",
        pair=_PAIR_CO,
        aggregation="sequence mean",
        source="NeMo-RL num_masked_seqs; verl rollout_rs_seq_masked_fraction counts any masked token",
        aliases=("rollout_corr/rollout_rs_seq_masked_fraction",),
    ),
)

BY_NAME: Final[dict[str, Metric]] = {metric.name: metric for metric in METRICS}
NAMES_KEPT: Final = 10_000
"""Names of metrics that a console holds series of. A run that makes more, such as with a step in the name, is reported
(TOO MANY NAMES); the names that were unseen for longest are dropped from memory, and the journal has them all."""

ALIASES: Final[dict[str, str]] = {alias: metric.name for metric in METRICS for alias in metric.aliases}


def resolve(name: str) -> str:
    """The catalogue's name for a name or an alias; an unknown name is returned unchanged."""
    return ALIASES.get(name, name)


def health(name: str, value: float) -> Health:
    """Verdict on one value by the catalogue's limits; "none" where no limit was published, NaN and Inf alarm."""
    metric = BY_NAME.get(name)
    if metric is None or (metric.warn is None and metric.alarm is None):
        return "none"
    if not math.isfinite(value):
        return "alarm"
    size = abs(value)

    def beyond(word: Literal["warn", "alarm"]) -> bool:
        high, low = metric.limit(word, "high"), metric.limit(word, "low")
        return (high is not None and size > high) or (low is not None and size < low)

    if beyond("alarm"):
        return "alarm"
    return "warn" if beyond("warn") else "healthy"
