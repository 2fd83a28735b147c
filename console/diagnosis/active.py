"""What an active round has measured, as readings, likelihoods and an attribution. Pure.

A round is made by the run's trainer (`trainer/probing.py`) on the command `diagnose`; the data of its answer are
figures by name, `engine-0.usual` and the like. Here they become outcomes of instruments; `looks.py` puts these together
with what passive instruments say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from console.diagnosis.model import LAYERS, Attribution, Instrument, Reading, Share

Figures = Mapping[str, str | float | int | bool]

TOKENS: Final = 96
"""Tokens of each engine that a round scores, unless otherwise asked for."""
FORWARDS: Final = 7
"""Forward passes of the trainer over these."""
FLOOR: Final = 2e-4
"""Nats. A difference below it is arithmetic: float32 on both sides differs by 5e-5 and less."""
BETTER: Final = 0.5
"""The other head fits where it leaves less than this part of the difference."""
PART: Final = 0.1
"""A share of the whole below this is not spoken of as a cause."""
ROUNDED: Final = 0.25
"""Two heads in bfloat16 differ by the logits that lie at the edge between two of its values: less than this part of
what the type of the head itself changes."""
GONE: Final = 0.5
"""A difference is gone where scoring again shows less than this part of it."""

ACTIVE: Final = (
    Instrument(
        "mode", "are logprobs changed by a request's temperature", ("processed", "raw"), True,
        "24 requests of one token to each engine",
    ),
    Instrument(
        "rescored", "does the difference show when the same text is scored again", ("nothing", "shows", "gone"), True,
        "a request of one token for each token",
    ),
    Instrument(
        "seam", "is the difference of responses that lived through an update gone when they are scored again",
        ("no", "gone"), True, "nothing more",
    ),
    Instrument(
        "sampling", "do a rollout's sampling parameters do more than divide by the temperature",
        ("same", "engine higher", "both"), True, "a request of one token for each token",
    ),
    Instrument(
        "cache", "does an engine score alike with and without a cached prefix", ("alike", "differs"), True,
        "a request of one token for each token, its whole text computed anew",
    ),
    Instrument(
        "weights", "does an engine hold the trainer's tensors",
        ("equal", "part", "head", "swapped", "older", "other"), True, "one checksum of every tensor in the trainer",
    ),
    Instrument(
        "engine again", "does an engine repeat itself in another batch", ("repeats", "differs"), True,
        "12 requests of one token, one after the other",
    ),
    Instrument(
        "trainer again", "does the trainer repeat itself in other micro-batches", ("repeats", "differs", "dropout"),
        True, "two forward passes",
    ),
    Instrument(
        "trainer temperature", "does the trainer score at the engine's temperature", ("same", "other"), True,
        "two forward passes",
    ),
    Instrument(
        "head", "does the engine's last projection fit the trainer's other type better", ("fits", "other fits"), True,
        "one forward pass",
    ),
    Instrument(
        "remainder", "what is left with semantics, cache and weights right", ("floor", "above"), True, "nothing more"
    ),
    Instrument(
        "old weights", "how much is the lag of tokens behind the trainer", ("none", "some"), True, "one forward pass"
    ),
)  # fmt: skip
"""In the order in which they are decided."""

BY_NAME: Final = {one.name: one for one in ACTIVE}


def attribution(figures: Figures) -> Attribution | None:
    """The shares of the layers as the round measured them; None where it has none."""
    if "total" not in figures:
        return None
    shares = tuple(
        Share(layer, *(number_of(figures, f"share.{layer}{end}") for end in ("", ".low", ".high"))) for layer in LAYERS
    )
    note = str(figures.get("note", ""))
    return Attribution(number_of(figures, "total"), shares, "active", int(number_of(figures, "tokens")), note)


def readings(figures: Figures, floor: float = FLOOR) -> tuple[Reading, ...]:
    """Every instrument's reading; a difference up to `floor` nats is arithmetic.

    It is that of the engine with the least difference for all, and one of its own, with its name for `where`, for each
    engine that has another outcome.
    """
    names = sorted(engines(figures), key=lambda engine: number_of(figures, f"{engine}.recorded"))
    by_engine = {engine: _of_engine(figures, engine, floor) for engine in names}
    found: list[Reading] = []
    for instrument in (one.name for one in ACTIVE):
        mine = [(engine, read[instrument]) for engine, read in by_engine.items() if instrument in read]
        if not mine:
            continue
        base = mine[0][1]
        alike = [one for _, one in mine if one.outcome == base.outcome]
        found.append(max(alike, key=lambda one: one.value))
        found += [_replaced(one, engine) for engine, one in mine if one.outcome != base.outcome]
    return (*found, *_of_trainer(figures, floor))


def engines(figures: Figures) -> list[str]:
    """Names of the engines that were probed."""
    return sorted(name.removesuffix(".usual") for name in figures if name.endswith(".usual"))


def requests(tokens: int = TOKENS) -> int:
    """How many requests of one token a round makes to each engine."""
    return 3 * tokens + 36


def expected(before: Figures | None, tokens: int = TOKENS) -> str:
    """What a round will cost, as a clause; `before`: the figures of an earlier one, which says how long."""
    asked = f"{requests(tokens)} requests of one token to each engine, {FORWARDS} forward passes of the trainer"
    took = number_of(before, "seconds") if before is not None else math.nan
    if not math.isfinite(took):
        return f"{asked}: some seconds, not measured yet"
    return f"{asked}: the last one took {took:.2f} s"


def cost(figures: Figures) -> str:
    """What the round took, as a clause."""
    asked = [
        (one, number_of(figures, f"{one}.requests"), number_of(figures, f"{one}.seconds")) for one in engines(figures)
    ]
    each = [f"{engine} {requests:.0f} requests in {seconds:.2f} s" for engine, requests, seconds in asked]
    return f"{number_of(figures, 'seconds'):.2f} s in all; {', '.join(each)}"


def _of_engine(figures: Figures, engine: str, floor: float) -> dict[str, Reading]:
    def at(name: str) -> float:
        return number_of(figures, f"{engine}.{name}")

    recorded, usual, held = at("recorded"), at("usual"), at("held")
    if figures.get("trainer.float32_head") is False and at("other_head") > 0:
        floor = max(floor, ROUNDED * at("other_head"))
    raw = at("raw") > 0
    sampled = at("sampled")
    if not recorded >= floor:  # also where every token has lived through an update, and has no figure
        rescored = "nothing"
    else:
        rescored = "gone" if usual < GONE * recorded and recorded - usual > floor else "shows"
    sampling = "same"
    if not raw and sampled > floor:
        sampling = "engine higher" if at("lowest") > -floor else "both"
    named = str(figures.get(f"{engine}.sampling", ""))
    cache, own, other = at("cache"), at("self"), at("other_head")
    fits = held > floor and other < BETTER * held
    return {
        "mode": Reading(
            "mode", "raw" if raw else "processed", at("raw"),
            f"{engine}'s logprobs {'do not change' if raw else 'change'} with a request's temperature",
        ),
        "rescored": Reading(
            "rescored", rescored, recorded,
            f"{engine}: mean |d| {recorded:.2g} as recorded, {usual:.2g} scored again", "nats",
        ),
        "seam": Reading(
            "seam", "gone" if at("seam") > floor else "no", at("seam"),
            f"{engine}: {at('seam'):.2g} of the difference of responses that lived through an update is gone", "nats",
        ),
        "sampling": Reading(
            "sampling", sampling, sampled,
            f"{engine}: {named or 'sampling'} changes a logprob by {sampled:.2g} on average",
            "nats",
        ),
        "cache": Reading(
            "cache", "differs" if cache > floor else "alike", cache,
            f"{engine}: {cache:.2g} between scores with and without cached prefixes", "nats",
        ),
        "weights": _weights(figures, engine),
        "engine again": Reading(
            "engine again", "differs" if own > floor else "repeats", own,
            f"{engine}: {own:.2g} between itself and itself in another batch", "nats",
        ),
        "head": Reading(
            "head", "other fits" if fits else "fits", other,
            f"{engine}: {held:.2g} from the trainer's head, {other:.2g} from its other type", "nats",
        ),
        "remainder": Reading(
            "remainder", "above" if held > floor and not fits else "floor", held,
            f"{engine}: {held:.2g} is left with semantics, cache and weights right", "nats",
        ),
    }  # fmt: skip


def _weights(figures: Figures, engine: str) -> Reading:
    differing, compared = number_of(figures, f"{engine}.differing"), number_of(figures, f"{engine}.compared")
    kind = str(figures.get(f"{engine}.kind", "")) or "equal"
    outcome = kind if kind in BY_NAME["weights"].outcomes else "other"
    tensors = str(figures.get(f"{engine}.tensors", ""))
    text = f"{engine} holds {tensors}" if tensors else f"{engine} holds the trainer's {compared:.0f} tensors"
    return Reading("weights", outcome, differing, text, "tensors")


def _of_trainer(figures: Figures, floor: float) -> list[Reading]:
    again, dropout = number_of(figures, "trainer.self"), number_of(figures, "trainer.dropout")
    own, engine = number_of(figures, "trainer.temperature"), number_of(figures, "temperature")
    old, least = number_of(figures, "share.staleness"), number_of(figures, "share.staleness.low")
    lags = least > 0 and old > max(floor, PART * number_of(figures, "total"))
    outcome = "dropout" if dropout > 0 and again > FLOOR else "differs" if again > floor else "repeats"
    text = f"the trainer: {again:.2g} between itself and itself in other micro-batches"
    if dropout > 0:
        text += f", with dropout {dropout:g} on"
    other = abs(own - engine) > 1e-6
    return [
        Reading("trainer again", outcome, again, text, "nats"),
        Reading(
            "trainer temperature", "other" if other else "same", own,
            f"the trainer scores at temperature {own:g}, the engines sample at {engine:g}",
        ),
        Reading(
            "old weights", "some" if lags else "none", old,
            f"{old:.2g} of the mean |d| is the lag of tokens behind the newest weights", "nats",
        ),
    ]  # fmt: skip


def _replaced(one: Reading, where: str) -> Reading:
    return Reading(one.instrument, one.outcome, one.value, one.text, one.unit, where)


def number_of(figures: Figures, name: str) -> float:
    """A figure as a number, NaN where it is none."""
    value = figures.get(name, math.nan)
    return float(value) if isinstance(value, (int, float)) else math.nan
