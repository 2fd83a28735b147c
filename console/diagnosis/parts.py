"""Splits a run's tokens into parts in which one cause each can be read: causes that act on some tokens only are
taken out first, and the rest is judged without them. Pure.

In this order: placeholders at last tokens; tokens whose weights were behind; tokens behind a change of weights; engines
that stand apart; versions before and after a jump. Each is taken out only where its instrument finds a clear
contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from console.diagnosis import instruments
from console.diagnosis.columns import Columns, Mask
from console.diagnosis.facts import Facts
from console.diagnosis.instruments import places, timing
from console.diagnosis.instruments.view import FEW, View
from console.diagnosis.model import Reading

History = tuple[tuple[int, float, float], ...]
ENOUGH: Final = 4 * FEW
"""Fewest tokens of a part that is judged by itself."""


@dataclass(frozen=True)
class Part:
    """Tokens and their readings. `where` is "" for the rest; `since` the first version with it, -1 where not seen.

    `mask` are its tokens among all: those whose |d| it accounts for.
    """

    name: str
    view: View
    readings: tuple[Reading, ...]
    mask: Mask
    where: str = ""
    since: int = -1


def split(columns: Columns, facts: Facts, history: History = (), *, enough: int = ENOUGH) -> tuple[Part, ...]:
    """The parts, the rest last. The masks are disjoint and cover all tokens. A part is taken out where `enough` tokens
    are left without it."""
    left = np.ones(len(columns), dtype=bool)
    found: list[Part] = []
    for name, finder in (("last", _placeholders), ("lag", _behind), ("seam", _behind_seams), ("engine", _engines)):
        now = columns.take(left)
        view = View(now, now, facts, history)
        contrast, inner = finder(view)
        if contrast is None or not inner.any():
            continue
        mask = np.zeros(len(columns), dtype=bool)
        mask[np.flatnonzero(left)[inner]] = True
        if int((left & ~mask).sum()) < (enough if name == "engine" else FEW) and name != "last":
            continue
        found.append(_part(name, columns, mask, facts, (), (contrast,)))
        left &= ~mask
    rest = columns.take(left)
    jump = timing.since(rest, history, facts.floor[0])
    if jump is not None and jump.before > facts.floor[0]:
        key = rest.version if (rest.version >= 0).any() else rest.step
        early = np.zeros(len(columns), dtype=bool)
        early[np.flatnonzero(left)[key < jump.version]] = True
        if int(early.sum()) >= enough:
            found.append(_part("before", columns, early, facts, (), ()))
            left &= ~early
    found.append(_part("rest", columns, left, facts, history, ()))
    return tuple(found)


def _part(
    name: str, columns: Columns, mask: Mask, facts: Facts, history: History, contrasts: Sequence[Reading]
) -> Part:
    whole = columns.take(mask)
    known = columns if name == "before" or name == "rest" else whole
    jump = timing.since(whole, history, facts.floor[0])
    since, chosen = -1, whole
    if jump is not None:
        key = whole.version if (whole.version >= 0).any() else whole.step
        later = whole.take(key >= jump.version)
        if len(later) >= FEW:
            since, chosen = jump.version, later
    view = View(chosen, whole, facts, history)
    readings = list(instruments.read(view))
    if name == "rest" and jump is None and known is not whole:
        # The jump was taken out as a part of its own: what is left began with it.
        earlier = timing.since(columns, history, facts.floor[0])
        if earlier is not None and whole.version.size and int(whole.version.min()) >= earlier.version > 0:
            since = earlier.version
            readings = [
                replaced(one, "onset", "update", f"since version {since}") if view.mean > view.floor else one
                for one in readings
            ]
    by_name = {one.instrument: one for one in contrasts}
    made = tuple(by_name.get(one.instrument, one) for one in readings)
    where = next((one.where for one in contrasts if one.where), "")
    return Part(name, view, made, mask, where, since)


def replaced(one: Reading, instrument: str, outcome: str, text: str) -> Reading:
    """The reading with another outcome, if it is of this instrument."""
    if one.instrument != instrument:
        return one
    return Reading(instrument, outcome, one.value, text, one.unit, one.where)


_NOTHING: Final = (None, np.zeros(0, dtype=bool))


def _placeholders(view: View) -> tuple[Reading | None, Mask]:
    found = places.zeros(view)
    if found.outcome != "last":
        return _NOTHING
    # All of them: of a certain token too, whose 0.0 would be right by chance.
    return found, view.columns.last & (view.columns.rollout == 0.0)


def _behind_seams(view: View) -> tuple[Reading | None, Mask]:
    found = places.seam(view)
    if found.outcome != "after only":
        return _NOTHING
    return found, places.seam_places(view.columns)


def _engines(view: View) -> tuple[Reading | None, Mask]:
    found = places.engine(view)
    if found.outcome != "one":
        return _NOTHING
    codes = [view.columns.engines.index(name) for name in found.where.split(", ")]
    return found, np.isin(view.columns.engine, codes)


def _behind(view: View) -> tuple[Reading | None, Mask]:
    found = timing.lag(view)
    if found.outcome != "with lag":
        return _NOTHING
    return found, view.columns.lag > 0
