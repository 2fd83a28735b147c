"""Rules as data: the packaged file, a user's file over it, and what is said of one that cannot be used."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from msgspec import Meta

from console.sentinels.kinds import BY_KIND, KINDS, Baseline, Limit, Rise
from console.sentinels.rules import Rules, RulesError, load, parse
from driftline.catalog.metrics import BY_NAME, METRICS

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
    limits = {name: (rule.low, rule.high) for name, rule in rules if isinstance(rule, Limit)}
    assert limits == {
        "kl-limit": (None, 0.1),
        "mismatch-limit": (None, 0.05),
        "mismatch-error": (None, 1.05),
        "mismatch-k3": (None, 0.01),
        "mismatch-k1": (None, 0.1),
        "mismatch-ratio": (0.5, 2.0),
        "mismatch-weight": (0.5, 2.0),
        "mismatch-p99": (None, 0.5),
        "mismatch-max": (None, 3.0),
        "mismatch-ess": (0.3, None),
        "same-rewards": (None, 0.9),
    }, "the catalogue's"


def test_every_mismatch_that_has_an_alarm_in_the_catalogue_has_a_rule():
    watched = {rule.metric for _, rule in load() if isinstance(rule, Limit)}
    assert {one.name for one in METRICS if one.name.startswith("mismatch/") and one.alarm is not None} <= watched


def test_one_source_has_one_level():
    """NeMo-RL's multiplicative error of 1.05 is a mean difference of 0.05: both warn, and alarm, at the same size."""
    size, error = BY_NAME["mismatch/abs_diff_mean"], BY_NAME["mismatch/mult_prob_error"]
    for word in ("warn", "alarm"):
        assert math.log(error.limit(word, "high") or 0.0) == pytest.approx(size.limit(word, "high"), rel=0.03)


def test_a_file_changes_key_by_key_switches_off_and_adds():
    rules = parse(OWN, "mine.toml")
    base = load().rules
    spike = rules.rules["kl-spike"]
    assert isinstance(spike, Baseline)
    shipped = base["kl-spike"]
    assert isinstance(shipped, Baseline)
    assert (spike.z, spike.factor) == (8.0, shipped.factor)
    on = dict(rules)
    assert "clip-jump" not in on
    assert "clip-jump" in rules.rules
    own = on["grad-norm"]
    assert isinstance(own, Limit)
    assert own.high == 50.0
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
        ("[rules.kl-spike]\nhold = 5", "m.toml: rules.kl-spike.of: 4 is less than hold = 5; allowed: 5 or more"),
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


NEEDED = {
    "limit": {"metric": '"mismatch/kl_k3"', "above": "1.0"},
    "baseline": {"metric": '"mismatch/kl_k3"', "side": '"high"', "factor": "2.0"},
}
"""Keys without which a rule of a kind cannot be."""


def numbers() -> Iterator[tuple[str, str, Meta]]:
    """Kind, key and limits of every number of every kind of rule, those of a table inside it too."""
    for kind, struct in BY_KIND.items():
        for key, hint in get_type_hints(struct, include_extras=True).items():
            for part in (hint, *get_args(hint)):
                if get_origin(part) is Annotated:
                    yield kind, key, part.__metadata__[0]
    for key, hint in get_type_hints(Rise, include_extras=True).items():
        if get_origin(hint) is Annotated:
            yield "baseline", f"unless.{key}", hint.__metadata__[0]


def rule_with(kind: str, key: str, value: str) -> str:
    """A rule of a kind with one key changed."""
    if key.startswith("unless."):
        inside = {"metric": '"reward/mean"', "by": "0.1"} | {key.removeprefix("unless."): value}
        key, value = "unless", "{ " + ", ".join(f"{name} = {word}" for name, word in inside.items()) + " }"
    keys = {"kind": f'"{kind}"', **NEEDED.get(kind, {}), key: value}
    if key == "change":
        keys |= {"scale": '"linear"'}
        del keys["factor"]
    if key in ("of", "hold"):
        keys |= {"of": value}
    return "[rules.mine]\n" + "\n".join(f"{name} = {word}" for name, word in keys.items())


def test_every_number_of_every_kind_has_two_ends():
    found = list(numbers())
    assert len(found) > 35
    assert all((meta.ge is not None or meta.gt is not None) and meta.le is not None for _, _, meta in found)


@pytest.mark.parametrize(("kind", "key", "meta"), numbers(), ids=lambda one: one if isinstance(one, str) else "")
def test_a_number_that_cannot_be_is_refused_when_read(kind: str, key: str, meta: Meta):
    """With NaN, infinity or a figure beyond sense a rule could never be raised, or always would."""
    for value in ("nan", "inf", "-inf", "-1", "1e300", "9" * 400, "'x'", "true", "[1]", "{ a = 1 }"):
        with pytest.raises(RulesError) as error:
            parse(rule_with(kind, key, value), "m.toml")
        said = str(error.value)
        assert said.startswith(f"m.toml: rules.mine.{key}"), said
        assert "\n" not in said
        if not said.startswith("m.toml: unknown key"):
            assert "; allowed: " in said
    if meta.ge != 0:
        with pytest.raises(RulesError, match=f"rules.mine.{key}: expected"):
            parse(rule_with(kind, key, "0"), "m.toml")
    else:
        parse(rule_with(kind, key, "0"), "m.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[rules.kl-spike]\nz = " + "[" * 50_000, "m.toml: not TOML: brackets are nested too deeply"),
        (
            "rules.kl-spike." + ".".join("a" * 40_000) + " = 1",
            "m.toml: not TOML: a key of more than 64 parts",
        ),
        ("[rules.kl-spike]\nhold = " + "9" * 5_000, "m.toml: not TOML: a number of thousands of digits"),
        (
            "[rules.clip-jump]\nhold = 61",
            "clip-jump.hold: 61 is more than gap + window / 2, so it can never fire",
        ),
        ("[rules.mismatch-ratio]\nbelow = 3", "needs either above or below, or a below that is less than above, not 3"),
        ("[rules.mismatch-ratio]\nabove = 'warn'\nbelow = 'x'", "rules.mismatch-ratio.below: invalid enum value 'x'"),
        ("[rules.mismatch-max]\nunless_reported = ['x']", "rules.mismatch-max.unless_reported: unknown metric 'x'"),
        ("[rules.metric-missing]\nmetrics = ['x']", "rules.metric-missing.metrics: unknown metric 'x'"),
        (
            "[rules.kl-spike]\nepisode = 'No Name'",
            "kl-spike.episode: 'No Name' is not allowed; allowed: lower-case",
        ),
    ],
    ids=lambda text: text[:40],
)
def test_rules_beyond_sense_are_one_short_sentence(text: str, said: str):
    with pytest.raises(RulesError) as error:
        parse(text, "m.toml")
    assert said in str(error.value)
    assert len(str(error.value)) < 300


def test_a_rule_with_two_sides_keeps_the_one_that_is_not_changed():
    rule = parse("[rules.mismatch-ratio]\nabove = 4.0", "m").rules["mismatch-ratio"]
    assert isinstance(rule, Limit)
    assert (rule.low, rule.high) == (0.5, 4.0)


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
