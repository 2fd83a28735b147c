"""The lists of fixes, of a fix's values, of corrections and of reference runs, and the question before a correction."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from console.tui.dialogs.dialog import Dialog, Row, buttons, folded
from console.tui.dialogs.list_dialog import ListDialog
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.present.corrections import CorrectionView, gate
from console.tui.present.fix_rows import FixRow, fix_line
from console.tui.present.plans import WHEN, how_of, meaning
from driftline.catalog.corrections import CORRECTIONS, Correction
from driftline.catalog.fixes import BY_ID
from driftline.frames import FixState
from driftline.rundir import RunDir, list_runs, runs_root


def fix_list(glyphs: Glyphs, rows: Callable[[], list[FixRow]]) -> ListDialog[FixRow, str]:
    """Returns the id of the chosen fix."""

    def note(row: FixRow, width: int) -> list[Row]:
        return [[], *folded([(row.fix.summary, Ink.TEXT), (f"why: {row.fix.why}", Ink.DIM)], width)]

    return ListDialog(glyphs, rows, fix_line, lambda row: row.fix.id, note=note, heading="which fix")


def value_list(glyphs: Glyphs, state: FixState) -> ListDialog[str, str]:
    """Returns the chosen value of a fix that has more than two; begins on the first that is not requested now."""
    fix = BY_ID[state.fix]

    def row(value: str, _width: int) -> Row:
        sign = glyphs.on if value == state.requested else " "
        return [(f" {sign} ", Ink.OK), (f"{value:<8} ", Ink.TEXT), (meaning(fix, value), Ink.DIM)]

    def note(value: str, width: int) -> list[Row]:
        text = "wanted now" if value == state.requested else WHEN[how_of(state, value)]
        return [[], *folded([(text, Ink.WARN)], width)]

    start = next(value for value in fix.values if value != state.requested)
    heading = f"{fix.title}: which value"
    return ListDialog(glyphs, lambda: fix.values, row, str, note=note, start=start, heading=heading)


def correction_list(glyphs: Glyphs, view: CorrectionView) -> ListDialog[Correction, str]:
    """Returns the id of the chosen correction of the objective; the verdict that guards it stands below."""
    requested = view.requested or view.effective
    word, ink = gate(view.verdict)

    def row(one: Correction, _width: int) -> Row:
        sign = glyphs.on if one.id == requested else " "
        return [(f" {sign} ", Ink.OK), (f"{one.id:<14} ", Ink.TEXT), (one.title, Ink.DIM)]

    def note(one: Correction, width: int) -> list[Row]:
        verdict = (f"{word}: {view.verdict.why}", ink)
        return folded([(one.summary, Ink.TEXT), (f"weight {one.formula}", Ink.DIM), verdict], width)

    start = next(one.id for one in CORRECTIONS if one.id != requested)
    heading = "correct the objective: how"
    return ListDialog(
        glyphs, lambda: CORRECTIONS, row, lambda one: one.id, note=note, start=start, heading=heading, width=76
    )


class GateScreen(Dialog[bool]):
    """The first of two questions before a correction that would hide a fault; stands on Cancel."""

    heading = "correctness before corrections"
    hint = "← → choose  enter  esc cancel"
    preferred_width = 70

    def __init__(self, glyphs: Glyphs, text: str) -> None:
        super().__init__(glyphs)
        self.text = text
        self.go = False

    def lines(self, width: int) -> list[Row]:
        text: list[Row] = [[(part, Ink.WARN)] for part in textwrap.wrap(self.text, width)]
        return [[], *text, [], buttons(self.glyphs, width, "correct it nevertheless", on_action=self.go)]

    def action_switch(self) -> None:
        self.go = not self.go
        self.fit_box()

    def action_choose(self) -> None:
        self.dismiss(self.go)


@dataclass(frozen=True)
class Listed:
    """A run that can be chosen, and when it was started."""

    run: RunDir
    began: str


class RunPicker(ListDialog[Listed | None, tuple[str, ...]]):
    """Choice of the reference runs: those that are marked, or the one under the cursor; the first row is none of them.

    The folder is read by a thread of its own: it may be on a slow disk and hold thousands of runs.
    """

    heading = "reference: runs of one healthy configuration"
    hint = "↑ ↓  space mark several  enter  esc cancel"
    preferred_width = 76

    def __init__(self, glyphs: Glyphs, root: Path | None, *, own: str, chosen: tuple[str, ...]) -> None:
        """`root`: the folder to look in, None for the usual one; `own` is the run itself, which cannot be chosen."""
        super().__init__(glyphs, self._items, self._run, self._paths, key=_id, note=self._state)
        self.root = root if root is not None else runs_root()
        self.listed: list[Listed] | None = None
        """None while the folder is being read."""
        self.marked: set[str] = set()
        self._own, self._names = own, chosen

    def on_mount(self) -> None:
        super().on_mount()
        self.run_worker(self._read_folder, name="list", group="list", thread=True)

    def _read_folder(self) -> None:
        listed = [Listed(run, began(run)) for run in list_runs(self.root) if run.id != self._own]
        self.app.call_from_thread(self._show, listed)

    def _show(self, listed: list[Listed]) -> None:
        if not self.is_mounted:
            return  # closed meanwhile
        self.listed = listed
        self.marked = {run.id for run in self.runs if run.id in self._names or str(run.path) in self._names}
        self.cursor_key = _id(listed[0] if listed else None)
        self.fit_box()

    @property
    def runs(self) -> list[RunDir]:
        """The runs that can be chosen, newest first, as far as is known."""
        return [one.run for one in self.listed or ()]

    def _items(self) -> list[Listed | None]:
        return [None, *(self.listed or ())]

    def _run(self, one: Listed | None, width: int) -> Row:
        if one is None:
            return [("   no reference", Ink.TEXT)]
        sign, ink = (self.glyphs.on, Ink.OK) if one.run.id in self.marked else (self.glyphs.off, Ink.DIM)
        room = max(width - 28, 10)
        return [(f" {sign} ", ink), (f"{one.run.id:<{room}.{room}} ", Ink.TEXT), (one.began, Ink.DIM)]

    def _state(self, _one: Listed | None, _width: int) -> list[Row]:
        text = "reading" if self.listed is None else "no other runs in"
        return [] if self.listed else [[(f"   {text} {self.root}", Ink.DIM)]]

    def _paths(self, one: Listed | None) -> tuple[str, ...]:
        names = {_id(one)} if one is None or not self.marked else self.marked
        return tuple(str(run.path) for run in self.runs if run.id in names)

    def action_mark(self) -> None:
        if (one := self.chosen) is not None:
            self.marked ^= {_id(one)}
            self.fit_box()

    def action_choose(self) -> None:
        if self.listed is not None:  # before that Enter has nothing to choose from
            self.dismiss(self._paths(self.chosen))


def _id(one: Listed | None) -> str:
    return one.run.id if one is not None else ""


def began(run: RunDir) -> str:
    """When a run was started, as far as its folder says; "" for one that is gone meanwhile."""
    try:
        file = run.config if run.config.exists() else run.path
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(file.stat().st_mtime))
    except OSError:
        return ""
