"""From a log's names to the catalogue's: by `driftline.catalog.framework_names`, and by what else the log has. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from driftline.catalog.framework_names import ASYNCHRONOUS, KNOWN, PREFIXES, SUFFIXES, UNKNOWN_VERSION, VERSIONS, Name
from driftline.catalog.metrics import ALIASES, BY_NAME
from driftline.text import sanitize

ASIDE: Final = "log/"
"""Prefix for a name that may not stand as it is: a key column of the tables, or an alias of another metric."""
RESERVED: Final = frozenset({"seq", "producer", "step", "time", "version", "synthetic"})
"""Key columns of the tables: a metric of such a name would not be seen."""
STALE: Final = {"always": "with staleness", "if async": "with staleness if async"}


@dataclass(frozen=True)
class Target:
    """Where a log's name goes: the name it gets, the label of its numbers, and the factor that they are taken times."""

    name: str
    label: str = ""
    factor: float = 1.0

    @property
    def known(self) -> bool:
        return self.name in BY_NAME


def _by_name() -> dict[str, list[tuple[int, Name]]]:
    found: dict[str, list[tuple[int, Name]]] = {}
    for at, rule in enumerate(rule for rules in KNOWN.values() for rule in rules):
        found.setdefault(rule.name, []).append((at, rule))
    return found


_RULES: Final = _by_name()
_PATTERNS: Final = [
    (re.compile(re.escape(name).replace(r"\*", "([^/]+)")), rules) for name, rules in _RULES.items() if "*" in name
]


def mapping(names: Iterable[str]) -> dict[str, Target]:
    """Where each name goes, all to distinct ones.

    Of several names for one metric the catalogue's own wins, then an alias, then the first of the table; the others
    keep their names. Names that the tables could not hold, and aliases that were not taken, get the prefix ASIDE.
    """
    given = sorted(set(names))
    log = _Beside(given)
    ranked: list[tuple[tuple[int, ...], str, Target | None]] = []
    for name in given:
        rank, target = _target(name, log)
        ranked.append(((*rank, given.index(name)) if target else (9,), name, target))
    found: dict[str, Target] = {}
    taken: set[str] = set()
    for _, name, target in sorted(ranked, key=lambda one: one[0]):
        if target is None or target.name in taken:
            target = Target(_free(name, taken))
        found[name] = target
        taken.add(target.name)
    return {name: found[name] for name in given}


def catalogued(name: str, beside: Iterable[str] = ()) -> str | None:
    """The catalogue's name for one of a log that has the names `beside` too, or None."""
    _, target = _target(name, _Beside([name, *beside]))
    return target.name if target else None


def version(values: Mapping[str, float]) -> int:
    """The version of the weights among a step's numbers, UNKNOWN_VERSION if there is none."""
    for name in VERSIONS:
        value = values.get(name, math.nan)
        if 0 <= value < 2**53 and value == int(value):
            return int(value)
    return UNKNOWN_VERSION


class _Beside:
    """What else a log has."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {form for name in names for form in _forms(name)}
        self.asynchronous = self.has_any(ASYNCHRONOUS)

    def has_any(self, wanted: Iterable[str]) -> bool:
        return any(
            any(name.startswith(one[:-1]) for name in self._names) if one.endswith("*") else one in self._names
            for one in wanted
        )

    def matching(self, pattern: re.Pattern[str]) -> int:
        return sum(pattern.fullmatch(name) is not None for name in self._names)


def _forms(name: str) -> Iterator[str]:
    """A name as it stands, then without what loggers put before and after it."""
    plain = [name, *(name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix))]
    yield from plain
    for one in plain:
        yield from (one.removeprefix(prefix) for prefix in PREFIXES if one.startswith(prefix))


def _target(name: str, log: _Beside) -> tuple[tuple[int, ...], Target | None]:
    """The rank of a name (the less, the better) and where it goes; None where the catalogue has no metric for it."""
    for cut, form in enumerate(_forms(name)):
        if form in BY_NAME:
            return (0, cut), Target(form)
        found = next(((at, rule, "") for at, rule in _RULES.get(form, ()) if _holds(rule, log)), None)
        if found is None:
            found = _by_pattern(form, log)
        if found is not None:
            at, rule, part = found
            return (1 if form in ALIASES else 2, at), Target(rule.target, _label(rule, part, log), rule.factor)
        if form in ALIASES:
            return (1, 0), Target(ALIASES[form])
    return (9,), None


def _holds(rule: Name, log: _Beside) -> bool:
    return (not rule.beside or log.has_any(rule.beside)) and not log.has_any(rule.unless)


def _by_pattern(name: str, log: _Beside) -> tuple[int, Name, str] | None:
    for pattern, rules in _PATTERNS:
        if match := pattern.fullmatch(name):
            for at, rule in rules:
                if _holds(rule, log):
                    # One of several environments stands for itself alone.
                    return at, rule, match[1] if log.matching(pattern) > 1 else ""
    return None


def _label(rule: Name, part: str, log: _Beside) -> str:
    stale = STALE["always" if rule.stale and log.asynchronous else rule.stale] if rule.stale else ""
    return ", ".join(filter(None, (rule.label, f"{sanitize(part)} only" if part else "", stale)))


def _free(name: str, taken: set[str]) -> str:
    """The name itself where the tables can hold it and it is free."""
    plain = sanitize(name).strip() or "unnamed"
    if plain in RESERVED or plain in ALIASES or plain in taken:
        plain = f"{ASIDE}{plain}"
    at, found = 2, plain
    while found in taken:
        found, at = f"{plain} {at}", at + 1
    return found
