"""The rules: data in TOML, typed, with errors as sentences.

A file has one table a rule, `[rules.NAME]`. A user's file changes the packaged ones key by key and adds its own.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

from driftline import toml_file
from driftline.catalog.metrics import BY_NAME, resolve

DEFAULT: Final = Path(__file__).with_name("rules.toml")

Above = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=1)]
Level = Literal["warn", "error"]
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAMES: Final = "lower-case words with hyphens, as in kl-spike"


class RulesError(toml_file.TomlError):
    """Rules that cannot be used: one sentence with the file, the rule, the key and what is allowed."""


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """Fields of every rule. `source` is the publication of the limit, `level` the severity of the alarm."""

    enabled: bool = True
    level: Level = "warn"
    source: str = ""


class _SeriesRule(_Rule, frozen=True, kw_only=True):
    """Of one metric, step by step: raised when `hold` of the newest `of` steps are beyond the limit.

    Cleared after `clear` steps in a row on the calm side of an easier limit: `ease` times the way to it. `custom`
    allows a metric that is not in the catalogue.
    """

    metric: str
    custom: bool = False
    hold: Count = 1
    of: Count | None = None
    clear: Count = 5
    ease: Share = 0.8

    @property
    def votes(self) -> int:
        """The newest steps that are counted."""
        return self.of if self.of is not None else self.hold


class Limit(_SeriesRule, frozen=True, kw_only=True, tag="limit"):
    """The size of the value against a number: `above` or `below` it, or the catalogue's own "warn" or "alarm"."""

    above: float | Literal["warn", "alarm"] | None = None
    below: float | Literal["warn", "alarm"] | None = None

    @property
    def bound(self) -> float:
        """The number."""
        word = self.above if self.above is not None else self.below
        if isinstance(word, (int, float)):
            return float(word)
        metric = BY_NAME[resolve(self.metric)]
        limit = metric.warn if word == "warn" else metric.alarm
        assert limit is not None, "checked by parse"
        return limit


class Rise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The median of the metric's last `window` values is `by` above that of its first."""

    metric: str
    by: Above
    window: Count = 20


class Baseline(_SeriesRule, frozen=True, kw_only=True, tag="baseline"):
    """The value against the series' own past: see `console.sentinels.baseline` for the statistics.

    `reference`: "recent" is the trailing `window` of steps without the newest `gap`; "start" the first `window`. Beyond
    means further from the median than `z` robust standard deviations *and* than `factor` (scale "log") or `change`
    (scale "linear", in units). Nothing is judged before `warmup` values. `unless` suppresses the alarm.
    """

    side: Literal["high", "low"]
    scale: Literal["log", "linear"] = "log"
    floor: Annotated[float, Meta(ge=0)] = 0.0
    reference: Literal["recent", "start"] = "recent"
    window: Annotated[int, Meta(ge=10)] = 100
    gap: Annotated[int, Meta(ge=0)] = 10
    warmup: Annotated[int, Meta(ge=5)] = 40
    z: Annotated[float, Meta(ge=0)] = 4.0
    factor: Annotated[float, Meta(gt=1)] | None = None
    change: Above | None = None
    unless: Rise | None = None


class Skew(_Rule, frozen=True, kw_only=True, tag="version-skew"):
    """An engine serves weights that are more than `syncs` syncs older than another's, for `seconds`."""

    syncs: Annotated[int, Meta(ge=0)] = 1
    seconds: Annotated[float, Meta(ge=0)] = 10.0


class Engine(_Rule, frozen=True, kw_only=True, tag="engine"):
    """An engine with a problem: each limit in seconds.

    `silent` without a report, `no_tokens` with requests and no token, `syncing` in one weight sync, `starting` in
    one start or restart. A dead one is raised at once.
    """

    silent: Above = 10.0
    no_tokens: Above = 30.0
    syncing: Above = 120.0
    starting: Above = 600.0
    clear: Annotated[float, Meta(ge=0)] = 3.0


class Steps(_Rule, frozen=True, kw_only=True, tag="steps"):
    """A running trainer has reported no step for `seconds`, and for `factor` times its usual step."""

    seconds: Above = 60.0
    factor: Annotated[float, Meta(ge=1)] = 10.0


class Feed(_Rule, frozen=True, kw_only=True, tag="feed"):
    """The hub has been silent for `seconds`."""

    seconds: Above = 15.0


Rule = Limit | Baseline | Skew | Engine | Steps | Feed
_BY_KIND: Final[dict[str, type[Rule]]] = {str(one.__struct_config__.tag): one for one in get_args(Rule)}
KINDS: Final = tuple(_BY_KIND)


class Rules(msgspec.Struct, frozen=True):
    """All rules by name, those that are switched off included."""

    rules: dict[str, Rule]

    def __iter__(self) -> Iterator[tuple[str, Rule]]:
        """Name and rule of those that are on."""
        return ((name, rule) for name, rule in self.rules.items() if rule.enabled)


