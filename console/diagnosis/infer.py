"""The inference: tokens and facts to a diagnosis. Pure; the same input gives the same answer.

Tokens are split into parts (`parts.py`), each part's readings are weighed (`weigh.py`), and the answers are put
together: the causes of all parts, the larger first; "none" where every part is at the floor; "unknown" where a part
has something that no cause explains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from console.diagnosis import sentences
from console.diagnosis.attribution import attribute
from console.diagnosis.causes import BY_NAME
from console.diagnosis.columns import Columns
from console.diagnosis.facts import NOTHING, Facts
from console.diagnosis.instruments import timing
from console.diagnosis.instruments.view import View, relative_size, separation
from console.diagnosis.judging import Judged, Stated, judge, named
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
from console.diagnosis.parts import History, Part
from console.diagnosis.profiles import profiles
from console.diagnosis.weigh import evidence

FEWEST: Final = 200
"""Tokens below which there is no diagnosis."""
RULED_OUT: Final = 1e-3
"""A cause with a smaller probability is listed as ruled out."""
MEASURE: Final = Action("text", "an active round tells which of these it is: driftline diagnose --active")
_SHOWN: Final = 6
"""Most evidence of a side that is listed for a hypothesis."""


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
    gone = _gone(columns, facts, history)
    if gone is not None:
        later = columns.take((columns.version if (columns.version >= 0).any() else columns.step) >= gone.version)
        columns, history, gone = (later, (), gone) if len(later) >= FEWEST else (columns, history, None)
    judged = judge(columns, facts, history, Stated(stated, tuple(extra), more))
    names, sure = named(judged)
    verdict: Verdict = "unknown" if UNKNOWN in names else "cause" if names else "normal"
    causes = tuple(name for name in names if name != UNKNOWN)
    ranked = _ranked(judged, stated, more, extra)
    normal = _normal(columns, facts)
    shares = attribution or attribute(columns, judged, facts)
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
        actions=_actions(causes, facts, ranked),
        tokens=len(columns),
        steps=steps,
        seen=seen,
    )


def _gone(columns: Columns, facts: Facts, history: History) -> timing.Jump | None:
    """Where what was wrong has gone. Tokens of the newest versions have not been behind yet: where |d| follows lag,
    only tokens without it are compared."""
    if timing.lag(View(columns, columns, facts)).outcome == "with lag":
        columns, history = columns.take(columns.lag == 0), ()
    found = timing.fall([*history, *timing.by_version(columns)], facts.floor[0])
    if found is None:
        return None
    earlier = (columns.version if (columns.version >= 0).any() else columns.step) < found.version
    if separation(columns, earlier) < timing.SURE:
        return None
    # A policy that has grown certain shows nothing of a cause that is still there.
    before, now = (relative_size(columns.take(one)) for one in (earlier, ~earlier))
    return None if now * timing.SUDDEN > before else found


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
        found.append("the weights that sampled each token: updates are distinguished by step only")
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


def _actions(causes: Sequence[str], facts: Facts, ranked: Sequence[Ranked]) -> tuple[Action, ...]:
    """What the causes ask for, each once; a fix that is on already is not among them. First a measurement, where
    tokens alone do not tell a cause from the next one."""
    found = []
    if any(sentences.rival(name, causes, ranked) is not None for name in causes):
        found.append(MEASURE)
    for name in causes:
        action = BY_NAME[name].action
        if action.kind == "fix" and facts.fixes.get(action.fix) == action.value:
            action = Action("text", f"{action.fix} is reported as {action.value} already: {action.text}")
        if action not in found:
            found.append(action)
    return tuple(found)
