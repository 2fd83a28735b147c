"""From the model to the panes of the sync screen: the list, the facts of one sync, phases, versions. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

import numpy as np

from console.formatting import clock
from console.store.model import CommandLife, RunModel
from console.store.sync import TIMES, Sync
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.spark import spark
from console.tui.paint.table import Column, row
from console.tui.paint.theme import Ink
from console.tui.paint.units import NONE, counted, duration, number, size, speed, versions
from console.tui.screens.sync.gantt import LOOKS

LAG: Final = "async/version_lag_mean"
LAG_STEPS: Final = 2_000
"""Steps whose lags are counted: what it was long ago says little about now."""

_RECENT_COMMANDS: Final = 20

COLUMNS: Final = (
    Column("sign", "", 1),
    Column("id", "sync", 9),
    Column("time", "time", 8, 3),
    Column("step", "step", 6, 2, right=True),
    Column("versions", "weights", 10, 1),
    Column("engines", "engines", 7, 1),
    Column("total", "total", 8, right=True),
    Column("load", "load", 8, 4, right=True),
    Column("gbps", "at", 9, 6, right=True),
    Column("held", "held", 5, 7, right=True),
    Column("straddling", "straddle", 8, 8, right=True),
    Column("reset", "cache", 10, 9),
    Column("digest", "digests", 8, 5),
    Column("bytes", "bytes", 8, 11, right=True),
    Column("slowest", "slowest", 12, 10),
)


def list_row(sync: Sync, columns: Sequence[Column], glyphs: Glyphs, now: float | None) -> list[Text]:
    """A sync in the list."""
    summary = sync.summary()
    reset = " ".join(f"{word} {count}" for word, count in summary.resets.items()) or NONE
    ink = Ink.TEXT if summary.ok else Ink.ALARM
    cells: dict[str, Text] = {
        "sign": ("" if summary.ok else "!", ink),
        "id": (sync.id, ink),
        "time": (clock(summary.start, now)[-8:], Ink.DIM),
        "step": (f"{summary.step}", Ink.TEXT),
        "versions": (f"{versions(summary.before)}{glyphs.arrow}{versions(summary.after)[1:]}", Ink.BRIGHT),
        "engines": (f"{summary.engines - summary.failed}/{summary.engines}", ink),
        "total": (duration(summary.seconds), Ink.BRIGHT) if summary.ok else ("FAILED", ink),
        "load": (duration(summary.load), Ink.TEXT),
        "gbps": (speed(summary.gb_per_s), Ink.TEXT),
        "held": (f"{summary.in_flight}", Ink.TEXT),
        "straddling": (f"{summary.straddling:,}", Ink.TEXT),
        "reset": (reset, Ink.WARN if "refused" in summary.resets else Ink.TEXT),
        "digest": digests(summary.digests, summary.engines),
        "bytes": (size(summary.bytes), Ink.TEXT),
        "slowest": (summary.slowest, Ink.DIM),
    }
    return row(columns, cells)


def digests(reported: dict[str, int], engines: int) -> Text:
    """Agreement of the engines' digests, in a word."""
    if not reported:
        return NONE, Ink.DIM
    if len(reported) > 1:
        return "DIFFER", Ink.ALARM
    count = sum(reported.values())
    return ("equal", Ink.OK) if count == engines else (f"{count}/{engines} sent", Ink.WARN)


def facts(sync: Sync, glyphs: Glyphs) -> list[list[Text]]:
    """Everything about one sync but its phases, in pieces that are not to be broken; the worst first."""
    summary = sync.summary()
    pieces: list[list[Text]] = [
        [(f"! {engine.engine} failed: ", Ink.ALARM), (engine.detail or "it gave no reason", Ink.BRIGHT)]
        for engine in sync.failed
    ]
    pieces += [
        [(f"{engine.engine}: ", Ink.WARN), (engine.detail, Ink.TEXT)] for engine in sync if engine.ok and engine.detail
    ]
    pieces.append(
        [(versions(summary.before), Ink.TEXT), (f" {glyphs.arrow} ", Ink.DIM), (versions(summary.after), Ink.BRIGHT)]
    )
    if summary.bytes:
        pieces.append(
            [(size(summary.bytes), Ink.BRIGHT), (" each at ", Ink.DIM), (speed(summary.gb_per_s), Ink.BRIGHT)]
        )
    else:
        pieces.append([("bytes not reported", Ink.DIM)])
    pieces.append([("held ", Ink.DIM), (counted(summary.in_flight, "sequence"), Ink.TEXT)])
    pieces.append([(counted(summary.straddling, "token"), Ink.TEXT), (" straddle", Ink.DIM)])
    if summary.resets:
        words = ", ".join(f"{word} by {count}" for word, count in summary.resets.items())
        pieces.append([("cache ", Ink.DIM), (words, Ink.WARN if "refused" in summary.resets else Ink.TEXT)])
    else:
        pieces.append([("cache reset not reported", Ink.DIM)])
    word, ink = digests(summary.digests, summary.engines)
    if summary.digests:
        shown = " ".join(f"{one[:8]}" for one in summary.digests)
        pieces.append([("digests ", Ink.DIM), (word, ink), (f" {shown}", Ink.DIM)])
    else:
        pieces.append([("digests not reported", Ink.DIM)])
    if summary.slower > 0:
        text = f"{summary.slowest} by {duration(summary.slower)} more than the median"
        pieces.append([("slowest ", Ink.DIM), (text, Ink.TEXT)])
    return pieces