def load(path: Path | None = None) -> Rules:
    """The packaged rules, changed and added to by a user's file. Raises RulesError."""
    base = _tables(toml_file.read(DEFAULT, RulesError), str(DEFAULT.name))
    if path is None:
        return build(base, DEFAULT.name)
    return merge(base, _tables(toml_file.read(path, RulesError), str(path)), str(path))


def parse(text: str, where: str) -> Rules:
    """The packaged rules, changed and added to by the text of a file named `where`. Raises RulesError."""
    return merge(_tables(toml_file.read(DEFAULT, RulesError), DEFAULT.name), _tables(text, where), where)


def merge(base: dict[str, Any], own: dict[str, Any], where: str) -> Rules:
    """Tables over tables: a rule of the same name and kind is changed key by key, one of another kind replaced."""
    tables = dict(base)
    for name, table in own.items():
        old = base.get(name)
        if not isinstance(table, dict):
            raise RulesError(f"{where}: rules.{name}: must be a table, as in [rules.{name}]")
        if old is None or table.get("kind", old["kind"]) != old["kind"]:
            tables[name] = table
            continue
        changed = old | table
        # One bound replaces the other; both at once are for `build` to refuse.
        for one, other in (("above", "below"), ("below", "above")):
            if one in table and other not in table:
                changed.pop(other, None)
        tables[name] = changed
    return build(tables, where)


def build(tables: dict[str, Any], where: str) -> Rules:
    """Typed rules of raw tables. Raises RulesError that names the file `where`, the rule and the key."""
    rules: dict[str, Rule] = {}
    for name, table in tables.items():
        if not _NAME.fullmatch(name):
            raise RulesError(f"{where}: rules.{name}: a rule's name is {_NAMES}")
        if "kind" not in table:
            raise RulesError(f"{where}: rules.{name}: a rule of your own needs a kind; allowed: {', '.join(KINDS)}")
        if table["kind"] not in KINDS:
            raise RulesError(f"{where}: rules.{name}.kind: unknown kind {table['kind']!r}; allowed: {', '.join(KINDS)}")
        rule = toml_file.convert(table, _BY_KIND[table["kind"]], where, RulesError, at=f"rules.{name}")
        complaint = _complaint(rule)
        if complaint:
            raise RulesError(f"{where}: rules.{name}{complaint}")
        rules[name] = rule
    return Rules(rules)


def _complaint(rule: Rule) -> str:
    if not isinstance(rule, (Limit, Baseline)):
        return ""
    unknown = _unknown(rule.metric) if not rule.custom else ""
    if unknown:
        return f".metric: {unknown}; for a metric of your own trainer say: custom = true"
    if rule.of is not None and rule.of < rule.hold:
        return f".of: {rule.of} is less than hold = {rule.hold}; allowed: {rule.hold} or more"
    return _of_limit(rule) if isinstance(rule, Limit) else _of_baseline(rule)


def _of_limit(rule: Limit) -> str:
    if (rule.above is None) == (rule.below is None):
        return ': needs either above or below, a number or the catalogue\'s limit: "warn" or "alarm"'
    word = rule.above if rule.above is not None else rule.below
    if not isinstance(word, str):
        return ""
    key = "above" if rule.above is not None else "below"
    metric = BY_NAME.get(resolve(rule.metric))
    if metric is None or getattr(metric, word) is None:
        return f'.{key}: the catalogue has no "{word}" limit for {rule.metric}; allowed: a number'
    if (metric.worse == "high") != (key == "above"):
        return f'.{key}: {rule.metric} is worse {metric.worse}, so its "{word}" limit is one from the other side'
    return ""


def _of_baseline(rule: Baseline) -> str:
    want, other = ("factor", "change") if rule.scale == "log" else ("change", "factor")
    if getattr(rule, want) is None or getattr(rule, other) is not None:
        return f': scale = "{rule.scale}" needs {want} (the least that counts), and no {other}'
    if rule.scale == "linear" and rule.floor:
        return '.floor: only scale = "log" takes one'
    if rule.warmup > rule.window:
        return f".warmup: {rule.warmup} is more than window = {rule.window}"
    unknown = _unknown(rule.unless.metric) if rule.unless is not None and not rule.custom else ""
    return f".unless.metric: {unknown}" if unknown else ""


def _unknown(metric: str) -> str:
    if resolve(metric) in BY_NAME:
        return ""
    near = difflib.get_close_matches(metric, BY_NAME, n=3, cutoff=0.5)
    return f"unknown metric '{metric}'{'; near: ' + ', '.join(near) if near else ''}"


def _tables(text: str, where: str) -> dict[str, Any]:
    raw = toml_file.parse(text, where, RulesError)
    other = [key for key in raw if key != "rules"]
    if other:
        raise RulesError(f"{where}: unknown key '{other[0]}'; a file of rules has tables [rules.NAME] only")
    tables = raw.get("rules", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise RulesError(f"{where}: rules: must be tables, as in [rules.kl-spike]")
    return tables
