"""The inference: tokens and facts to a diagnosis. Pure; the same input gives the same answer.

Tokens are split into parts (`parts.py`), each part's readings are weighed (`weigh.py`), and the answers are put
together: the causes of all parts, the larger first; "none" where every part is at the floor; "unknown" where a part
has something that no cause explains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from console.diagnosis import sentences
from console.diagnosis.attribution import attribute
from console.diagnosis.causes import BY_NAME
from console.diagnosis.columns import Columns
from console.diagnosis.facts import NOTHING, Facts
from console.diagnosis.instruments import timing
from console.diagnosis.instruments.contexts import remainder
from console.diagnosis.likelihoods import Calibrated, calibrated
from console.diagnosis.model import (
    NO_LIKELIHOODS,
    NONE,
    UNKNOWN,
    Action,
    Attribution,
    Diagnosis,
    Likelihoods,
    Normal,
    Profile,
    Ranked,
    Reading,
    RuledOut,
    Verdict,
)
from console.diagnosis.parts import History, Part, split
from console.diagnosis.profiles import profiles
from console.diagnosis.weigh import Names, evidence, posterior

FEWEST: Final = 200
"""Tokens below which there is no diagnosis."""
RULED_OUT: Final = 1e-3
"""A cause with a smaller probability is listed as ruled out."""
_EXACT: Final = frozenset({"raw-logprobs", "trainer-temperature", "top-p", "top-k", "min-tokens"})
"""Causes that explain d within a context exactly, up to rounding."""
_LEFT: Final = frozenset({"size", "onset", "growth", "engine", "position", "seam", "lag", "tails"})
"""Instruments that mean the same on what is left as on d itself."""
_KEPT: Final = frozenset({"repeatable", "grid"})
"""Instruments that the subtracted cause does not touch."""
_SHOWN: Final = 6
"""Most evidence of a side that is listed for a hypothesis."""


@dataclass(frozen=True)
class Judged:
    """A part with the probabilities of its hypotheses; `best` is the likeliest."""

    part: Part
    odds: dict[Names, float]

    @property
    def best(self) -> Names:
        return max(self.odds, key=lambda names: self.odds[names])

    def of(self, name: str) -> float:
        """Probability that this cause acts on the part, alone or beside another one."""
        return sum(chance for names, chance in self.odds.items() if name in names)


def diagnose(
    columns: Columns,
    facts: Facts = NOTHING,
    history: History = (),
    *,
    extra: Sequence[Reading] = (),
    more: Likelihoods = NO_LIKELIHOODS,
    attribution: Attribution | None = None,
    stated: Calibrated | None = None,
    seen: float = 1.0,
) -> Diagnosis:
    """What is wrong with a run, by tokens of its newest steps.

    `history` holds (version, tokens, sum of |d|) of versions before those of `columns`. `extra` are readings of active
    instruments, which speak of the rest of the tokens, or of the part that their `where` names; `more` states their
    likelihoods. `attribution` replaces the passive one. `seen` is the share of the tokens that `columns` are of.
    """
    stated = stated or calibrated()
    steps = int(np.unique(columns.step).size)
    missing = (*facts.missing, *_missing(columns))
    if len(columns) < FEWEST:
        text = f"not enough data: {len(columns)} token pairs, {FEWEST} are the fewest that can be judged"
        return Diagnosis("not enough data", text, 0.0, missing=missing, tokens=len(columns), steps=steps, seen=seen)
    gone = timing.fall([*history, *timing.by_version(columns)], facts.floor[0])
    if gone is not None:
        later = columns.take((columns.version if (columns.version >= 0).any() else columns.step) >= gone.version)
        columns, history, gone = (later, (), gone) if len(later) >= FEWEST else (columns, history, None)
    judged = _judge_all(split(columns, facts, history), stated, extra, more)
    beneath = _beneath(judged, stated, facts)
    named, sure = _named(judged)
    if beneath is not None:
        named = (*named, *(name for name in beneath.best if name not in named))
        sure *= beneath.odds[beneath.best]
    verdict: Verdict = "unknown" if UNKNOWN in named else "cause" if named else "normal"
    causes = tuple(name for name in named if name != UNKNOWN)
    ranked = _ranked([*judged, *([beneath] if beneath is not None else [])], stated, more, extra)
    normal = _normal(columns, facts)
    shares = attribution or attribute(columns, [(one.part, one.best) for one in judged], facts)
    return Diagnosis(
        verdict,
        sentences.sentence(verdict, causes, ranked, normal, gone),
        sure,
        named=causes,
        ranked=ranked,
        ruled_out=_ruled_out(judged, stated, more),
        normal=normal,
        missing=missing,
        attribution=shares,
        profiles=_profiles(columns, causes, history),
        readings=tuple(reading for one in judged for reading in one.part.readings),
        actions=_actions(causes, facts),
        tokens=len(columns),
        steps=steps,
        seen=seen,
    )


def _judge_all(parts: Sequence[Part], stated: Calibrated, extra: Sequence[Reading], more: Likelihoods) -> list[Judged]:
    """The parts with their odds, in the order of `parts`. What acted before a jump goes on behind it, and what acts on
    the rest acts on every other part too: there it is taken as given."""
    by_name = {part.name: part for part in parts}
    found: dict[str, Judged] = {}
    given = ""
    for name in ("before", "rest"):
        if name in by_name:
            found[name] = _judge(by_name[name], stated, extra, more, given)
            single = found[name].best[0] if len(found[name].best) == 1 else ""
            given = single if single not in (NONE, UNKNOWN) else given
    for part in parts:
        if part.name not in found:
            found[part.name] = _judge(part, stated, extra, more, given)
    return [found[part.name] for part in parts]


def _beneath(judged: Sequence[Judged], stated: Calibrated, facts: Facts) -> Judged | None:
    """What is left of the rest once its own cause is subtracted: another cause, or None where nothing is left.

    A temperature, a mask or a truncation explains d within contexts exactly, so that a second cause shows there however
    small it is.
    """
    rest = judged[-1]
    name = rest.best[0]
    if name not in _EXACT or rest.odds[rest.best] < 0.5:
        return None
    left = remainder(rest.part.view.whole)
    if left is None or not float(np.minimum(left.size, 5).mean()) > max(facts.floor[0], 0.01 * rest.part.view.mean):
        return None
    kept = [one for one in rest.part.readings if one.instrument in _KEPT]
    found = [
        Judged(part, posterior([*(one for one in part.readings if one.instrument in _LEFT), *kept], stated))
        for part in split(left, facts)
        if part.name != "before"
    ]
    wrong = [one for one in found if not {NONE, UNKNOWN, name} & set(one.best)]
    return max(wrong, key=lambda one: float(one.part.view.whole.size.sum()), default=None)


def _judge(part: Part, stated: Calibrated, extra: Sequence[Reading], more: Likelihoods, given: str) -> Judged:
    if part.name == "last":
        # Few tokens, and the contrast has said it: exact zeros at last tokens alone.
        return Judged(part, {("placeholder-zero",): 0.98, (UNKNOWN,): 0.02})
    mine = [one for one in extra if one.where == part.where]
    return Judged(part, posterior((*part.readings, *mine), stated, more, given))


def _named(judged: Sequence[Judged]) -> tuple[tuple[str, ...], float]:
    """The causes of all parts, by how much they account for, and the probability that all are right."""
    weights: dict[str, float] = {}
    sure = 1.0
    for one in judged:
        if not one.part.mask.any():
            continue
        sure *= one.odds[one.best]
        for name in one.best:
            if name != NONE:
                weights[name] = weights.get(name, 0.0) + float(np.minimum(one.part.view.whole.size, 5).sum())
    return tuple(sorted(weights, key=lambda name: -weights[name])), sure


def _ranked(
    judged: Sequence[Judged], stated: Calibrated, more: Likelihoods, extra: Sequence[Reading]
) -> tuple[Ranked, ...]:
    """Every hypothesis at the part where it is likeliest. NONE counts for the whole run: for all parts at once."""
    names = {name for one in judged for key in one.odds for name in key}
    found = []
    for name in names:
        if name == NONE:
            at = min(judged, key=lambda one: one.of(NONE))
            chance = math.prod(one.of(NONE) for one in judged if one.part.mask.any())
        else:
            at = max(judged, key=lambda one: (one.of(name), len(one.part.view.whole)))
            chance = at.of(name)
        if chance < RULED_OUT:
            continue
        said = evidence(name, (*at.part.readings, *(one for one in extra if one.where == at.part.where)), stated, more)
        found.append(
            Ranked(
                name,
                BY_NAME.get(name),
                chance,
                tuple(one for one in said if one.llr > 0)[:_SHOWN],
                tuple(one for one in said if one.llr < 0)[:_SHOWN],
                at.part.where if at.part.name != "rest" else _place(name, at.part),
                at.part.since,
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.probability, one.name)))


def _place(name: str, part: Part) -> str:
    """Where a cause of the rest is, by the reading that names a place it predicts."""
    wanted = {"min-tokens": "position"}.get(name)
    return next((one.where for one in part.readings if one.instrument == wanted), "")


def _ruled_out(judged: Sequence[Judged], stated: Calibrated, more: Likelihoods) -> tuple[RuledOut, ...]:
    found = []
    for name in sorted(stated.table):
        chance = max(one.of(name) for one in judged)
        if name == NONE or name not in BY_NAME or chance >= RULED_OUT:
            continue
        at = max(judged, key=lambda one: len(one.part.view.whole))
        against = [one for one in evidence(name, at.part.readings, stated, more) if one.llr < 0]
        how = against[0].text if against else "every other cause explains the readings better"
        found.append(RuledOut(name, BY_NAME[name].title, how, chance))
    return tuple(found)


def _normal(columns: Columns, facts: Facts) -> Normal:
    floor, source = facts.floor
    seen = float(np.minimum(columns.size, 5.0).mean())
    return Normal(floor, seen, sentences.normal(floor, seen, facts), source)


def _missing(columns: Columns) -> tuple[str, ...]:
    found = []
    if not len(columns):
        return ("token pairs: none were recorded",)
    if not (columns.version >= 0).any():
        found.append("the weights that sampled each token: updates are told apart by step only")
    if not (columns.engine >= 0).any():
        found.append("which engine sampled a sequence")
    if not (columns.context >= 0).any():
        found.append("prompts, or sequences from their first token on: nothing is known to follow the same tokens")
    if columns.left_out:
        found.append(f"{columns.left_out} tokens without two finite logprobs, which were left out")
    return tuple(found)


def _profiles(columns: Columns, causes: Sequence[str], history: History) -> tuple[Profile, ...]:
    """All pictures, those that the first cause is predicted on first."""
    first = BY_NAME[causes[0]] if causes else None
    wanted = [one.instrument for one in first.predicts] if first is not None else []
    made = profiles(columns, history)
    return tuple(sorted(made, key=lambda one: wanted.index(one.instrument) if one.instrument in wanted else 99))


def _actions(causes: Sequence[str], facts: Facts) -> tuple[Action, ...]:
    """What the causes ask for, each once; a fix that is on already is not among them."""
    found = []
    for name in causes:
        action = BY_NAME[name].action
        if action.kind == "fix" and facts.fixes.get(action.fix) == action.value:
            action = Action("text", f"{action.fix} is reported as {action.value} already: {action.text}")
        if action not in found:
            found.append(action)
    return tuple(found)
