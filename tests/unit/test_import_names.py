"""From the names of frameworks to the catalogue's: the table, what else a log has, and what may not stand as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from console.export import frame
from console.importing.import_run import import_log
from console.store.load import load
from driftline.catalog import framework_names as names
from driftline.catalog.metrics import ALIASES, BY_NAME, resolve
from driftline.catalog.naming import RESERVED, catalogued, mapping
from driftline.rundir import find

ROWS = [(source, rule) for source, rules in names.KNOWN.items() for rule in rules]


def one(name: str, *beside: str) -> tuple[str, str]:
    """Where a name goes in a log that has others beside it, and its label."""
    target = mapping([name, *beside])[name]
    return target.name, target.label


@pytest.mark.parametrize(("source", "rule"), ROWS, ids=[f"{rule.name} {rule.label}" for _, rule in ROWS])
def test_every_row_of_the_table_leads_to_a_metric_with_its_label(source: str, rule: names.Name) -> None:
    name = rule.name.replace("*", "one")
    beside = [wanted.replace("*", "one") for wanted in rule.beside[:1]]
    target = mapping([name, *beside])[name]
    assert target.name == rule.target in BY_NAME, source
    assert target.label.startswith(rule.label)
    assert ("staleness" in target.label) == bool(rule.stale)
    assert target.factor == rule.factor
    if name in ALIASES:
        assert rule.target == ALIASES[name]


@pytest.mark.parametrize(
    ("name", "target", "label"),
    [
        ("train/agg/effective/solver/reward/mean", "reward/mean", "effective"),
        ("mismatch_kl/math/mean", "mismatch/kl_k3", "with staleness if async"),
        ("inference/agg/num_requests_running", "engine/running", ""),
        ("inference/agg/num_requests_waiting", "engine/waiting", ""),
        ("inference/agg/kv_cache_usage_perc", "engine/kv_use", ""),
        ("inference/agg/prefix_cache_hit_rate/pooled", "engine/prefix_hit_rate", ""),
        ("off_policy/mean", "async/version_lag_mean", "episodes"),
        ("train/vllm_kl", "mismatch/kl_k1", "with staleness if async"),
        ("train/ppo_clip_ratio", "policy/clip_fraction", "active"),
        ("train/actor_grad_norm", "policy/grad_norm", ""),
        ("train/actor_lr", "policy/lr", ""),
        ("train/pg_clipfrac", "policy/clip_fraction", "active, sequence mean"),
        ("train/kl_loss", "policy/kl_ref", "sequence mean"),
        ("train/k3_kl", "mismatch/kl_k3", "sequence mean, with staleness if async"),
        ("train/tis", "mismatch/ratio_mean", "sequence mean, with staleness if async"),
        ("train/tis_clipfrac", "correction/truncated_fraction", "sequence mean"),
        ("train/lr-pg_0", "policy/lr", ""),
        ("mismatch/mismatch_kl", "mismatch/kl_k1", "with staleness if async"),
        ("mismatch/mismatch_k3_kl", "mismatch/kl_k3", "with staleness if async"),
        ("mismatch/rollout_is_mean", "mismatch/ratio_mean", "with staleness if async"),
        ("training/off_policy/trajectory_staleness/mean", "async/version_lag_mean", "trajectories"),
        ("training/off_policy/trajectory_staleness/max", "async/version_lag_max", "trajectories"),
        ("rollout_corr/rollout_rs_seq_masked_fraction", "correction/masked_sequences", "any token"),
        ("rollout_corr/logprob_abs_diff/mean", "mismatch/abs_diff_mean", "with staleness if async"),
        ("rollout_corr/logprob_abs_diff/max", "mismatch/abs_diff_max", "with staleness if async"),
        ("train/kl_penalty", "policy/kl_ref", ""),
        ("train/sampling_importance_ratio", "mismatch/ratio_mean", "truncated, with staleness if async"),
        ("train/avg_trajectory_age", "async/version_lag_mean", "trajectories"),
        ("timing/train/prepare_for_generation/transfer_and_update_weights", "sync/load_s", ""),
        ("ppo_actor/task_reward/avg", "reward/mean", ""),
        ("ppo_actor/update/entropy/avg", "policy/entropy", ""),
        ("ppo_actor/update/clip_ratio/avg", "policy/clip_fraction", "active"),
        ("ppo_actor/update/behave_imp_weight/avg", "correction/weight_mean", ""),
        ("ppo_actor/update/compute_logp/kl_div_direct/avg", "mismatch/kl_k1", "with staleness"),
        ("ppo_actor/update/compute_logp/kl_div_dual/avg", "mismatch/kl_k3", "with staleness"),
        ("ppo_actor/update/version_stats/sample_staleness_theta_avg", "async/version_lag_mean", ""),
        ("ppo_actor/update/version_stats/sample_staleness_theta_max", "async/version_lag_max", ""),
        ("ppo_actor/update/grad_norm", "policy/grad_norm", ""),
        ("ppo_actor/update/grad_norm/avg", "policy/grad_norm", ""),
        ("ppo_actor/update/lr", "policy/lr", ""),
        ("timeperf/update_weights", "sync/total_s", ""),
        ("policy/loss_metrics/clip_ratio", "policy/clip_fraction", "active"),
        ("policy/loss_metrics/is_ratio_mean", "mismatch/ratio_mean", "with staleness if async"),
        ("policy/policy_kl", "policy/kl_ref", ""),
        ("policy/policy_lr", "policy/lr", ""),
        ("async/num_groups_dropped", "async/stale_dropped", ""),
        ("debug/vllm_vs_local_logprob_diff_mean", "mismatch/abs_diff_mean", "with staleness if async"),
        ("debug/vllm_vs_local_logprob_diff_max", "mismatch/abs_diff_max", "with staleness if async"),
        ("policy/entropy_avg", "policy/entropy", ""),
        ("policy/clipfrac_avg", "policy/clip_fraction", "active"),
        ("objective/verifiable_reward", "reward/mean", ""),
        ("time/weight_sync", "sync/total_s", ""),
        ("actor/train_infer_ratio_token_mean@sum", "mismatch/ratio_mean", "with staleness if async"),
        ("actor/ppo_ratio_clipfrac@sum", "policy/clip_fraction", ""),
        ("time/step_model_update", "sync/total_s", ""),
        ("train/rollout_correction/kl", "mismatch/kl_k1", "with staleness if async"),
        ("rollout_correction/k3_kl", "mismatch/kl_k3", "with staleness if async"),
        ("rollout_correction/is_weight_mean", "mismatch/ratio_mean", "with staleness if async"),
        ("rollout_correction/ess", "mismatch/ess", "with staleness if async"),
        ("train/sampling/importance_sampling_ratio/mean", "mismatch/ratio_mean", "sequences, truncated"),
        ("reward/evaluate_response/avg_total_reward", "reward/mean", ""),
        ("buffer/sample/avg_sampled_policy_age", "async/version_lag_mean", "trajectories"),
        ("buffer/sample/max_sampled_policy_age", "async/version_lag_max", "trajectories"),
        ("rl_trainer/learning_rate", "policy/lr", ""),
        ("rl/entropy", "policy/entropy", "sequence mean"),
        ("rl/kl", "policy/kl_ref", "sequence mean"),
        ("rl/kl_new_old", "policy/kl_new_old", "sequence mean"),
        ("rl/clamp_log_ratio_new_old_indicator", "policy/clip_fraction", "sequence mean"),
        ("critic/score/mean", "reward/mean", ""),
        ("train/sampling/sampling_logp_difference/mean", "mismatch/abs_diff_mean", ""),
        ("train/gen_kl_error", "mismatch/kl_k3", "with staleness if async"),
    ],
)
def test_todays_names(name: str, target: str, label: str) -> None:
    assert one(name) == (target, label)


@pytest.mark.parametrize(
    "name",
    [
        "rl/ess", "actor/ppo_kl", "train/ppo_kl", "train/approx_entropy", "training/rollout_probs_diff_mean", "kl",
        "train/kl", "perf/throughput", "train/policy_kl_error", "train/js_divergence_error", "ratio",
        "actor/approxkl@sum", "train/ois", "objective/kl", "anything",
    ],
)  # fmt: skip
def test_what_is_another_quantity_is_not_mapped(name: str) -> None:
    assert catalogued(name) is None
    assert one(name)[0] not in BY_NAME
    assert resolve(one(name)[0]) not in BY_NAME, "nor by those that read the run"


@pytest.mark.parametrize(
    ("name", "beside", "target", "label"),
    [
        ("kl", ("ratio",), "policy/kl_new_old", ""),
        ("train/kl", ("train/ratio", "train/reward_std"), "policy/kl_new_old", ""),
        ("kl", ("weight_sync_time_s",), "policy/kl_new_old", ""),
        ("kl", ("frac_reward_zero_std",), "policy/kl_ref", ""),
        ("train/kl", ("train/reward_std",), "policy/kl_ref", ""),
        ("kl", ("clip_ratio/region_mean",), "policy/kl_ref", ""),
        ("kl", ("sampling/sampling_logp_difference/mean",), "policy/kl_ref", ""),
        ("train/kl", ("train/vllm_kl",), "policy/kl_ref", "k1"),
        ("train/kl", ("train/ppo_clip_ratio",), "policy/kl_ref", "k1"),
        ("train/kl", ("train/k3_kl",), "mismatch/kl_k1", "sequence mean, with staleness if async"),
        ("train/kl", ("train/k3_kl", "train/pg_clipfrac"), "mismatch/kl_k1", "sequence mean, with staleness if async"),
        ("train/kl", ("train/reward", "loss"), "train/kl", ""),
        ("kl", ("reward", "entropy"), "kl", ""),
        ("train/entropy_loss", ("train/vllm_kl",), "policy/entropy", ""),
        ("train/entropy_loss", ("rollout/raw_reward",), "policy/entropy", "sequence mean"),
        ("rollout_corr/kl", ("fully_async/count/current_param_version",), "mismatch/kl_k1", "with staleness"),
        ("mismatch_kl/all/mean", ("off_policy/mean",), "mismatch/kl_k3", "with staleness"),
        ("mismatch_kl/math/mean", ("mismatch_kl/all/mean",), "mismatch_kl/math/mean", ""),
        ("mismatch_kl/a/mean", ("mismatch_kl/b/mean",), "mismatch/kl_k3", "a only, with staleness if async"),
        ("mismatch_kl/b/mean", ("mismatch_kl/a/mean",), "mismatch_kl/b/mean", ""),
    ],
)
def test_what_else_the_log_has_decides(name: str, beside: tuple[str, ...], target: str, label: str) -> None:
    assert one(name, *beside) == (target, label)


def test_two_names_for_one_metric_do_not_overwrite_each_other() -> None:
    # The score itself before one that may have a KL penalty in it; an exact name before every alias.
    targets = {name: target.name for name, target in mapping(["critic/score/mean", "critic/rewards/mean"]).items()}
    assert targets == {"critic/score/mean": "reward/mean", "critic/rewards/mean": "critic/rewards/mean"}
    given = ["reward", "reward/mean", "rl/reward", "train/reward", "metrics/reward/mean"]
    assert {name: target.name for name, target in mapping(given).items()} == {
        "reward/mean": "reward/mean", "reward": "log/reward", "rl/reward": "log/rl/reward",
        "train/reward": "train/reward", "metrics/reward/mean": "metrics/reward/mean",
    }  # fmt: skip


def test_names_stay_distinct_whatever_they_are() -> None:
    given = [
        *sorted(RESERVED),
        *(f"log/{name}" for name in sorted(RESERVED)),
        "a\nb",
        "a↵b",
        "\x1b",
        "",
        "kl",
        "log/kl",
    ]
    targets = [target.name for target in mapping(given).values()]
    assert len(set(targets)) == len(given)
    assert not RESERVED & set(targets)
    assert not set(ALIASES) & set(targets)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_name_that_is_a_key_column_is_kept_under_another(tmp_path: Path, name: str) -> None:
    path = tmp_path / "log.jsonl"
    rows = [{"train/global_step": step, name: step + 0.5, "reward": 1.0} for step in (1, 2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = import_log(path, tmp_path / "runs", "keys")
    assert made.mapped[name] == f"log/{name}"
    table = frame(find(made.path), "metrics")
    assert table[f"log/{name}"].to_list() == [1.5, 2.5]
    assert table["step"].to_list() == [1, 2]


def test_a_value_by_another_rule_than_the_catalogues_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    values = {"actor/pg_clipfrac": 0.1, "rollout_corr/rollout_is_eff_sample_size": 0.9, "actor/entropy": 2.0}
    path.write_text(json.dumps({"step": 1, **values}) + "\n")
    made = import_log(path, tmp_path / "runs", "labels")
    labels = {"policy/clip_fraction": "active", "mismatch/ess": "truncated, with staleness if async"}
    assert load(find(made.path)).model.labels == labels == made.labels


def test_the_log_ratio_of_areal_is_k1_with_its_sign_turned(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"step": 1, "ppo_actor/update/behave_approx_kl/avg": -0.25}) + "\n")
    made = import_log(path, tmp_path / "runs", "areal")
    assert made.labels == {"mismatch/kl_k1": "sign turned, with staleness if async"}
    assert frame(find(made.path), "metrics")["mismatch/kl_k1"].to_list() == [0.25]
