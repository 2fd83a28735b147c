"""An alignment as lines: its settings with what they take away, how far it has come, what came of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from console.aligning.effect import Change, sentence
from console.aligning.plan import SYNC, Alignment, Order, plan, undo, when
from console.aligning.record import Record
from console.aligning.record import found as found_record
from console.aligning.wanted import wanted
from console.status.fix_coverage import coverage
from console.store.model import RunModel
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut

if TYPE_CHECKING:
    from console.aligning.course import Course, Progress
    from console.diagnosis.model import Diagnosis

Row = list[Text]

_NAME: Final = 20
_VALUES: Final = 8
_WHEN: Final = 13
_INKS: Final[Mapping[str, Ink]] = {
    "applied": Ink.OK, "failed": Ink.ALARM, "refused": Ink.ALARM, "expired": Ink.ALARM, "waiting": Ink.DIM,
}  # fmt: skip
HIDDEN: Final = "cause not ruled out; a larger one may hide it"


def asked_for(model: RunModel, found: Diagnosis | None) -> Alignment:
    """What the diagnosis asks for, by what the run has reported."""
    return plan(model.fixes, model.effects, wanted(found), trainer=model.run is not None)


def standing(model: RunModel) -> Record | None:
    """The alignment of the run that was not undone; None where there is none."""
    return found_record(life.command for life in reversed(list(model.commands.values())))


def back(model: RunModel) -> Alignment | None:
    """What sets the alignment that stands back; None where none does."""
    record = standing(model)
    return undo(record, model.fixes, trainer=model.run is not None) if record is not None else None


def settings(made: Alignment, kept: Alignment, glyphs: Glyphs, width: int) -> list[tuple[str, Row]]:
    """A line for each setting and for the sync, with its name: whether it is part of what is `kept` of `made`, from and
    to which value, how, what it is expected to take away. Lines that belong to the one above them have no name."""
    rows: list[tuple[str, Row]] = []
    roomy = width >= 64
    gains = {one.fix: one.gain for one in kept.settings}
    for one in made.settings:
        there = one.fix in gains
        row: Row = [
            _mark(glyphs, there=there),
            (f"{cut(one.fix, _NAME):<{_NAME}} ", Ink.TEXT if there and one.named else Ink.DIM),
            (f"{one.before} {glyphs.arrow} {one.value}".ljust(_VALUES), Ink.BRIGHT if there else Ink.DIM),
        ]
        if not there:
            row.append((" left out", Ink.DIM))
        else:
            row += [(f" {when(one, sync=kept.sync):<{_WHEN}}", Ink.DIM)] if roomy else []
            gain = gains[one.fix]
            row += [] if made.undoes else [(f" {gain}", Ink.OK if gain.source else Ink.DIM)]
        rows.append((one.fix, row))
        if not one.named and there:
            rows.append(("", [(" " * (_NAME + 3), Ink.DIM), (HIDDEN, Ink.DIM)]))
    if made.sync:
        rows.append((SYNC, _sync(kept, glyphs)))
    return rows


def _mark(glyphs: Glyphs, *, there: bool) -> Text:
    return f"{glyphs.on if there else glyphs.off} ", Ink.OK if there else Ink.DIM


def _sync(kept: Alignment, glyphs: Glyphs) -> Row:
    words = "pause, load, resume on every engine" if kept.sync else "left out"
    row: Row = [
        _mark(glyphs, there=kept.sync), (f"{'sync weights':<{_NAME}} ", Ink.TEXT if kept.sync else Ink.DIM),
        (words, Ink.DIM),
    ]  # fmt: skip
    return [*row, (f" {kept.sync_gain}", Ink.OK)] if kept.sync and kept.sync_gain.source else row


def progress(course: Course, model: RunModel, glyphs: Glyphs, width: int) -> list[Row]:
    """A line for each command and how far it has come, by what the engines have reported."""
    rows: list[Row] = []
    for order in course.orders:
        state = course.state(order)
        said = _reached(order, model) if order.fix and state != "waiting" else course.detail(order)
        rows.append([
            (f"{_symbol(state, glyphs)} ", _INKS.get(state, Ink.ACCENT)), (f"{cut(order.what, 26):<27}", Ink.TEXT),
            (f"{state:<9}", _INKS.get(state, Ink.ACCENT)), (cut(said, max(width - 38, 0)), Ink.DIM),
        ])  # fmt: skip
    return rows


def _reached(order: Order, model: RunModel) -> str:
    state = model.fixes.get(order.fix)
    return coverage(state).text if state is not None else ""


def _symbol(state: Progress, glyphs: Glyphs) -> str:
    if state == "applied":
        return glyphs.on
    if state in ("failed", "refused", "expired"):
        return glyphs.gap
    return glyphs.off if state == "waiting" else glyphs.partial


def outcome(changes: list[Change], *, watched: bool) -> list[Row]:
    """The run before and since, as it is so far."""
    if not changes:
        return [[("the run reports no mismatch, clip fraction or reward", Ink.DIM)]]
    before, after = max(one.steps_before for one in changes), max(one.steps_after for one in changes)
    words = f"means of {before} steps before, {after} since{'' if watched else '; still counting'}"
    return [
        *([(f"{one.title:<15}", Ink.TEXT), (str(one)[len(one.title) + 1 :], Ink.BRIGHT)] for one in changes),
        [(words, Ink.DIM)],
    ]


def closing(course: Course, changes: list[Change]) -> str:
    """How it ended, for the footer."""
    if course.error:
        return f"{course.made.title}: {course.standing}; :align undo sets back what was set"
    return f"{course.made.title}: {sentence(changes)}"
