"""The diagnosis by an active round and by passive instruments together. Pure.

A look of the round decides the causes that it looks for: there where its outcome says so, and not otherwise. What no
look can see (a placeholder is in no text, and a response may show no sign of an update that it lived through) is left
to the passive instruments, and so is which of several causes a look means. A difference that shows again and that no
look explains is none that is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from console.diagnosis import sentences
from console.diagnosis.active import Figures, attribution, engines, number_of, readings
from console.diagnosis.causes import BY_NAME
from console.diagnosis.facts import Facts, facts_of
from console.diagnosis.model import NONE, UNKNOWN, Action, Diagnosis, Evidence, Normal, Ranked, Reading, Verdict
from console.diagnosis.rounds import Standing, standing
from console.diagnosis.watch import Watch
from console.store.model import RunModel

SURE: Final = 0.98
"""Probability that a look is right: `make blind` prints how often it was."""
PART: Final = 0.02
"""A look that accounts for less than this part of the mismatch is not named."""
OTHER_TEXT: Final = 0.3
"""Nats between what an engine has recorded and what it says of the text that the trainer has: no rounding is that."""
BESIDE: Final = ("placeholder-zero", "in-flight-kv")
"""Causes that no look can see."""
_WEIGHTS: Final = {
    "part": "layer-not-loaded",
    "head": "head-not-sent",
    "swapped": "layers-swapped",
    "older": "missed-sync",
    "other": UNKNOWN,
}
_PARAMETERS: Final = {
    "top_p": "top-p",
    "top_k": "top-k",
    "min_p": "top-k",
    "min_tokens": "min-tokens",
    "repetition_penalty": "repetition-penalty",
    "presence_penalty": "repetition-penalty",
    "frequency_penalty": "repetition-penalty",
}
_TRUNCATIONS: Final = ("top-p", "top-k", "min-tokens")
_LLR: Final = math.log(SURE / (1 - SURE))


@dataclass(frozen=True)
class _Found:
    """A cause that a look has found, the reading that says so, and how much of a logprob it changes, in nats."""

    name: str
    reading: Reading
    size: float


def diagnose(watch: Watch, facts: Facts, figures: Figures) -> Diagnosis:
    """The diagnosis by a run's tokens and by the answer of an active round."""
    return combined(watch.diagnosis(facts), facts, figures)


def by_now(watch: Watch, facts: Facts, stands: Standing) -> Diagnosis:
    """The diagnosis by a run's tokens, and by its newest active round for as long as that counts."""
    if stands.made is None or not stands.counts:
        return watch.diagnosis(facts)
    return diagnose(watch, facts, stands.made.figures)


def of_model(watch: Watch, model: RunModel) -> Diagnosis:
    """The same, of a run's tokens and its model."""
    return by_now(watch, facts_of(model), standing(model))


def combined(first: Diagnosis, facts: Facts, figures: Figures) -> Diagnosis:
    """`first`, the passive diagnosis, with what an active round has found."""
    floor = facts.floor[0]
    read = readings(figures, floor)
    found = _found(read, first, figures)
    beside = [name for name in first.named if name in BESIDE]
    shows = [one for one in read if one.instrument == "rescored" and one.outcome != "nothing"]
    left = [one for one in read if one.instrument == "remainder" and one.outcome == "above"]
    names = list(dict.fromkeys(one.name for one in found))
    if not [name for name in names if name != UNKNOWN] and (shows or left):
        names = [UNKNOWN]
    named = tuple(name for name in dict.fromkeys((*names, *beside)) if name != UNKNOWN)
    verdict: Verdict = "unknown" if UNKNOWN in names and not named else "cause" if named else "normal"
    if verdict == "normal" and first.verdict == "not enough data":
        return first
    by_name = {name: [one for one in found if one.name == name] for name in named}
    ranked = _ranked(first, by_name, verdict)
    normal = first.normal or Normal(floor, math.nan, "", facts.floor[1])
    return msgspec.structs.replace(
        first,
        verdict=verdict,
        sentence=sentences.sentence(verdict, named, ranked, normal),
        certainty=SURE ** max(1, len(named)),
        named=named,
        ranked=ranked,
        ruled_out=tuple(one for one in first.ruled_out if one.name not in named),
        attribution=attribution(figures) or first.attribution,
        readings=(*first.readings, *read),
        actions=_actions(named, facts),
    )


def _found(read: Sequence[Reading], first: Diagnosis, figures: Figures) -> list[_Found]:
    """Causes by the looks, the larger first."""
    total = number_of(figures, "total")
    recorded = [number_of(figures, f"{engine}.recorded") for engine in engines(figures)]
    # What every engine has is to be seen beside what the best of them has, not beside the worst one's.
    least = min([total, *(one for one in recorded if one > 0)])
    found = []
    for one in read:
        name = _name(one, first, figures)
        size = _size(one, figures)
        # Of weights the name says enough; a seam is in few tokens, whose part of the whole is not known here.
        if name and (size >= PART * (total if one.where else least) or one.instrument in ("weights", "seam")):
            found.append(_Found(name, one, size))
    return sorted(found, key=lambda one: -one.size)


