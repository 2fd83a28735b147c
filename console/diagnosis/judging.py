"""Which hypothesis holds for each part of a run's tokens, with another one beside it where two act at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from console.diagnosis.causes import BY_NAME
from console.diagnosis.columns import Columns
from console.diagnosis.facts import Facts
from console.diagnosis.instruments.contexts import remainder
from console.diagnosis.instruments.shape import repeatable
from console.diagnosis.instruments.view import FEW
from console.diagnosis.likelihoods import Calibrated
from console.diagnosis.model import NO_LIKELIHOODS, NONE, UNKNOWN, Likelihoods, Reading
from console.diagnosis.parts import History, Part, split
from console.diagnosis.weigh import Names, posterior

NAMED: Final = 0.5
"""Least probability of a cause with those that look alike: below, it is not one that is known."""
EXACT: Final = frozenset({"raw-logprobs", "trainer-temperature", "top-p", "top-k", "min-tokens"})
"""Causes that explain d within a context exactly, up to rounding: what another one does is found by subtracting."""
ABOVE: Final = 2.0
"""Factor of the floor above which a mean |d| is not healthy."""
OTHER_WEIGHTS: Final = frozenset(
    {"missed-sync", "layer-not-loaded", "layers-swapped", "head-not-sent", "stale-prefix-cache"}
)
"""Causes by which an engine computes with other weights than it says: token pairs tell them from all others, and from
each other in part. Digests of the weights do the rest."""
_BY_CONTRAST: Final = {"last": ("placeholder-zero", 0.98), "seam": ("in-flight-kv", 0.9), "lag": ("lag", 0.9)}
"""Parts that are taken out by what a single cause does, and how probable that cause then is. Stated, not counted."""
_LEFT: Final = frozenset({"size", "onset", "growth", "engine", "position", "seam", "lag", "tails", "updates"})
"""Instruments that mean the same on what is left as on d itself."""
_LEAST: Final = 0.03
"""Part of the mean |d| below which what is left is rounding."""


@dataclass(frozen=True)
class Stated:
    """What readings are weighed with: the counted likelihoods, and readings of active instruments with theirs."""

    counted: Calibrated
    extra: tuple[Reading, ...] = ()
    more: Likelihoods = field(default_factory=lambda: NO_LIKELIHOODS)

    def at(self, where: str) -> tuple[Reading, ...]:
        """The active readings that speak of a part."""
        return tuple(one for one in self.extra if one.where == where)


@dataclass(frozen=True)
class Judged:
    """A part with the probabilities of its hypotheses. `beneath`: of what another part's cause has left of d; `weight`
    is then the share of |d| that it has on these tokens."""

    part: Part
    odds: dict[Names, float]
    beneath: bool = False
    weight: float = 1.0

    @property
    def best(self) -> Names:
        """The likeliest hypothesis; (UNKNOWN,) where neither it nor what looks like it is likely enough. Of two causes
        at once, one that is not likely by itself is left out."""
        names = max(self.odds, key=lambda one: self.odds[one])
        if NONE in names:
            return names
        if UNKNOWN in names:
            # Several causes that look alike may share what is more than the unknown one's.
            names = max((one for one in self.odds if not {NONE, UNKNOWN} & set(one)), key=lambda one: self.odds[one])
        sure = tuple(name for name in names if self.with_alike(name) >= NAMED)
        return sure or ((UNKNOWN,) if (UNKNOWN,) in self.odds else (NONE,))

    @property
    def certainty(self) -> float:
        """Probability that `best` is right; of UNKNOWN, that no cause with those that look like it is."""
        best = self.best
        if best == (UNKNOWN,) or (best == (NONE,) and self.odds.get(best, 0.0) < NAMED):
            return 1 - max(
                (self.with_alike(name) for names in self.odds for name in names if name in BY_NAME), default=0
            )
        return sum(chance for names, chance in self.odds.items() if set(best) <= set(names))

    def with_alike(self, name: str) -> float:
        """Probability that this cause or one that looks the same to passive instruments acts."""
        alike = {name, *BY_NAME[name].alike, *(one.name for one in BY_NAME.values() if name in one.alike)}
        alike |= OTHER_WEIGHTS if name in OTHER_WEIGHTS else set()
        return sum(chance for names, chance in self.odds.items() if alike & set(names))

    def of(self, name: str) -> float:
        """Probability that this cause acts on the part, alone or beside another one."""
        return sum(chance for names, chance in self.odds.items() if name in names)


def judge(columns: Columns, facts: Facts, history: History, stated: Stated) -> list[Judged]:
    """The parts with their odds; those beneath another cause last.

    What acted before a jump goes on behind it, and what acts on the rest acts on every other part too: there it is
    taken as given. Where it explains d exactly, it is subtracted, and what is left is split and judged anew.
    """
    by_name = {part.name: part for part in split(columns, facts, history)}
    found: dict[str, Judged] = {}
    given = ""
    for name in ("before", "rest"):
        if name in by_name:
            found[name] = _judge(by_name[name], stated, given)
            best = found[name].best
            given = best[0] if len(best) == 1 and not {NONE, UNKNOWN} & set(best) else given
    beneath = None
    if given in EXACT:
        beneath = _beneath(columns, by_name, stated, facts)
    for name, part in by_name.items():
        if name == "last" or (name not in found and beneath is None):
            found[name] = _judge(part, stated, given)
        elif name not in found:
            found[name] = Judged(part, {(given,): 1.0})
    return [*(found[name] for name in by_name), *(beneath or [])]


def _judge(part: Part, stated: Stated, given: str) -> Judged:
    if part.name in _BY_CONTRAST:
        # Often few tokens, and the contrast has said it: such a difference is nowhere but there.
        name, chance = _BY_CONTRAST[part.name]
        return Judged(part, {(name,): chance, (UNKNOWN,): 1 - chance})
    readings = (*part.readings, *stated.at(part.where))
    odds = posterior(readings, stated.counted, stated.more, given)
    if part.view.mean > ABOVE * part.view.floor and (NONE,) in odds:
        # By what the floor means: something is wrong, whatever it is.
        left = 1 - odds.pop((NONE,))
        odds = {names: chance / left for names, chance in odds.items()} if left > 0 else {(UNKNOWN,): 1.0}
    elif part.view.mean <= part.view.floor and (NONE,) in odds:
        # Within the floor what no cause explains is the floor.
        odds[(NONE,)] += odds.pop((UNKNOWN,))
    return Judged(part, odds)


def _beneath(columns: Columns, parts: dict[str, Part], stated: Stated, facts: Facts) -> list[Judged] | None:
    """Causes in what an exact one leaves of d, of all tokens but placeholders; None where too little can be
    subtracted."""
    chosen = ~parts["last"].mask if "last" in parts else np.ones(len(columns), dtype=bool)
    if (began := max(parts["rest"].since, parts["before"].since if "before" in parts else -1)) >= 0:
        # Before it began there is nothing to subtract; of its first version the trainer may have scored some earlier.
        chosen &= columns.version > began if columns.lag.any() else columns.version >= began
    whole = columns.take(chosen)
    left = remainder(whole)
    if left is None:
        return None
    size, usual = float(np.minimum(left.size, 5).mean()), float(np.minimum(whole.size, 5).mean())
    if size <= max(facts.floor[0], _LEAST * usual):
        return []
    rest = parts["rest"]
    kept = [one for one in rest.readings if one.instrument == "grid"]
    kept.append(repeatable(rest.view, float(np.sqrt(np.square(np.minimum(left.size, 5)).mean()))))
    found = []
    for part in split(left, facts, enough=FEW):
        if part.name == "before" or not part.view.mean > facts.floor[0]:
            continue
        readings = [*(one for one in part.readings if one.instrument in _LEFT), *kept, *stated.at(part.where)]
        odds = _judge(part, stated, "").odds if part.name in _BY_CONTRAST else None
        odds = odds or posterior(readings, stated.counted, stated.more)
        one = Judged(part, odds, True, size / (size + usual))
        if NONE not in one.best:
            found.append(one)
    return found


def named(judged: Sequence[Judged]) -> tuple[Names, float]:
    """The causes of all parts, by how much they account for, and the probability that all are right."""
    weights: dict[str, float] = {}
    sure = 1.0
    for one in judged:
        if not one.part.mask.any():
            continue
        sure *= one.certainty
        for name in one.best:
            if name != NONE:
                size = one.weight * float(np.minimum(one.part.view.whole.size, 5).sum())
                weights[name] = weights.get(name, 0.0) + size
    return tuple(sorted(weights, key=lambda name: -weights[name])), sure
