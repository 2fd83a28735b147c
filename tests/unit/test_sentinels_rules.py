"""Rules as data: the packaged file, a user's file over it, and what is said of one that cannot be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from console.sentinels.rules import KINDS, Baseline, Limit, Rules, RulesError, load, parse

ROOT = Path(__file__).parents[2]
OWN = """
[rules.kl-spike]
z = 8

[rules.clip-jump]
enabled = false

[rules.kl-limit]
below = 0.5

[rules.grad-norm]
kind = "limit"
metric = "grad_norm"
above = 50.0
"""


def test_the_packaged_rules_are_those_of_the_issue():
    rules = load()
    assert len(list(rules)) == len(rules.rules)
    for name in (
        "entropy-collapse",
        "kl-spike",
        "clip-jump",
        "mismatch-limit",
        "same-rewards",
        "version-skew",
        "engine-stalled",
        "feed-stale",
    ):
        assert rules.rules[name].source, name
    limits = {name: rule.bound for name, rule in rules if isinstance(rule, Limit)}
    assert limits == {"kl-limit": 0.1, "mismatch-limit": 0.05, "same-rewards": 0.9}, "the catalogue's"


def test_a_file_changes_key_by_key_switches_off_and_adds():
    rules = parse(OWN, "mine.toml")
    base = load().rules
    spike = rules.rules["kl-spike"]
    assert isinstance(spike, Baseline)
    assert (spike.z, spike.factor) == (8.0, base["kl-spike"].factor)  # type: ignore[union-attr]
    on = dict(rules)
    assert "clip-jump" not in on
    assert "clip-jump" in rules.rules
    own = on["grad-norm"]
    assert isinstance(own, Limit)
    assert own.bound == 50.0
    limit = on["kl-limit"]
    assert isinstance(limit, Limit)
    assert (limit.above, limit.below) == (None, 0.5), "the other side takes the place of the first"


def test_another_kind_replaces_the_rule():
    rules = parse('[rules.kl-spike]\nkind = "limit"\nmetric = "kl_new_old"\nabove = 0.5', "m")
    assert isinstance(rules.rules["kl-spike"], Limit)


def test_a_metric_of_ones_own_trainer_is_allowed_when_said():
    rules = parse('[rules.len]\nkind = "limit"\nmetric = "my/length"\nabove = 900\ncustom = true', "m")
    assert isinstance(rules.rules["len"], Limit)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules = 3", "m.toml: rules: must be tables, as in [rules.kl-spike]"),
        ("[rules.x", "m.toml: not TOML: "),
        ("[kl-spike]\nz = 3", "m.toml: unknown key 'kl-spike'; a file of rules has tables [rules.NAME] only"),
        ("[rules.kl-spike]\nz = 'high'", "m.toml: rules.kl-spike.z: expected `float`, got `str`"),
        ("[rules.kl-spike]\nz = -1", "m.toml: rules.kl-spike.z: expected `float` >= 0.0"),
        ("[rules.kl-spike]\nzed = 1", "m.toml: unknown key 'rules.kl-spike.zed'; allowed: enabled, "),
        ("[rules.kl-spike]\nlevel = 'bad'", "m.toml: rules.kl-spike.level: invalid enum value 'bad'"),
        ("[rules.kl-spike]\nhold = 4", "m.toml: rules.kl-spike.of: 3 is less than hold = 4; allowed: 4 or more"),
        ("[rules.kl-spike]\nchange = 1", 'm.toml: rules.kl-spike: scale = "log" needs factor (the least that counts)'),
        ("[rules.kl-spike]\nwarmup = 200", "m.toml: rules.kl-spike.warmup: 200 is more than window = 100"),
        ("[rules.kl-spike]\nscale = 'linear'", "needs change (the least that counts), and no factor"),
        ("[rules.Mine]\nkind = 'feed'", "m.toml: rules.Mine: a rule's name is lower-case words with hyphens"),
        ("[rules.mine]\nz = 3", f"m.toml: rules.mine: a rule of your own needs a kind; allowed: {', '.join(KINDS)}"),
        ("[rules.mine]\nkind = 'x'", "m.toml: rules.mine.kind: unknown kind 'x'; allowed: limit, baseline"),
        ("[rules.mine]\nkind = 'limit'", "m.toml: rules.mine: object missing required field `metric`"),
        ("[rules.mine]\nkind = 'limit'\nmetric = 'policy/entropi'\nabove = 1",
         "m.toml: rules.mine.metric: unknown metric 'policy/entropi'; near: policy/entropy"),
        ("[rules.mine]\nkind = 'limit'\nmetric = 'entropy'", "rules.mine: needs either above or below"),
        ("[rules.mine]\nkind = 'limit'\nmetric = 'entropy'\nabove = 1\nbelow = 2", "needs either above or below"),
        ("[rules.mine]\nkind = 'limit'\nmetric = 'entropy'\nabove = 'alarm'",
         'rules.mine.above: the catalogue has no "alarm" limit for entropy; allowed: a number'),
        ("[rules.mine]\nkind = 'limit'\nmetric = 'mismatch/ess'\nabove = 'alarm'",
         "rules.mine.above: mismatch/ess is worse low"),
        ("[rules.feed-stale]\nseconds = 0", "m.toml: rules.feed-stale.seconds: expected `float` > 0.0"),
        ("[rules.entropy-spent]\nunless = { metric = 'x', by = 1 }", "entropy-spent.unless.metric: unknown metric"),
        ("[rules]\nkl-spike = 3", "m.toml: rules: must be tables"),
    ],
)  # fmt: skip
def test_bad_rules_are_one_sentence_with_the_place(text: str, said: str):
    with pytest.raises(RulesError) as error:
        parse(text, "m.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path):
    with pytest.raises(RulesError, match=r"nowhere\.toml: cannot be read: No such file"):
        load(tmp_path / "nowhere.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RulesError, match="not UTF-8"):
        load(tmp_path / "bytes.toml")


def documented() -> str:
    return (ROOT / "docs" / "sentinels.md").read_text(encoding="utf-8")


def test_every_rule_and_every_key_is_documented():
    text = documented()
    rules = load()
    for name in rules.rules:
        assert f"### `{name}`" in text, name
    for rule in rules.rules.values():
        for key in rule.__struct_fields__:
            assert f"`{key}" in text, key
    for kind in KINDS:
        assert f'`kind = "{kind}"`' in text, kind


def test_the_documented_defaults_are_those_of_the_file():
    """Each rule's section quotes its table of rules.toml; a figure that changes there has to change here."""
    text = documented()
    packaged = Path(load.__code__.co_filename).with_name("rules.toml").read_text(encoding="utf-8")
    for name in load().rules:
        section = text.split(f"### `{name}`", 1)[1].split("\n### ", 1)[0].split("\n## ", 1)[0]
        table = packaged.split(f"[rules.{name}]\n", 1)[1].split("\n\n", 1)[0]
        for line in table.splitlines():
            if not line.startswith(("kind", "source", "unless", "level")):
                key, value = (part.strip() for part in line.split("=", 1))
                assert re.search(rf"`{key} = {re.escape(value)}`", section), f"{name}: {line}"


def test_rules_iterate_over_what_is_on():
    assert [name for name, _ in Rules({})] == []
