"""Readings against likelihoods: the probability of each hypothesis. Pure.

Hypotheses: nothing is wrong; one cause; two causes at once; something that no cause explains. Instruments count as
independent given the hypothesis, tempered (`Calibrated.temper`). Under two causes each outcome comes from either one:
P = (P1 + P2) / 2. What nothing explains is given the average of all causes on each instrument by itself: it wins where
no single cause fits all of its readings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Final

from console.diagnosis.causes import BY_NAME
from console.diagnosis.likelihoods import Calibrated, of_state
from console.diagnosis.model import NO_LIKELIHOODS, NONE, UNKNOWN, Evidence, Likelihoods, Reading

PRIOR_NONE: Final = 0.4
PRIOR_UNKNOWN: Final = 0.02
PRIOR_TWO: Final = 0.02
"""Prior probability of no cause, of an unknown one, and of two at once; the rest is shared by the single causes."""
LEAST: Final = 1e-4
"""Smallest probability of an outcome that a table can state: no reading by itself excludes a cause."""

EVEN: Final = 0.15
"""Part of an even chance in what an unknown cause does: more would let every reading that is usual speak against it."""

Names = tuple[str, ...]


def posterior(
    readings: Sequence[Reading], stated: Calibrated, more: Likelihoods = NO_LIKELIHOODS, given: str = ""
) -> dict[Names, float]:
    """Probability of every hypothesis, as a tuple of names: (NONE,), (UNKNOWN,), one cause, or two.

    With a cause that is `given`, what is asked is which other one acts beside it on these tokens: one name, UNKNOWN, or
    the given one where nothing does.
    """
    tables = _possible(_tables(stated, more), readings)
    if given in tables:
        return _beside(given, readings, stated, tables)
    causes = sorted(name for name in tables if name != NONE)
    scores: dict[Names, float] = {
        (NONE,): math.log(PRIOR_NONE) + stated.temper * _log_likelihood(readings, [tables[NONE]]),
        (UNKNOWN,): math.log(PRIOR_UNKNOWN) + stated.temper * _of_unknown(readings, [tables[name] for name in causes]),
    }
    alone = math.log((1 - PRIOR_NONE - PRIOR_UNKNOWN - PRIOR_TWO) / len(causes))
    early = any((one.instrument, one.outcome) == ("onset", "step 0") for one in readings)
    for name in causes:
        if early and name in BY_NAME and BY_NAME[name].onset == "update":
            continue  # what is there before the first update is none of its doing; beside another cause it may be
        scores[(name,)] = alone + stated.temper * _log_likelihood(readings, [tables[name]])
    pairs = list(combinations(causes, 2))
    together = math.log(PRIOR_TWO / len(pairs)) if pairs else 0.0
    for pair in pairs:
        scores[pair] = together + stated.temper * _log_likelihood(readings, [tables[name] for name in pair])
    return _normalised(scores)


_SHOWN_BY: Final = {
    "placeholder-zero": ("zeros", "last"),
    "in-flight-kv": ("seam", "after only"),
    "lag": ("lag", "with lag"),
}
"""Causes that are nothing but a contrast: without it they do not act on these tokens."""


def _possible(
    tables: Mapping[str, Mapping[str, Mapping[str, float]]], readings: Iterable[Reading]
) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    seen = {(one.instrument, one.outcome) for one in readings}
    return {name: table for name, table in tables.items() if name not in _SHOWN_BY or _SHOWN_BY[name] in seen}


def _beside(
    given: str, readings: Sequence[Reading], stated: Calibrated, tables: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> dict[Names, float]:
    others = [name for name in sorted(tables) if name not in (NONE, given)]
    known = tables[given]
    scores: dict[Names, float] = {
        (given,): math.log(0.5) + stated.temper * _log_likelihood(readings, [known]),
        (UNKNOWN,): math.log(PRIOR_UNKNOWN) + stated.temper * _of_unknown(readings, list(tables.values())),
    }
    each = math.log((0.5 - PRIOR_UNKNOWN) / len(others))
    for name in others:
        scores[(name,)] = each + stated.temper * _log_likelihood(readings, [known, tables[name]])
    return _normalised(scores)


def _normalised(scores: Mapping[Names, float]) -> dict[Names, float]:
    top = max(scores.values())
    weights = {names: math.exp(score - top) for names, score in scores.items()}
    total = sum(weights.values())
    return {names: weight / total for names, weight in weights.items()}


def evidence(
    name: str, readings: Iterable[Reading], stated: Calibrated, more: Likelihoods = NO_LIKELIHOODS
) -> list[Evidence]:
    """What each reading says for or against a hypothesis, the strongest first; readings of a 5 % nuance are left
    out."""
    tables = _tables(stated, more)
    found = []
    for one in readings:
        if name == UNKNOWN:
            continue
        own = tables.get(name, {}).get(one.instrument)
        others = [table[one.instrument] for other, table in tables.items() if other != name and one.instrument in table]
        if own is None or not others:
            continue
        average = sum(_chance(other, one.outcome) for other in others) / len(others)
        ratio = math.log(_chance(own, one.outcome)) - math.log(average)
        if abs(ratio) > 0.05:
            found.append(Evidence(one.instrument, one.value, one.text, ratio, one.unit))
    return sorted(found, key=lambda item: -abs(item.llr))


def _tables(stated: Calibrated, more: Likelihoods) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    return {name: {**table, **of_state(name), **more.get(name, {})} for name, table in stated.table.items()}


def _chance(table: Mapping[str, float], outcome: str) -> float:
    return max(table.get(outcome, LEAST), LEAST)


def _log_likelihood(readings: Iterable[Reading], tables: Sequence[Mapping[str, Mapping[str, float]]]) -> float:
    total = 0.0
    for one in readings:
        known = [_chance(table[one.instrument], one.outcome) for table in tables if one.instrument in table]
        if known:
            total += math.log(sum(known) / len(known))
    return total


def _of_unknown(readings: Iterable[Reading], tables: Sequence[Mapping[str, Mapping[str, float]]]) -> float:
    """Each instrument by itself: the average over the causes, with EVEN of an even chance for each of its outcomes."""
    total = 0.0
    for one in readings:
        known = [table[one.instrument] for table in tables if one.instrument in table]
        if known:
            average = sum(_chance(table, one.outcome) for table in known) / len(known)
            even = 1 / max(len({outcome for table in known for outcome in table}), 1)
            total += math.log((1 - EVEN) * average + EVEN * even)
    return total
