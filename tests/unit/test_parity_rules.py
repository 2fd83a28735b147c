"""The rules: the default file, and the error that a bad one gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.parity.rules import Rule, Rules, RulesError, load, parse
from driftline.catalog.metrics import BY_NAME

GOOD = '[metrics."reward/mean"]\nspread = 0.03\n'


def test_the_default_rules() -> None:
    rules = load()
    assert {name for name, rule in rules.metrics.items() if not rule.optional} == {
        "policy/clip_fraction", "policy/kl_new_old", "policy/entropy", "reward/mean", "mismatch/abs_diff_mean",
    }  # fmt: skip
    assert {name for name, rule in rules.metrics.items() if rule.optional} == {
        "mismatch/kl_k3", "mismatch/kl_k1", "mismatch/mult_prob_error", "mismatch/ratio_mean", "mismatch/abs_diff_p99",
        "mismatch/abs_diff_max", "correction/weight_mean",
    }  # fmt: skip
    assert all(rule.effect is not None for rule in rules.metrics.values() if not rule.optional)
    assert rules.alpha == 0.05
    mismatch = rules.metrics["mismatch/abs_diff_mean"]
    assert mismatch.side == "high"
    assert mismatch.limit == BY_NAME["mismatch/abs_diff_mean"].warn
    for name in ("mismatch/kl_k3", "mismatch/kl_k1", "mismatch/mult_prob_error", "mismatch/ratio_mean"):
        assert rules.metrics[name].limit in (BY_NAME[name].warn, BY_NAME[name].alarm), "the catalogue's"


def test_a_short_file_takes_the_rest_from_the_defaults() -> None:
    assert parse(GOOD, "x.toml") == Rules(metrics={"reward/mean": Rule(spread=0.03)})


def test_names_of_other_frameworks_are_understood() -> None:
    assert list(parse(GOOD.replace("reward/mean", "critic/score/mean"), "x").metrics) == ["reward/mean"]
    assert list(load().only(["kl_new_old", "entropy"]).metrics) == ["policy/kl_new_old", "policy/entropy"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "x.toml: not TOML"),
        ("", "x.toml: object missing required field `metrics`"),
        ("[metrics]\n", "x.toml: metrics: no metric has a rule"),
        (f"alpha = 0.9\n{GOOD}", "x.toml: alpha: expected `float` <= 0.5"),
        (f"window = 1\n{GOOD}", "x.toml: window: expected `int` >= 2"),
        (f"wimdow = 1\n{GOOD}", "x.toml: unknown key 'wimdow'; allowed: alpha, window, hold, "),
        ('[metrics."reward/mean"]\nspread = 0\n', 'x.toml: metrics."reward/mean".spread: expected `float` > 0'),
        ('[metrics.reward]\nspread = 1\nside = "up"\n', "x.toml: metrics.\"reward\".side: invalid enum value 'up'"),
        ('[metrics."rewards"]\nspread = 1\n', "x.toml: metrics: unknown metric 'rewards'; allowed: reward/mean, "),
        (GOOD + "[metrics.reward]\nspread = 1\n", "x.toml: metrics: 'reward' is reward/mean, which has a rule already"),
        ('[metrics.entropy]\nspread = 1\nscale = "log"\n', 'x.toml: metrics."entropy": scale = "log" needs a floor'),
        ("[metrics.entropy]\nspread = 1\nfloor = 1\n", 'x.toml: metrics."entropy": scale = "linear" has a floor'),
    ],
)
def test_bad_rules_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(RulesError) as error:
        parse(text, "x.toml")
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml")


def test_a_metric_without_a_rule() -> None:
    with pytest.raises(RulesError, match="no parity rule for 'policy/lr'; there are rules for: policy/clip_fraction, "):
        load().only(["lr"])
