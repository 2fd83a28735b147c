"""The watched runs: the state of each, and the choice of the one to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from console.tui.bindings import bindings
from console.tui.dialogs.dialog import Row
from console.tui.dialogs.list_dialog import ListDialog
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut
from console.tui.present import header
from console.tui.watch.watched_run import Watch

_STATUS: Final = 10
_LINK: Final = 12
_STEP: Final = 13


@dataclass(frozen=True)
class RunRow:
    """One run in words; `alarms` counts those that stand, None where no sentinels watch it."""

    name: str
    shown: bool
    overlaid: bool
    status: str
    link: Text
    step: str
    alarms: int | None
    synthetic: bool = False


def run_rows(watches: Sequence[Watch], shown: Watch, overlaid: Watch | None) -> list[RunRow]:
    """The state of every watched run. Reads single values that their readers replace whole: no lock is needed."""
    rows = []
    for watch in watches:
        model = watch.model
        run, step = model.run, model.step
        of = f"/{run.steps}" if run is not None and run.steps > 0 else ""
        rows.append(
            RunRow(
                name=watch.source.run,
                shown=watch is shown,
                overlaid=watch is overlaid,
                status=run.status if run is not None else "not heard",
                link=header.link_text(model, watch.source.link(), frozen=False),
                step=f"{step}{of}" if step >= 0 else "–",
                alarms=len(watch.guard.sentinels.standing) if watch.guard is not None else None,
                synthetic=run is not None and run.synthetic,
            )
        )
    return rows


class RunsScreen(ListDialog[RunRow, str]):
    """Returns the name of the run to show, or None. `o` in the list draws a run over the charts, or takes it away."""

    BINDINGS = bindings("dialog", "runs")
    heading = "watched runs"
    hint = "enter show  o overlay  esc close"
    preferred_width = 90

    def __init__(self, glyphs: Glyphs, rows: Callable[[], list[RunRow]], overlay: Callable[[str], None]) -> None:
        shown = next((row.name for row in rows() if row.shown), None)
        super().__init__(glyphs, rows, self._run, lambda row: row.name, note=self._hint, start=shown)
        self._overlay = overlay

    def head(self, width: int) -> list[Row]:
        head = f"  {'run':<{_name_width(width)}}{'status':<{_STATUS}}{'feed':<{_LINK}}{'step':<{_STEP}}alarms"
        return [[(head, Ink.DIM)]]

    def _hint(self, _row: RunRow, _width: int) -> list[Row]:
        alone = len(self.items()) == 1
        return [[], [("several runs: driftline attach RUN RUN ...", Ink.DIM)]] if alone else []

    def _run(self, row: RunRow, line_width: int) -> Row:
        width = _name_width(line_width)
        sign = self.glyphs.pointer if row.shown else "+" if row.overlaid else " "
        tag = " SYNTHETIC" if row.synthetic else ""
        room = width - len(tag) - 1
        name = cut(row.name, room)
        alarms: Text = ("–", Ink.DIM)
        if row.alarms is not None:
            alarms = (f"{row.alarms}{'!' if row.alarms else ''}", Ink.ALARM if row.alarms else Ink.OK)
        return [
            (f"{sign} ", Ink.OVERLAY if row.overlaid else Ink.ACCENT),
            (name, Ink.BRIGHT if row.shown else Ink.TEXT),
            (f"{tag:<{width - len(name)}}", Ink.WARN),
            (f"{row.status:<{_STATUS}}", Ink.WARN if row.status in ("failed", "paused") else Ink.TEXT),
            (f"{row.link[0]:<{_LINK}}", row.link[1]),
            (f"{row.step:<{_STEP}}", Ink.TEXT),
            alarms,
        ]

    def action_overlay(self) -> None:
        if (row := self.chosen) is not None:
            self._overlay(row.name)
            self.fit_box()


def _name_width(width: int) -> int:
    """Cells of the column of names in a line of `width` cells."""
    return max(width - 2 - _STATUS - _LINK - _STEP - 10, 12)
