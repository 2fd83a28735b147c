"""Engines as of one moment: how each stands, which need a look, and how a quantity is distributed over them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np

from console.status.link_health import over
from console.store.engines import Reading, Trace
from console.store.model import RunModel
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.spark import bars
from console.tui.paint.theme import Ink
from console.tui.paint.units import duration, number
from driftline.catalog.metrics import BY_NAME
from driftline.frames import EngineState
from driftline.text import natural

SILENT_AFTER: Final = 5.0
"""Seconds on the hub's clock without a report of an engine that is not dead: ten reports did not come."""
SLOW: Final = 0.5
"""Part of the median of all that generate below which an engine with requests counts as slow."""

ORDERS: Final = ("name", "tokens/s", "KV use", "waiting", "behind")


class Level(IntEnum):
    """How much an engine needs a look; what needs it most comes first."""

    DEAD = 0
    SILENT = 1
    NOT_RUNNING = 2
    NOTABLE = 3
    FINE = 4


LEVEL_INK: Final = {
    Level.DEAD: Ink.ALARM,
    Level.SILENT: Ink.ALARM,
    Level.NOT_RUNNING: Ink.WARN,
    Level.NOTABLE: Ink.WARN,
    Level.FINE: Ink.OK,
}


class EngineRow(NamedTuple):
    """One engine as of one moment, free of the model. `behind` in versions; `silent` and `held` in seconds.

    `ended`: the run has, and the engine with it; it cannot be silent then. `why` says in few words what makes `level`.
    """

    state: EngineState
    behind: int
    silent: float
    held: float
    restarts: int
    lost_preemptions: int
    recent: list[Reading]
    ended: bool
    level: Level
    why: str


def engine_rows(model: RunModel, order: str = "name", *, reverse: bool = False) -> list[EngineRow]:
    """All engines, the dead first, then those that are silent, then by `order` (one of ORDERS)."""
    rows = by_name(model)
    keys = {
        "tokens/s": lambda row: -row.state.tokens_per_s,
        "KV use": lambda row: -row.state.kv_use,
        "waiting": lambda row: -row.state.waiting,
        "behind": lambda row: -row.behind,
    }
    if order in keys:
        rows.sort(key=keys[order], reverse=reverse)
    elif reverse:
        rows.reverse()
    rows.sort(key=lambda row: min(row.level, Level.NOT_RUNNING))
    return rows


def by_name(model: RunModel) -> list[EngineRow]:
    """All engines in natural order."""
    now = model.last_time or 0.0
    trainer = model.run.version if model.run is not None else -1
    newest = max([trainer, *(state.version for state in model.engines.values())], default=-1)
    run_over = over(model.run)
    busy = [one.tokens_per_s for one in model.engines.values() if one.phase == "running" and one.running]
    usual = float(np.quantile(busy, 0.5)) if len(busy) > 2 else 0.0
    rows = []
    for name in sorted(model.engines, key=natural):
        state = model.engines[name]
        trace = model.history.traces.get(name) or Trace()
        ended = run_over and state.phase != "dead"
        silent = 0.0 if ended or state.phase == "dead" else now - trace.last_report
        behind = newest - state.version if state.version >= 0 else 0
        level, why = (Level.FINE, "ended with the run") if ended else _level(state, behind, silent, usual)
        rows.append(
            EngineRow(
                state, behind, silent, max(now - trace.began, 0.0), trace.restarts, trace.lost_preemptions,
                list(trace.recent), ended, level, why,
            )
        )  # fmt: skip
    return rows


def _level(state: EngineState, behind: int, silent: float, usual: float) -> tuple[Level, str]:
    if state.phase == "dead":
        return Level.DEAD, state.detail or "it gave no reason"
    if silent > SILENT_AFTER:
        return Level.SILENT, f"silent for {duration(silent)}"
    if state.phase != "running":
        return Level.NOT_RUNNING, state.phase
    if behind > 1:
        return Level.NOTABLE, f"{behind} versions behind"
    if state.kv_use >= (BY_NAME["engine/kv_use"].warn or 1.0):
        return Level.NOTABLE, f"KV cache {state.kv_use:.0%} full"
    if state.running and state.tokens_per_s < SLOW * usual:
        return Level.NOTABLE, f"{number(state.tokens_per_s)} tok/s, half have {number(usual)} or more"
    return Level.FINE, ""


def worst(rows: Sequence[EngineRow], count: int) -> list[EngineRow]:
    """At most `count` engines that need a look, what needs it most first, in natural order among equals."""
    return sorted((row for row in rows if row.level < Level.FINE), key=lambda row: row.level)[:count]


def counts(rows: Sequence[EngineRow]) -> list[Text]:
    """How many engines are in which state, as pieces of a line: `2 dead  1 silent  3 syncing  250 running`."""
    found: dict[str, list[EngineRow]] = {}
    for row in rows:
        word = str(row.state.phase)
        if row.ended or row.level is Level.SILENT:
            word = "ended" if row.ended else "silent"
        found.setdefault(word, []).append(row)
    words = sorted(found, key=lambda word: (min(found[word][0].level, Level.NOTABLE), word))
    pieces: list[Text] = []
    for word in words:
        first = found[word][0]
        ink = Ink.DIM if first.ended else LEVEL_INK[first.level] if first.level < Level.NOTABLE else Ink.TEXT
        pieces.append((f"{'  ' if pieces else ''}{len(found[word]):,} {word}", ink))
    return pieces


_BINS: Final = 8


class Quantity(NamedTuple):
    """Something that every engine has a value of; `whole` where it is a count, whose bins are whole numbers too."""

    word: str
    values: tuple[float, ...]
    whole: bool = False


def quantities(rows: Sequence[EngineRow]) -> list[Quantity]:
    """Speed, lag and use of the KV cache of the engines that run."""
    live = [row for row in rows if row.level > Level.NOT_RUNNING and not row.ended]
    return [
        Quantity("tok/s", tuple(row.state.tokens_per_s for row in live)),
        Quantity("lag", tuple(float(row.behind) for row in live if row.state.version >= 0), whole=True),
        Quantity("KV use", tuple(row.state.kv_use for row in live)),
    ]


def histogram_line(one: Quantity, width: int, glyphs: Glyphs) -> list[Text]:
    """How many engines have which value: smallest, bars of equal bins in between, largest, and the median."""
    show = _percent if one.word == "KV use" else number
    if not one.values:
        return [(f" {one.word:<6} ", Ink.DIM), ("not reported", Ink.DIM)]
    low, high = min(one.values), max(one.values)
    head: list[Text] = [(f" {one.word:<6} ", Ink.DIM)]
    if low == high:
        return [*head, (f"{show(low)} on all {len(one.values):,}", Ink.TEXT)]
    left, right, tail = f"{show(low)} ", f" {show(high)}", f", median {show(float(np.quantile(one.values, 0.5)))}"
    room = width - 8 - len(left) - len(right)
    tail = tail if room - len(tail) >= _BINS else ""
    room = max(min(room - len(tail), max(len(one.values) // 4, _BINS)), 4)
    bins = min(int(high - low) + 1, room) if one.whole else room
    heights = [0] * bins
    for value in one.values:
        heights[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    return [*head, (left, Ink.TEXT), (bars(heights, glyphs), Ink.LINE), (right, Ink.TEXT), (tail, Ink.DIM)]


def _percent(value: float) -> str:
    return f"{value:.0%}"