class PhaseRow(NamedTuple):
    """One phase: in the chosen sync (its slowest engine), its median and p99 over all engines and syncs, lately."""

    phase: str
    this: float | None
    median: float | None
    p99: float | None
    lately: list[float]


def phases(model: RunModel, sync: Sync | None, count: int) -> list[PhaseRow]:
    """Seconds of every phase; `lately` are the last `count` syncs' slowest engines, oldest first."""
    recent = list(islice(reversed(model.syncs.syncs), count))[::-1]
    return [
        PhaseRow(
            phase,
            sync.summary().phases.get(phase) if sync is not None else None,
            model.syncs.phases[phase].at(0.5),
            model.syncs.phases[phase].at(0.99),
            [one.summary().phases[phase] for one in recent if phase in one.summary().phases],
        )
        for phase in TIMES
    ]


_LABEL: Final = 8


def phase_lines(rows: Sequence[PhaseRow], width: int, height: int, glyphs: Glyphs) -> list[list[Text]]:
    """The phases down the side with what they took lately, or, where rows are scarce, across."""
    heads = ("this", "median", "p99")
    if height > len(rows):
        room = width - _LABEL - 1 - 3 * 10 - 3
        lately = f"  last {len(rows[-1].lately)} syncs" if room >= 14 and rows[-1].lately else ""
        lines: list[list[Text]] = [[(" " * (_LABEL + 1) + "".join(f"{head:>10}" for head in heads) + lately, Ink.DIM)]]
        for one in rows:
            look = LOOKS.get(one.phase)
            line: list[Text] = [(f" {one.phase:<{_LABEL}}", look.ink if look is not None else Ink.BRIGHT)]
            line += [(f"{duration(value):>10}", ink) for value, ink in _three(one)]
            if lately:
                line += [("  ", Ink.TEXT), (spark(one.lately, room, glyphs), look.ink if look is not None else Ink.DIM)]
            lines.append(line)
        return lines
    # No room for all of them side by side: a cell of eight fits "0.42 ms" and "12.3 s".
    shown = list(rows)
    for spare in ("verify", "reset", "resume"):
        if width < _LABEL + len(shown) * 9:
            shown = [one for one in shown if one.phase != spare]
    lines = [[(" " * _LABEL, Ink.DIM)]]
    for one in shown:
        look = LOOKS.get(one.phase)
        lines[0].append((f"{one.phase:>9}", look.ink if look is not None else Ink.BRIGHT))
    for place, word in enumerate(heads):
        line = [(f" {word:<{_LABEL - 1}}", Ink.DIM)]
        line += [(f"{duration(value):>9}", ink) for one in shown for value, ink in [_three(one)[place]]]
        lines.append(line)
    return lines


def _three(one: PhaseRow) -> tuple[tuple[float | None, Ink], ...]:
    slow = one.this is not None and one.p99 is not None and one.this > one.p99 * 1.01
    return (one.this, Ink.WARN if slow else Ink.BRIGHT), (one.median, Ink.TEXT), (one.p99, Ink.TEXT)


def skew(model: RunModel) -> list[list[Text]]:
    """The weight versions that the engines serve now, the trainer's beside them."""
    alive = [engine.version for engine in model.engines.values() if engine.phase not in ("dead", "starting")]
    trainer = model.run.version if model.run is not None else None
    pieces: list[list[Text]] = []
    if trainer is not None:
        pieces.append([("trainer ", Ink.DIM), (f"v{trainer}", Ink.BRIGHT)])
    if not alive:
        return [*pieces, [("no engine serves", Ink.WARN)]]
    for version, count in sorted(Counter(alive).items(), reverse=True):
        pieces.append([(f"v{version}", Ink.TEXT), (f" x{count}", Ink.DIM)])
    apart = max(alive) - min(alive)
    pieces.append([("skew ", Ink.DIM), (str(apart), Ink.WARN if apart else Ink.OK)])
    return pieces


