"""Which fix to switch, and to which value where it has more than two; which runs to be held against: lists."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from console.tui.dialogs.dialog import Dialog
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.present.corrections import CorrectionView, gate
from console.tui.present.fix_rows import FixRow, fix_line
from console.tui.present.plans import WHEN, how_of, meaning
from driftline.catalog.corrections import CORRECTIONS
from driftline.catalog.fixes import BY_ID
from driftline.frames import FixState
from driftline.rundir import RunDir, list_runs, runs_root


class FixPicker(Dialog[str]):
    """Returns the id of the chosen fix, or None."""

    heading = "which fix"
    hint = "↑ ↓ enter  esc cancel"
    preferred_width = 72

    def __init__(self, glyphs: Glyphs, rows: Callable[[], list[FixRow]]) -> None:
        super().__init__(glyphs)
        self._rows = rows
        self.cursor = 0

    def lines(self, width: int) -> list[list[Text]]:
        rows = self._rows()
        fix = rows[self.cursor].fix
        lines = [*(fix_line(row, width) for row in rows), []]
        for text, ink in ((fix.summary, Ink.TEXT), (f"why: {fix.why}", Ink.DIM)):
            # Always two lines, so that the box does not jump from fix to fix.
            parts = [*textwrap.wrap(text, max(width - 2, 10)), "", ""][:2]
            lines += [[(f" {part}", ink)] for part in parts]
        return lines

    def selected(self) -> int | None:
        return self.cursor

    def action_line(self, step: int) -> None:
        self.cursor = (self.cursor + step) % len(self._rows())
        self.fit_box()

    def action_choose(self) -> None:
        self.dismiss(self._rows()[self.cursor].fix.id)


class ValuePicker(Dialog[str]):
    """Returns the chosen value of a fix that has more than two, or None; stands on the first that is not wanted now."""

    hint = "↑ ↓ enter  esc cancel"
    preferred_width = 72

    def __init__(self, glyphs: Glyphs, state: FixState) -> None:
        super().__init__(glyphs)
        self.state = state
        self.fix = BY_ID[state.fix]
        self.heading = f"{self.fix.title}: which value"
        self.cursor = next(i for i, value in enumerate(self.fix.values) if value != state.requested)

    def lines(self, width: int) -> list[list[Text]]:
        lines: list[list[Text]] = []
        for value in self.fix.values:
            wanted = value == self.state.requested
            sign = self.glyphs.on if wanted else " "
            lines.append([(f" {sign} ", Ink.OK), (f"{value:<8} ", Ink.TEXT), (meaning(self.fix, value), Ink.DIM)])
        value = self.fix.values[self.cursor]
        note = "wanted now" if value == self.state.requested else WHEN[how_of(self.state, value)]
        # Always two lines, so that the box does not jump from value to value.
        parts = [*textwrap.wrap(note, max(width - 2, 10)), ""][:2]
        return [*lines, [], *([(f" {part}", Ink.WARN)] for part in parts)]

    def selected(self) -> int | None:
        return self.cursor

    def action_line(self, step: int) -> None:
        self.cursor = (self.cursor + step) % len(self.fix.values)
        self.fit_box()

    def action_choose(self) -> None:
        self.dismiss(self.fix.values[self.cursor])


class CorrectionPicker(Dialog[str]):
    """Returns the chosen correction of the objective, or None; the gate stands above."""

    heading = "correct the objective: how"
    hint = "↑ ↓ enter  esc cancel"
    preferred_width = 76

    def __init__(self, glyphs: Glyphs, view: CorrectionView) -> None:
        super().__init__(glyphs)
        self.view = view
        wanted = view.requested or view.effective
        self.cursor = next(i for i, one in enumerate(CORRECTIONS) if one.id != wanted)

    def lines(self, width: int) -> list[list[Text]]:
        lines: list[list[Text]] = []
        for one in CORRECTIONS:
            wanted = one.id == (self.view.requested or self.view.effective)
            sign = self.glyphs.on if wanted else " "
            lines.append([(f" {sign} ", Ink.OK), (f"{one.id:<14} ", Ink.TEXT), (one.title, Ink.DIM)])
        chosen = CORRECTIONS[self.cursor]
        word, ink = gate(self.view.verdict)
        for text, colour in ((chosen.summary, Ink.TEXT), (f"weight {chosen.formula}", Ink.DIM),
                             (f"{word}: {self.view.verdict.why}", ink)):  # fmt: skip
            # Always two lines, so that the box does not jump from one to the next.
            parts = [*textwrap.wrap(text, max(width - 2, 10)), "", ""][:2]
            lines += [[(f" {part}", colour)] for part in parts]
        return lines

    def selected(self) -> int | None:
        return self.cursor

    def action_line(self, step: int) -> None:
        self.cursor = (self.cursor + step) % len(CORRECTIONS)
        self.fit_box()

    def action_choose(self) -> None:
        self.dismiss(CORRECTIONS[self.cursor].id)


class GateScreen(Dialog[bool]):
    """The first of two questions before a correction that would hide a fault; stands on Cancel."""

    heading = "correctness before corrections"
    hint = "← → choose  enter  esc cancel"
    preferred_width = 70

    def __init__(self, glyphs: Glyphs, text: str) -> None:
        super().__init__(glyphs)
        self.text = text
        self.go = False

    def lines(self, width: int) -> list[list[Text]]:
        lines: list[list[Text]] = [[], *([(part, Ink.WARN)] for part in textwrap.wrap(self.text, width)), []]
        cancel, go = "  Cancel  ", "  correct it nevertheless  "
        pointer = self.glyphs.pointer
        pad = max(width - len(cancel) - len(go) - 6, 0) // 2
        lines.append([
            (" " * pad, Ink.TEXT),
            (f"{' ' if self.go else pointer}{cancel}", Ink.DIM if self.go else Ink.BRIGHT),
            ("   ", Ink.TEXT),
            (f"{pointer if self.go else ' '}{go}", Ink.WARN if self.go else Ink.DIM),
        ])  # fmt: skip
        return lines

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


class RunPicker(Dialog[tuple[str, ...]]):
    """Which runs are the reference: those that are marked, or the one under the cursor; none takes it away.

    The folder is read by a thread of its own: it may be on a slow disk and hold thousands of runs.
    """

    heading = "reference: runs of one healthy configuration"
    hint = "↑ ↓  space mark several  enter  esc cancel"
    preferred_width = 76

    def __init__(self, glyphs: Glyphs, root: Path | None, *, own: str, chosen: tuple[str, ...]) -> None:
        """`root`: the folder to look in, None for the usual one; `own` is the run itself, which is no choice."""
        super().__init__(glyphs)
        self.root = root if root is not None else runs_root()
        self.listed: list[Listed] | None = None
        """None while the folder is being read."""
        self.marked: set[str] = set()
        self.cursor = 0
        self._own, self._chosen = own, chosen

    def on_mount(self) -> None:
        super().on_mount()
        self.run_worker(self._list, name="list", group="list", thread=True)

    def _list(self) -> None:
        listed = [Listed(run, began(run)) for run in list_runs(self.root) if run.id != self._own]
        self.app.call_from_thread(self._show, listed)

    def _show(self, listed: list[Listed]) -> None:
        if not self.is_mounted:
            return  # closed meanwhile
        self.listed = listed
        self.marked = {run.id for run in self.runs if run.id in self._chosen or str(run.path) in self._chosen}
        self.cursor = 1 if listed else 0
        self.fit_box()

    @property
    def runs(self) -> list[RunDir]:
        """The runs that can be chosen, newest first, as far as is known."""
        return [one.run for one in self.listed or ()]

    def lines(self, width: int) -> list[list[Text]]:
        lines: list[list[Text]] = [[("   no reference", Ink.TEXT)]]
        if not self.listed:
            text = "no other runs in" if self.listed is not None else "reading"
            lines.append([(f"   {text} {self.root}", Ink.DIM)])
        for one in self.listed or ():
            marked = one.run.id in self.marked
            sign = self.glyphs.on if marked else self.glyphs.off
            room = max(width - 28, 10)
            ink = Ink.OK if marked else Ink.DIM
            lines.append([(f" {sign} ", ink), (f"{one.run.id:<{room}.{room}} ", Ink.TEXT), (one.began, Ink.DIM)])
        return lines

    def top(self, height: int) -> int:
        return max(self.cursor - height + 1, 0)

    def selected(self) -> int | None:
        return self.cursor

    def action_line(self, step: int) -> None:
        self.cursor = (self.cursor + step) % (len(self.runs) + 1)
        self.fit_box()

    def action_mark(self) -> None:
        if self.cursor:
            self.marked ^= {self.runs[self.cursor - 1].id}
            self.fit_box()

    def action_choose(self) -> None:
        if self.listed is None:
            return  # what enter is meant for is not there yet
        if self.cursor == 0:
            self.dismiss(())
            return
        names = self.marked or {self.runs[self.cursor - 1].id}
        self.dismiss(tuple(str(run.path) for run in self.runs if run.id in names))


def began(run: RunDir) -> str:
    """When a run was started, as far as its folder tells; "" for one that is gone meanwhile."""
    try:
        file = run.config if run.config.exists() else run.path
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(file.stat().st_mtime))
    except OSError:
        return ""
