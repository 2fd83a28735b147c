"""The fixes as rows of columns: symbol, state over the engines, since when, what it waits for, effect. Pure."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from console.status.fix_coverage import Coverage, coverage, engines_of
from console.status.fix_effects import AGAINST, MISMATCH, Relative, joint, owner, relative, units
from console.status.link_health import by_files, over
from console.store.model import RunModel
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut, number
from console.tui.present.plans import available, reason
from driftline.catalog.fixes import BY_ID, FIXES, Fix
from driftline.catalog.metrics import BY_NAME
from driftline.frames import Effect, EngineFix, FixState, How, Measure
from driftline.text import spans

_PENDING: Final[dict[How, str]] = {
    "live": "being applied",
    "next_sync": "next sync",
    "engine_restart": "rolling restart",
    "not_available": "",
}


class FixRow(msgspec.Struct, frozen=True):
    """One line of the fix panel, in columns; `more` are the lines that there is room for elsewhere."""

    fix: Fix
    symbol: Text
    state: Text
    since: str
    note: Text
    effect: Text = ("", Ink.DIM)
    more: tuple[str, ...] = ()
    brief: str = ""
    """What stands in place of a note that there is no room for."""


_APART: Final = 4
"""Engines that are listed one by one; of more, those that report the same share a line."""


def fix_rows(model: RunModel, glyphs: Glyphs) -> list[FixRow]:
    """All fixes of the catalogue, in its order, with what the engines have reported."""
    rows = []
    for fix in FIXES:
        effect = model.effects.get(fix.id)
        first = BY_ID[owner(model.effects, fix.id)] if effect is not None else fix
        rows.append(fix_row(fix, model.fixes.get(fix.id), effect, glyphs, first, absent(model)))
    return rows


def absent(model: RunModel) -> str:
    """What stands in place of a report: a run that has ended, or of which only files are known, will send none."""
    return "not recorded" if by_files(model.run) or over(model.run) else "not reported yet"


def fix_row(
    fix: Fix,
    state: FixState | None,
    effect: Effect | None,
    glyphs: Glyphs,
    first: Fix | None = None,
    absent: str = "not reported yet",
) -> FixRow:
    """One fix. The symbol is filled only where every engine has reported a value that repairs.

    `first`: the fix that the effect is shown with, where it is that of a set. `absent` stands where no state is known.
    """
    if state is None:
        return FixRow(fix, (glyphs.unavailable, Ink.DIM), ("", Ink.DIM), "", (absent, Ink.DIM))
    engines = engines_of(state)
    reached = sum(state.met(engine) for engine in engines)
    more = by_value(state)
    if not available(state) and (state.settled or not any(engine.effective for engine in engines)):
        why = reason(state)
        # The symbol says that it is not available; the room is for why.
        note = why if "not available" in why else f"n/a: {why}"
        return FixRow(fix, (glyphs.unavailable, Ink.DIM), (state.effective, Ink.DIM), "", (note, Ink.DIM), more=more)
    more = (*((state.detail,) if state.detail else ()), *more)
    if not state.settled:
        over = coverage(state)
        if over.unknown and over.total > 2:
            note, brief = _unknown(state, over, glyphs), f"{over.unknown} unknown"
        else:
            note, brief = _pending(state, glyphs) if available(state) else f"n/a: {reason(state)}", ""
        count = (over.of_all, Ink.WARN)
        return FixRow(fix, (glyphs.partial, Ink.WARN), count, "", (note, Ink.WARN), more=more, brief=brief)
    since = max((engine.since_version for engine in state.engines), default=-1)
    repaired = state.effective in fix.repairs
    symbol, ink = (glyphs.on, Ink.OK) if repaired else (glyphs.off, Ink.TEXT)
    # Of what is at vLLM's default, the engines that have it repaired are counted: none, as the word says.
    repaired_on = reached if state.effective != fix.values[0] else len(engines) - reached
    measured = effect if effect is not None and (fix.id, state.effective) in _after(effect) else None
    short_text, long = _measured(measured, first or fix, fix)
    return FixRow(
        fix,
        (symbol, ink),
        (f"{state.effective} {repaired_on}/{len(engines)}", ink),
        f"v{since}" if since >= 0 else "",
        (who(state.by), Ink.DIM),
        short_text,
        (*long, *more),
    )


def _measured(effect: Effect | None, first: Fix, fix: Fix) -> tuple[Text, tuple[str, ...]]:
    """The effect in short and in full; that of a set stands with the first of its fixes."""
    if effect is None:
        return ("", Ink.DIM), ()
    if first.id != fix.id:
        return ("Δ in the set", Ink.DIM), (f"Δ measured together with {first.title}: see there",)
    return _short(effect), _long(effect)


def _after(effect: Effect) -> set[tuple[str, str]]:
    return {(fix, after) for fix, _, after in effect.changes}


def _unknown(state: FixState, over: Coverage, glyphs: Glyphs) -> str:
    """Of a fix that some engines say nothing of: what the others have, on how many it is not known, and why."""
    why = next((one.detail for one in engines_of(state) if not one.effective and one.detail), "")
    parts = [f"{value} on {count}" for value, count in over.others]
    waits = any(one.effective not in ("", state.requested) for one in engines_of(state))
    if state.by and waits:
        parts = [f"{glyphs.arrow} {_PENDING[state.how]}"] if _PENDING[state.how] else parts
    return "; ".join([*parts, f"unknown on {over.unknown}{f': {why}' if why else ''}"])


def _pending(state: FixState, glyphs: Glyphs) -> str:
    """The reason why a fix is unsettled, with the engine where it is one of several; short, for small screens."""
    late = [engine for engine in state.engines if not state.met(engine)]
    if not state.by and late and all(engine.effective for engine in late):
        return f"{glyphs.arrow} engines came with different values"  # and no operator has asked for one
    who = f"{late[0].engine} " if len(late) == 1 < len(state.engines) else ""
    # An engine that reports nothing is dead or restarting, and says so in its own words.
    silent = next((engine.detail for engine in late if not engine.effective and engine.detail), "")
    how = late[0].how if late else state.how
    return f"{glyphs.arrow} {who}{silent or _PENDING[how] or state.detail}"


def engine_fix(engine: EngineFix) -> str:
    """One engine's report of a fix, as a clause."""
    since = f" since v{engine.since_version}" if engine.since_version >= 0 else ""
    detail = f": {engine.detail}" if engine.detail else ""
    own = ", as it alone is to be" if engine.wanted else ""
    return f"{engine.engine} {engine.effective or 'not reported'}{own}{since}{detail}"


