"""The panes of the parity screen: the verdict metric by metric, and the run beside published limits."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from console.store.model import RunModel
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import counted, cut
from console.tui.screens.parity import view as views
from console.tui.screens.parity.view import Limited
from console.tui.watch.judging import Chosen, Verdict
from console.tui.widgets.pane import Pane
from console.tui.widgets.scrolled import ScrolledPane

if TYPE_CHECKING:
    from console.parity.judge import Judged


class VerdictTable(Pane):
    """The verdict on the run, then each metric; below them why the one under the cursor has the verdict it has."""

    title = "parity"
    ABOVE = 3
    """Lines before the first metric: the verdict, against what, the heads of the columns."""
    BELOW = 3
    """Lines after the last: why, in two, and what the numbers are."""

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.chosen, self.verdict = Chosen(), None  # type: Chosen, Verdict | None
        self.backend: list[Text] = []
        self.offer = ""
        self.cursor = 0

    def show(self, chosen: Chosen, verdict: Verdict | None, backend: list[Text], offer: str = "") -> None:
        """Take the choice of a reference, the newest verdict, and the line about the backend alone.

        `offer`: from which step on the run could be judged instead, and the key for it.
        """
        self.chosen, self.verdict, self.backend, self.offer = chosen, verdict, backend, offer
        if verdict is not None:
            self.cursor = max(min(self.cursor, len(self.metrics) - 1), 0)
        self.repaint()

    @property
    def judged(self) -> Judged | None:
        """The metric under the cursor."""
        return self.metrics[self.cursor] if self.metrics else None

    @property
    def metrics(self) -> list[Judged]:
        """The metrics that have a row."""
        return views.shown(self.verdict.comparison) if self.verdict is not None else []

    @property
    def rows(self) -> int:
        """Rows that all of it takes, without the frame."""
        if self.verdict is None:
            return len(self.lines(max(self.size.width - 2, 40), 0))
        return len(self.metrics) + self.ABOVE + self.BELOW

    def label(self) -> str:
        count = len(self.chosen.names)
        if not count:
            return "no reference: r"
        # Said here too: the footer of a small screen has no room for these keys.
        return f"{counted(count, 'reference run')}: r{f', {self.offer}' if self.offer else ''}"

    def selected(self) -> int | None:
        return self.cursor + self.ABOVE if self.verdict is not None else None

    def move(self, direction: str) -> bool:
        step = {"up": -1, "down": 1}.get(direction, 0)
        if step == 0 or self.verdict is None or not 0 <= self.cursor + step < len(self.metrics):
            return False
        self.cursor += step
        self.repaint()
        return True

    def lines(self, width: int, height: int) -> list[list[Text]]:  # noqa: ARG002  clipped where painted
        verdict, judged = self.verdict, self.judged
        if verdict is not None and judged is None:
            return [views.head(verdict), [(cut(f" {views.against(verdict)}", width), Ink.DIM)]]
        if verdict is None or judged is None:
            return [*self._wrapped(views.waiting(self.chosen, verdict), width), *self._wrapped([self.backend], width)]
        comparison = verdict.comparison
        against = cut(f" {views.against(verdict)}", width)
        lines = [views.head(verdict), [(against, Ink.DIM)], views.heads(width)]
        lines += [views.row(one, verdict, self.glyphs, width) for one in self.metrics]
        label, (text, ink) = views.why(judged, verdict)
        parts = textwrap.wrap(text, max(width - len(label[0]) - 1, 10)) or [""]
        rest = cut(" ".join(parts[1:]), width - len(label[0]))
        lines += [[label, (parts[0], ink)], [(" " * len(label[0]), Ink.DIM), (rest, ink)]]
        return [*lines, [(f" {views.legend(comparison, width)}", Ink.DIM)]]

    def _wrapped(self, lines: list[list[Text]], width: int) -> list[list[Text]]:
        """Lines whose last text goes on below where it does not fit."""
        found: list[list[Text]] = []
        for line in lines:
            *front, (text, ink) = line or [("", Ink.DIM)]
            used = sum(len(part) for part, _ in front)
            first, *more = textwrap.wrap(" " * used + text.strip(), max(width - 2, 20), initial_indent="") or [""]
            found.append([*front, (f"{'' if front else ' '}{first[used:] if front else first}", ink)])
            found += [[(f"   {part}", ink)] for part in more]
        return found


class Limits(ScrolledPane):
    """Everything that can be judged without a reference: the newest values beside the published limits."""

    title = "published limits"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.found: list[Limited] = []

    def show(self, model: RunModel) -> None:
        """Take the run's numbers."""
        self.found = views.limited(model)
        self.repaint()

    @property
    def count(self) -> int:
        return len(self.found)

    def label(self) -> str:
        beyond = sum(one.verdict in ("warn", "alarm") for one in self.found)
        return f"{beyond} of {len(self.found)} beyond" if self.found else ""

    def lines(self, width: int, height: int) -> list[list[Text]]:
        if not self.found:
            return [[(" nothing with a published limit has been reported yet", Ink.DIM)]]
        return [views.limit_line(one, width) for one in self.found[self.top : self.top + height]]
