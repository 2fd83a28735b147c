"""The rules: data in TOML, typed, with errors as sentences.

A file has one table a rule, `[rules.NAME]`. A user's file changes the packaged ones key by key and adds its own.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from console.sentinels.kinds import BY_KIND, KINDS, Baseline, Limit, Missing, Rule, StepRule, Word, allowed
from driftline import toml_file
from driftline.catalog.metrics import BY_NAME, resolve

DEFAULT: Final = Path(__file__).with_name("rules.toml")

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAMES: Final = "lower-case words with hyphens, as in kl-spike"


class RulesError(toml_file.TomlError):
    """Rules that cannot be used: one sentence with the file, the rule, the key and what is allowed."""


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
        # A bound replaces the other where the packaged rule has one; a rule with two keeps the one that is not changed.
        for one, other in (("above", "below"), ("below", "above")):
            if one in table and other not in table and one not in old:
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
        kind, at = BY_KIND[table["kind"]], f"rules.{name}"
        rule = toml_file.convert(table, kind, where, RulesError, at=at, allowed=partial(allowed, kind, at))
        complaint = _complaint(rule)
        if complaint:
            raise RulesError(f"{where}: rules.{name}{complaint}")
        rules[name] = rule
    return Rules(rules)


def _complaint(rule: Rule) -> str:
    """What is wrong with a rule whose keys are right one by one; "" for nothing."""
    if not isinstance(rule, StepRule):
        return ""
    if rule.votes < rule.hold:
        return f".of: {rule.of} is less than hold = {rule.hold}; allowed: {rule.hold} or more"
    if rule.episode and not _NAME.fullmatch(rule.episode):
        return f".episode: '{rule.episode}' is not allowed; allowed: {_NAMES}"
    if isinstance(rule, Missing):
        unknown = next((text for metric in rule.metrics if (text := _unknown(metric))), "")
        return f".metrics: {unknown}" if unknown else ""
    unknown = _unknown(rule.metric) if not rule.custom else ""
    if unknown:
        return f".metric: {unknown}; for a metric of your own trainer say: custom = true"
    unknown = next((text for metric in rule.unless_reported if not rule.custom and (text := _unknown(metric))), "")
    if unknown:
        return f".unless_reported: {unknown}"
    return _of_limit(rule) if isinstance(rule, Limit) else _of_baseline(rule)


def _of_limit(rule: Limit) -> str:
    if rule.above is None and rule.below is None:
        return ': needs either above or below, a number or the catalogue\'s limit: "warn" or "alarm"'
    sides: tuple[tuple[Literal["above", "below"], Literal["high", "low"]], ...] = (("above", "high"), ("below", "low"))
    for key, side in sides:
        word = rule.above if key == "above" else rule.below
        if isinstance(word, str) and (text := _no_such_limit(rule.metric, word, side)):
            return f".{key}: {text}"
    if rule.high is not None and rule.low is not None and rule.low >= rule.high:
        return f": needs either above or below, or a below that is less than above, not {rule.low:g} and {rule.high:g}"
    return ""


def _no_such_limit(metric: str, word: Word, side: Literal["high", "low"]) -> str:
    known = BY_NAME.get(resolve(metric))
    if known is not None and known.limit(word, side) is not None:
        return ""
    if known is None or known.limit(word, known.worse) is None:
        return f'the catalogue has no "{word}" limit for {metric}; allowed: a number'
    return f'{metric} is worse {known.worse}, so its "{word}" limit is one from the other side'


def _of_baseline(rule: Baseline) -> str:
    want, other = ("factor", "change") if rule.scale == "log" else ("change", "factor")
    if getattr(rule, want) is None or getattr(rule, other) is not None:
        return f': scale = "{rule.scale}" needs {want} (the least that counts), and no {other}'
    if rule.scale == "linear" and rule.floor:
        return '.floor: only scale = "log" takes one'
    if rule.warmup > rule.window:
        return f".warmup: {rule.warmup} is more than window = {rule.window}"
    if rule.reference == "recent" and rule.hold > rule.gap + rule.window // 2:
        # What lasts so long has become the usual before it is counted.
        most = rule.gap + rule.window // 2
        return f".hold: {rule.hold} is more than gap + window / 2, so it can never fire; allowed: {most} or less"
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