def by_value(state: FixState) -> tuple[str, ...]:
    """Every engine's report as a clause; of many engines those that say the same in one."""
    if len(state.engines) <= _APART:
        return tuple(engine_fix(engine) for engine in state.engines)
    alike: dict[tuple[str, int, str], list[str]] = {}
    for engine in state.engines:
        alike.setdefault((engine.effective, engine.since_version, engine.detail), []).append(engine.engine)
    said = []
    for (effective, since, detail), names in alike.items():
        first = EngineFix(", ".join(spans(names)), effective, state.how, since, -1, detail)
        said.append(f"{len(names)} of {len(state.engines)}: {engine_fix(first)}")
    return tuple(said)


def who(by: str) -> str:
    """The issuer in few cells: `op:ana` for the operator ana."""
    role, _, name = by.partition(" ")
    return f"{role[:2]}:{name}" if name else by


def _main(effect: Effect) -> Measure | None:
    known = [measure for measure in effect.measures if math.isfinite(measure.before) and math.isfinite(measure.after)]
    return next((measure for measure in known if measure.metric == MISMATCH), known[0] if known else None)


def _short(effect: Effect) -> Text:
    """The measured change of the mismatch; "?" where its interval holds zero or is not known yet."""
    measure = _main(effect)
    share = relative(measure) if measure is not None else None
    if share is None:
        return ("" if effect.done else "Δ measuring"), Ink.DIM
    together = f" of {len(effect.changes)} fixes" if joint(effect) else ""
    # The interval has no room here; it stands in the list of the fix's lines.
    text = f"Δ {Relative(share.change, math.nan, math.nan, share.sure)}"
    if not share.sure:
        return f"{text}?{together}", Ink.DIM
    return f"{text}{together}", Ink.OK if share.change < 0 else Ink.WARN


def _long(effect: Effect) -> tuple[str, ...]:
    """Every measure with its interval and what it rests on."""
    lines = [f"Δ of {len(effect.changes)} fixes together, not of one of them"] if joint(effect) else []
    for measure in effect.measures:
        if not (math.isfinite(measure.before) and math.isfinite(measure.after)):
            continue
        metric = BY_NAME.get(measure.metric)
        name = metric.title if metric is not None else measure.metric
        said = [f"Δ {name} {number(measure.before)} to {number(measure.after)}"]
        if math.isfinite(measure.low) and math.isfinite(measure.high):
            about = f"{AGAINST} " if measure.unit else "change "
            said.append(f"{about}{number(measure.low)} to {number(measure.high)} (95 %)")
        said += [text for text in (units(measure), measure.note) if text]
        said.append(f"{measure.tokens_before:,} and {measure.tokens_after:,} tokens")
        said += ["still counting"] if not effect.done and not any("still counting" in line for line in lines) else []
        lines.append(", ".join(said))
    return tuple(lines)


_NOTE_LEAST: Final = 12
"""Cells below which the beginning of a note says nothing."""


def fix_line(row: FixRow, width: int) -> list[Text]:
    """The columns of one fix, for panel and picker."""
    name = 20 if width >= 40 else 18
    state, ink = row.state if row.symbol[1] != Ink.DIM or width >= 60 else ("", Ink.DIM)
    title = cut(row.fix.title, name if state else 20)
    line = [(" ", Ink.TEXT), row.symbol, (f" {title:<{name}}", Ink.TEXT)]
    if state:
        line.append((f" {state:<7}", ink))
    if row.since:
        line.append((f" {row.since:<3}", Ink.DIM))
    text, note_ink = row.note
    room = width - sum(len(part) for part, _ in line) - 1
    if text and (len(text) <= room or room >= _NOTE_LEAST):
        line.append((f" {text}", note_ink))
    elif row.brief and len(row.brief) <= room:
        line.append((f" {row.brief}", note_ink))
    # A half of a number would be another number: the effect is there whole or not at all.
    if row.effect[0] and sum(len(part) for part, _ in line) + len(row.effect[0]) + 2 <= width:
        line.append((f"  {row.effect[0]}", row.effect[1]))
    return line
