"""The dialog of an alignment: what it would do, asked once; then how far it has come, and what came of it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Final

from console.aligning.course import Course
from console.aligning.effect import Change
from console.aligning.plan import Alignment, cost, without
from console.store.model import RunModel
from console.tui.bindings import bindings
from console.tui.dialogs.confirm import not_held
from console.tui.dialogs.dialog import Dialog, buttons
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.present import alignment

Row = list[Text]
Ranked = list[tuple[int, Row]]
"""Rows with a rank: 0 stays, what is higher makes room."""

_SYNC: Final = "sync/total_s"


class AlignScreen(Dialog[None]):
    """Asks, starts, and then shows how it goes; closing it does not stop it."""

    BINDINGS = bindings("dialog", "align")
    preferred_width = 76

    def __init__(
        self,
        glyphs: Glyphs,
        made: Alignment,
        model: Callable[[], RunModel],
        start: Callable[[AlignScreen], None],
        changes: Callable[[Course], list[Change]],
        *,
        others: Sequence[str] = (),
        run: str = "",
        held_by: Callable[[], str] = not_held,
        undo: Callable[[], None] = lambda: None,
    ) -> None:
        """`others`: what is asked for that no key does. `run` is named where several are watched.

        `start` begins it, `changes` reads what came of it so far, `undo` asks for setting it back. `held_by` names
        another session that has the lease, as a clause, "" for none; then it takes over.
        """
        super().__init__(glyphs)
        self.made = made
        """What would be done now, without what was left out."""
        self._whole = made
        self._left_out: set[str] = set()
        self._cursor = -1
        """The place of the selected one among `names` of the whole, -1 before the operator has moved."""
        self._chosen: Row | None = None
        """The line of the selected one."""
        self._lines: list[Row] = []
        self._of_run = f", of run {run}" if run else ""
        self.heading = self._titled(made)
        self.others = tuple(others)
        self.course: Course | None = None
        self.error = ""
        """Why it was not begun."""
        self.go = False
        """True while the button that acts is selected; Cancel is until the operator moves."""
        self.take_over = False
        self._model, self._start, self._changes = model, start, changes
        self._held_by, self._undo = held_by, undo

    @property
    def hint(self) -> str:  # type: ignore[override]  # fixed words elsewhere, here they follow the stage
        course = self.course
        if course is None:
            if self._whole.empty or self.error:
                return "esc close"
            return "↑↓ space leave out  ← → choose  enter  esc cancel"
        if not course.over:
            return "esc close; it goes on"
        return "esc close" if self.made.undoes else "u undo  esc close"

    def lines(self, width: int) -> list[Row]:
        if self.course is None:
            return self._kept(self._asking(width))
        model = self._model()
        ranked: Ranked = [(1, [])]
        ranked += [(0, row) for row in alignment.progress(self.course, model, self.glyphs, width)]
        ranked.append((1, []))
        ranked += [(0, row) for row in alignment.outcome(self._changes(self.course), watched=self.course.watched)]
        ranked += [(0, [(part, Ink.ALARM)]) for part in textwrap.wrap(self.course.error, width)]
        return self._kept(ranked)

    def _kept(self, ranked: Ranked) -> list[Row]:
        """The rows that there is room for: those of the highest rank go first, so that the buttons are always seen."""
        room = max(self.app.size.height - 4, 1)
        for rank in (3, 2, 1):
            if len(ranked) <= room:
                break
            ranked = [(one, row) for one, row in ranked if one != rank]
        self._lines = [row for _, row in ranked]
        return self._lines

    def selected(self) -> int | None:
        if self.course is not None or self._chosen is None:
            return None
        return next((at for at, row in enumerate(self._lines) if row is self._chosen), None)

    def top(self, height: int) -> int:
        chosen = self.selected()
        if self.course is not None:
            return 0
        return max(chosen - height + 1, 0) if chosen is not None and not self.go else len(self._lines)

    def _asking(self, width: int) -> Ranked:
        made, whole = self.made, self._whole
        first, *more = _fact("why", made.why, Ink.BRIGHT, width, most=3)
        ranked: Ranked = [(1, []), (0, first), *((2, row) for row in more), (1, [])]
        rows = alignment.settings(whole, made, self.glyphs, width)
        selected = whole.names[self._cursor] if self._cursor >= 0 else ""
        self._chosen = next((row for name, row in rows if selected and name == selected), None)
        ranked += [(0, row) for _, row in rows]
        if made.settings and not made.undoes:
            words = f"together {made.together}; " if made.together else ""
            text = f"{words}figures: by how much each is expected to lower the mismatch, in nats"
            ranked += [(2 if words else 3, row) for row in _fact("", text, Ink.DIM, width, most=2)]
        ranked.append((1, []))
        for one in made.skipped:
            ranked += [(3, row) for row in _fact("left out", f"{one.fix}: {one.why}", Ink.DIM, width, most=2)]
        for text in self.others:
            ranked += [(2, row) for row in _fact("also", text, Ink.BRIGHT, width, most=2)]
        if made.empty:
            said = "nothing is to be set and nothing to be synced" if whole.empty else "all of it is left out"
            return [*ranked, *((0, row) for row in _fact("", said, Ink.OK, width, most=1))]
        rows_of_cost = _fact("cost", cost(made, self._model().metrics.last(_SYNC)), Ink.WARN, width, most=2)
        held = self._held_by()
        if held:
            text = f"{held}: take over? That session is notified, and it is audited"
            rows_of_cost += _fact("held", text, Ink.ALARM, width, most=2)
        ranked += [*((0, row) for row in rows_of_cost), (1, [])]
        if self.error:
            return [*ranked, *((0, [(part, Ink.ALARM)]) for part in textwrap.wrap(self.error, width))]
        action = f"{'take over and ' if held else ''}{'set back' if made.undoes else 'align'}"
        return [*ranked, (0, buttons(self.glyphs, width, action, on_action=self.go))]

    def action_switch(self) -> None:
        if self.course is None and not self.made.empty:
            self.go = not self.go
            self.fit_box()

    def action_line(self, step: int) -> None:
        names = self._whole.names
        if self.course is None and names and not self.error:
            self._cursor = min(max(self._cursor + step, 0), len(names) - 1)
            self.fit_box()

    def action_mark(self) -> None:
        """Leave out what is selected, or take it in again."""
        names = self._whole.names
        if self.course is not None or not names or self.error:
            return
        self._cursor = max(self._cursor, 0)
        self._left_out ^= {names[self._cursor]}
        self.made = without(self._whole, self._left_out)
        self.go = self.go and not self.made.empty
        self.heading = self._titled(self.made)
        self.fit_box()

    def _titled(self, made: Alignment) -> str:
        return f"{made.title}{self._of_run}"

    def action_choose(self) -> None:
        if self.course is not None or not self.go or self.made.empty or self.error:
            self.dismiss(None)
            return
        self.take_over = bool(self._held_by())
        self.go = False
        self._start(self)
        self.fit_box()

    def action_undo(self) -> None:
        """Ask for setting it back, once no command is under way."""
        if self.course is not None and self.course.over and not self.made.undoes:
            self.dismiss(None)
            self._undo()

    def begun(self, course: Course) -> None:
        """It is under way."""
        self.course = course
        self.fit_box()

    def failed(self, error: str) -> None:
        """It was not begun."""
        self.error = error
        self.fit_box()


def _fact(word: str, text: str, ink: Ink, width: int, *, most: int) -> list[Row]:
    """A word and its text, over several lines where it is long."""
    parts = textwrap.wrap(text, max(width - 9, 12)) or [""]
    if len(parts) > most:
        parts = [*parts[: most - 1], f"{parts[most - 1][: max(width - 10, 1)]}…"]
    return [[(f"{word:<8} ", Ink.DIM), (parts[0], ink)], *([(" " * 9, Ink.DIM), (part, ink)] for part in parts[1:])]