class Lags(NamedTuple):
    """Number of steps by lag: `bars` of (first value, steps); `steps` in all, `last` the newest one's."""

    bars: tuple[tuple[float, int], ...]
    width: float
    steps: int
    last: float | None


def lags(model: RunModel, rows: int) -> Lags:
    """The histogram of the steps' mean version lags, in at most `rows` bins of equal width."""
    values = model.metrics.values(LAG)[-LAG_STEPS:]
    values = values[np.isfinite(values)]
    if not len(values):
        return Lags((), 1.0, 0, None)
    low, high = float(np.floor(values.min())), float(values.max())
    width = next(w for w in _WIDTHS if low + w * max(rows, 1) > high) if high - low < _WIDTHS[-1] else (high - low) + 1
    counts = np.bincount(((values - low) / width).astype(np.int64))
    return Lags(
        tuple((low + width * place, int(count)) for place, count in enumerate(counts)), width, len(values),
        float(values[-1]),
    )  # fmt: skip


_WIDTHS: Final = tuple(base * 10.0**power for power in range(-1, 7) for base in (1.0, 2.0, 5.0))


def lag_lines(found: Lags, width: int, glyphs: Glyphs) -> list[list[Text]]:
    """The histogram as bars lying down, the lag before and the steps behind each."""
    if not found.steps:
        return [[(" version lag is not reported", Ink.DIM)]]
    lines = []
    most = max(count for _, count in found.bars)
    block = "#" if glyphs.name == "ascii" else "█"
    for low, count in found.bars:
        text = f"{low:.{0 if found.width >= 1 else 1}f}"
        room = max(width - 6 - 8, 1)
        long = round(count / most * room) if count else 0
        here = found.last is not None and low <= found.last < low + found.width
        sign = glyphs.pointer if here else " "
        lines.append(
            [
                (f"{sign}{text:>4} ", Ink.BRIGHT if here else Ink.DIM),
                (block * max(long, 1 if count else 0), Ink.LINE),
                (f" {count:,}", Ink.TEXT),
            ]
        )
    return lines


def lag_label(found: Lags) -> str:
    """The subject of the histogram."""
    if not found.steps:
        return ""
    return f"steps by mean lag, last {found.steps:,}"


def lag_now(found: Lags) -> str:
    """The newest step's."""
    return f"mean lag {number(found.last)}" if found.last is not None else ""


def going_on(model: RunModel) -> list[Text]:
    """A sync that is under way, or was asked for; empty while there is none."""
    syncing = [engine.engine for engine in model.engines.values() if engine.phase == "syncing"]
    if syncing:
        who = ", ".join(syncing[:3]) + (f" and {len(syncing) - 3} more" if len(syncing) > 3 else "")
        return [(" syncing now: ", Ink.WARN), (who, Ink.BRIGHT)]
    life = _asked(model)
    if life is None:
        return []
    by = f" by {life.command.issuer}" if life.command.issuer else ""
    return [(" sync asked for", Ink.WARN), (by, Ink.TEXT), (f": {life.state}", Ink.BRIGHT)]


def _asked(model: RunModel) -> CommandLife | None:
    for life in islice(reversed(model.commands.values()), _RECENT_COMMANDS):
        if life.command.verb == "sync" and not life.done:
            return life
    return None


def empty(model: RunModel, *, operator: bool) -> str:
    """The sentence in place of syncs where there are none."""
    if model.run is not None and model.run.status in ("finished", "failed"):
        return f"the run has {model.run.status} without a weight sync"
    return "no weight sync yet; S starts one" if operator else "no weight sync yet; an operator starts one with S"


def copied_text(sync: Sync, glyphs: Glyphs) -> str:
    """A sync as text, for copying."""
    head = f"{sync.id} step {sync.step} {clock(sync.start)} {duration(sync.seconds)}"
    lines = [head, "  ".join("".join(text for text, _ in piece) for piece in facts(sync, glyphs))]
    for engine in sync.worst_first():
        times = " ".join(f"{phase} {duration(engine.phase_seconds(phase))}" for phase in TIMES)
        lines.append(f"{engine.engine}: {times}")
    return "\n".join(lines)
