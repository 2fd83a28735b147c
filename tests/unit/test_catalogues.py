"""The catalogues of metrics and fixes, and the frames that carry their values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline import frames
from driftline.catalog import fixes, metrics

ISSUE_NAMES = """
reward/mean reward/std reward/zero_std_fraction policy/clip_fraction policy/clip_fraction_low
policy/clip_fraction_high policy/kl_new_old policy/kl_ref policy/entropy policy/grad_norm policy/lr
mismatch/abs_diff_mean mismatch/abs_diff_p99 mismatch/abs_diff_max mismatch/kl_k3 mismatch/kl_k1
mismatch/mult_prob_error mismatch/ratio_mean mismatch/ess staleness/abs_diff_mean async/version_lag_mean
async/version_lag_max async/stale_groups async/stale_dropped sync/pause_s sync/load_s sync/verify_s sync/reset_s
sync/resume_s sync/total_s engine/tokens_per_s engine/running engine/waiting engine/kv_use engine/prefix_hit_rate
shadow/abs_diff_mean shadow/abs_diff_p99 shadow/tokens shadow/skipped shadow/share
correction/weight_mean correction/truncated_fraction correction/masked_fraction correction/masked_sequences
""".split()


def test_the_catalogue_holds_the_promised_names_and_no_name_twice():
    assert [m.name for m in metrics.METRICS] == ISSUE_NAMES
    aliases = [alias for m in metrics.METRICS for alias in m.aliases]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & set(ISSUE_NAMES)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("clamp_log_ratio_new_old_indicator", "policy/clip_fraction"),
        ("kl_new_old", "policy/kl_new_old"),
        ("entropy", "policy/entropy"),
        ("reward", "reward/mean"),
        ("something/else", "something/else"),
    ],
)
def test_pipelinerl_names_resolve(alias: str, name: str):
    assert metrics.resolve(alias) == name


def test_every_metric_names_pair_aggregation_and_source():
    for metric in metrics.METRICS:
        assert metric.formula
        assert metric.pair
        assert metric.aggregation
        assert metric.source


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("mismatch/abs_diff_mean", 0.011, "healthy"),
        ("mismatch/abs_diff_mean", 0.04, "warn"),
        ("mismatch/abs_diff_mean", 0.47, "alarm"),
        ("mismatch/kl_k1", -0.2, "alarm"),
        ("mismatch/ratio_mean", 1.01, "healthy"),
        ("mismatch/ratio_mean", 1.2, "warn"),
        ("mismatch/ratio_mean", 0.9, "warn"),
        ("mismatch/ratio_mean", 3e-7, "alarm"),
        ("mismatch/ratio_mean", 2.1, "alarm"),
        ("mismatch/mult_prob_error", 1.06, "alarm"),
        ("correction/weight_mean", 0.4, "alarm"),
        ("mismatch/ess", 0.99, "healthy"),
        ("mismatch/ess", 0.4, "warn"),
        ("mismatch/ess", 0.1, "alarm"),
        ("mismatch/ess", math.nan, "alarm"),
        ("policy/entropy", 1.0, "none"),
        ("not/known", 1.0, "none"),
    ],
)
def test_health(name: str, value: float, verdict: str):
    assert metrics.health(name, value) == verdict


def test_fix_ids_and_values():
    assert list(fixes.BY_ID) == [
        "processed-logprobs", "prefix-cache-off", "async-scheduling-off", "inflight-keep", "fp32-lm-head",
    ]  # fmt: skip
    with pytest.raises(fixes.UnknownFixError, match="allowed: processed-logprobs"):
        fixes.check("nope", "on")
    with pytest.raises(fixes.UnknownFixError, match="allowed: off, on"):
        fixes.check("fp32-lm-head", "1")


def _fix(*effective: str) -> frames.FixState:
    engines = tuple(frames.EngineFix(f"engine-{i}", value, "live") for i, value in enumerate(effective))
    return frames.FixState("fp32-lm-head", "on", 1, "local", 0.0, "live", engines)


def test_a_fix_is_on_only_once_every_engine_has_reported_it():
    assert _fix("on", "on").effective == "on"
    assert _fix("on", "on").settled
    assert _fix("on", "off").effective == "mixed"
    assert _fix("on", "").effective == ""
    assert _fix().effective == ""
    assert not _fix("on", "").settled


@given(st.dictionaries(st.text(max_size=20), st.floats(), max_size=40), st.integers(0, 2**31))
def test_metrics_come_back_bit_for_bit(values: dict[str, float], step: int):
    frame = frames.Metrics(step, step, 1.5, values)
    back = frames.decode(frames.encode(frame))
    assert isinstance(back, frames.Metrics)
    assert back.values.keys() == values.keys()
    for name, value in values.items():
        assert np.float64(back.values[name]).tobytes() == np.float64(value).tobytes() or math.isnan(value)
    assert frames.encode(back) == frames.encode(frame)


@given(st.binary(max_size=200))
def test_garbage_is_a_frame_error_or_a_frame(body: bytes):
    try:
        frames.decode(body)
    except frames.FrameError:
        return


def _tokens(n: int, short: int = 0) -> frames.Tokens:
    blob = np.arange(n, dtype="<i4").tobytes()
    return frames.Tokens(1, 1, 0.0, n, blob, blob, blob, blob, blob, blob[: len(blob) - short])


def test_token_blobs_must_have_the_length_they_claim():
    good = frames.decode(frames.encode(_tokens(7)))
    assert isinstance(good, frames.Tokens)
    assert frames.ints(good.ids).tolist() == list(range(7))
    with pytest.raises(frames.FrameError, match=r"Tokens\.trainer: 26 bytes, 28 expected"):
        frames.decode(frames.encode(_tokens(7, short=2)))


def test_a_body_over_the_limit_is_refused_where_it_is_made():
    with pytest.raises(frames.FrameError, match="allowed"):
        frames.encode(frames.Event(0.0, "info", "x", "y" * (frames.MAX_BODY + 1)))