def _name(one: Reading, first: Diagnosis, figures: Figures) -> str:
    """The cause that a reading means, "" for none."""
    decided: dict[tuple[str, str], Callable[[], str]] = {
        ("mode", "raw"): lambda: "raw-logprobs",
        ("seam", "gone"): lambda: "in-flight-kv",
        ("cache", "differs"): lambda: "stale-prefix-cache",
        ("trainer again", "dropout"): lambda: "dropout",
        ("trainer temperature", "other"): lambda: "trainer-temperature",
        ("head", "other fits"): lambda: "head-bf16",
        ("old weights", "some"): lambda: "lag",
        ("sampling", "engine higher"): lambda: _parameter(figures) or _likeliest(first, _TRUNCATIONS),
        ("sampling", "both"): lambda: _parameter(figures) or "repetition-penalty",
        ("rescored", "gone"): lambda: _of_data(first, figures),
    }
    if one.instrument == "weights":
        return _WEIGHTS.get(one.outcome, "")
    act = decided.get((one.instrument, one.outcome))
    return act() if act is not None else ""


def _parameter(figures: Figures) -> str:
    """The cause of the sampling parameter that an engine names; of several, the first in the order above."""
    said = " ".join(str(value) for name, value in figures.items() if name.endswith(".sampling"))
    return next((cause for word, cause in _PARAMETERS.items() if f"{word}=" in said), "")


def _likeliest(first: Diagnosis, names: Sequence[str]) -> str:
    """Of causes that one look means alike, the one that passive instruments hold likeliest."""
    chances = {one.name: one.probability for one in first.ranked}
    return max(names, key=lambda name: chances.get(name, 0.0))


def _of_data(first: Diagnosis, figures: Figures) -> str:
    """What has gone where the text was scored again: ids that are shifted, keys and values of an update in flight (a
    response of which nothing was sampled before the update shows no change of weights), or nothing that is known.

    A policy that is nearly certain of every token gives neighbours the same logprobs, so that a shift shows in none of
    their correlations. Then it is ids all the same where the engine is far from what it has recorded itself, without
    any update, and only from some place of a response on.
    """
    outcomes = {(one.instrument, one.outcome) for one in first.readings}
    if ("shift", "shifted") in outcomes or "shifted-ids" in first.named:
        return "shifted-ids"
    again = [number_of(figures, f"{engine}.again") for engine in engines(figures)]
    far = [one for one in again if math.isfinite(one)]
    if far and min(far) > OTHER_TEXT and {("onset", "step 0"), ("position", "late")} <= outcomes:
        return "shifted-ids"
    return "in-flight-kv" if "in-flight-kv" in first.named else UNKNOWN


def _size(one: Reading, figures: Figures) -> float:
    """How much of a logprob the cause of a reading changes, in nats."""
    match one.instrument:
        case "mode":
            return max((number_of(figures, name) for name in figures if name.endswith(".sampled")), default=0.0)
        case "weights":
            return number_of(figures, "share.weight update")
        case "trainer temperature":
            return number_of(figures, "trainer.uneven")
        case "head":
            return max((number_of(figures, name) for name in figures if name.endswith(".held")), default=0.0)
        case _:
            return one.value


def _ranked(first: Diagnosis, by_name: dict[str, list[_Found]], verdict: Verdict) -> tuple[Ranked, ...]:
    """What the looks have found, each with its evidence, before what passive instruments hold possible."""
    passive = {one.name: one for one in first.ranked}
    made = []
    for name, found in by_name.items():
        before = passive.get(name) or Ranked(name, BY_NAME[name], 0.0)
        looked = tuple(
            Evidence(one.reading.instrument, one.reading.value, one.reading.text, _LLR, one.reading.unit)
            for one in found
        )
        where = next((one.reading.where for one in found if one.reading.where), before.where)
        made.append(
            msgspec.structs.replace(before, probability=SURE, supporting=(*looked, *before.supporting), where=where)
        )
    if verdict != "cause":
        name = NONE if verdict == "normal" else UNKNOWN
        made.append(Ranked(name, None, SURE))
    rest = [one for one in first.ranked if one.name not in by_name and one.name not in (made[-1].name,)]
    scale = (1 - SURE) / max(sum(one.probability for one in rest), 1e-9)
    made += [msgspec.structs.replace(one, probability=min(one.probability * scale, 1 - SURE)) for one in rest]
    return tuple(made)


def _actions(named: Sequence[str], facts: Facts) -> tuple[Action, ...]:
    found: list[Action] = []
    for name in named:
        action = BY_NAME[name].action
        if action.kind == "fix" and facts.fixes.get(action.fix) == action.value:
            action = Action("text", f"{action.fix} is reported as {action.value} already: {action.text}")
        if action not in found:
            found.append(action)
    return tuple(found)
