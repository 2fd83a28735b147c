"""The panes of the tokens screen: each shows what a survey of the tokens says, around the token that is chosen."""

from __future__ import annotations

from collections.abc import Sequence as Many

from console.store.tokens.ring import Token, TokenStore
from console.store.tokens.survey import By, Survey
from console.tui.paint.cells import Cells, Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import SELECTED, Ink
from console.tui.paint.units import cut_wide
from console.tui.screens.tokens import charts
from console.tui.screens.tokens import view as views
from console.tui.screens.tokens.context import context
from console.tui.screens.tokens.engine_pairs import EnginePair, pair_lines
from console.tui.widgets.pane import Pane

Why = Many[tuple[str, Ink]]
"""Lines that say why there is nothing to show."""

CHARTS_LEAST = 3
"""Rows of a chart below which it is left out: its axis and two of bars."""


class Ranking(Pane):
    """A table of which one row is chosen; it shows the rows around that one."""

    head_rows = 1

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.at: int | None = None
        """Place of the chosen row in the ranking, None where it is not in it."""
        self._top = 0
        self._rows: list[list[Text]] = []
        self._why: Why = ()
        self._label = ""

    @property
    def room(self) -> tuple[int, int]:
        """Columns and rows of the table below its head."""
        edge = 2 if self.framed else 0
        return max(self.size.width - edge, 0), max(self.size.height - edge - self.head_rows, 0)

    def shown(self, count: int, at: int | None) -> range:
        """The places of a ranking of `count` to show so that `at` is among them; moves as little as it can."""
        height = self.room[1]
        self.at = at
        if at is not None:
            self._top = min(max(self._top, at - height + 1), at)
        self._top = max(min(self._top, count - height), 0)
        return range(self._top, min(self._top + height, count))

    def show_rows(self, rows: list[list[Text]], why: Why, label: str) -> None:
        """Take the head and the visible rows, or why there are none."""
        self._rows, self._why, self._label = rows, why, label
        self.repaint()

    def label(self) -> str:
        return self._label

    def selected(self) -> int | None:
        return None if self.at is None or self._why else self.at - self._top + self.head_rows

    def lines(self, width: int, height: int) -> list[list[Text]]:  # noqa: ARG002  clipped where painted
        return [[(f" {text}", ink)] for text, ink in self._why] if self._why else self._rows

    def paint(self, cells: Cells) -> None:
        super().paint(cells)
        chosen = self.selected()
        if chosen is None:
            return
        # Without colours, and while another pane has the keys, a sign says which row is chosen.
        offset = 1 if self.framed and cells.height >= 3 else 0
        if 0 <= chosen < cells.height - 2 * offset:
            cells.text(chosen + offset, offset, self.glyphs.pointer, Ink.ACCENT | (SELECTED if self.has_focus else 0))


class WorstList(Ranking):
    """The tokens that differ most."""

    title = "worst tokens"

    def show(self, store: TokenStore, found: Survey, chosen: int | None, why: Why, label: str) -> None:
        """Take the ranking; `chosen` is the place in it."""
        columns = views.fitted(views.WORST_COLUMNS, self.room[0] - 1)
        places = self.shown(len(found.worst), chosen)
        tokens = [store.token(int(found.worst[place])) for place in places]
        rows = [views.worst_line(token, columns, self.glyphs) for token in tokens if token is not None]
        self.show_rows([views.heads(columns, self.glyphs), *rows], why, label)


class OutlierTable(Ranking):
    """The sequences that differ most."""

    title = "sequences"

    def show(self, store: TokenStore, found: Survey, chosen: int | None, why: Why, by: By) -> None:
        """Take the ranking; `chosen` is the place in it."""
        columns = views.fitted(views.OUTLIER_COLUMNS, self.room[0] - 1)
        places = self.shown(len(found.outliers), chosen)
        sequences = [store.sequence(int(found.outliers[place])) for place in places]
        rows = [views.outlier_line(store, one, columns, self.glyphs) for one in sequences if one is not None]
        self.show_rows([views.heads(columns, self.glyphs), *rows], why, f"by {views.order_word(by)} (s)")


class ContextPane(Pane):
    """The chosen token in the text that it is part of."""

    title = "context"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.token: Token | None = None
        self._lines: list[list[Text]] = []
        self._label = ""

    def show(self, store: TokenStore, token: Token | None, label: str) -> None:
        """Take the token."""
        self.token, self._label = token, label
        edge = 2 if self.framed else 0
        width, height = self.size.width - edge, self.size.height - edge
        self._lines = [] if token is None else self._composed(store, token, width, height)
        self.repaint()

    def _composed(self, store: TokenStore, token: Token, width: int, height: int) -> list[list[Text]]:
        head = views.about(token, self.glyphs, width)[: max(height - 2, 1)]
        legend = [views.scale(self.glyphs, width)] if height >= len(head) + 3 else []
        gap: list[list[Text]] = [[]] if height >= len(head) + len(legend) + 4 else []
        room = height - len(head) - len(legend) - len(gap)
        body = context(store, token, self.glyphs, width, room)
        filled: list[list[Text]] = [[] for _ in range(room - len(body))]
        return [*head, *gap, *body, *filled, *legend]

    def label(self) -> str:
        return self._label

    def lines(self, width: int, height: int) -> list[list[Text]]:  # noqa: ARG002  composed for the size
        return self._lines


class EnginePairsPane(Pane):
    """Engine against engine, where shadow scoring compares them."""

    title = "engine → engine: sampled → scored"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.title = self.title.replace("→", glyphs.arrow)
        self.pairs: list[EnginePair] = []
        self._label = ""

    def show(self, pairs: list[EnginePair], label: str) -> None:
        """Take the pairs."""
        self.pairs, self._label = pairs, label
        self.repaint()

    def label(self) -> str:
        return self._label

    def lines(self, width: int, height: int) -> list[list[Text]]:
        return pair_lines(self.pairs[:height], width, self.glyphs)


class Distribution(Pane):
    """The histogram of the differences, above their mean by position."""

    title = "Δ = trainer - rollout"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.found: Survey | None = None

    def show(self, found: Survey | None) -> None:
        """Take what was found."""
        self.found = found
        self.repaint()

    def lines(self, width: int, height: int) -> list[list[Text]]:  # noqa: ARG002  drawn, not written
        return []

    def paint(self, cells: Cells) -> None:
        super().paint(cells)
        offset, width, height = self.inner(cells)
        found = self.found
        if found is None or not found.matched or width < 8:
            return
        upper = (height + 1) // 2
        lower = height - upper
        self._chart(cells, offset, width, upper, charts.histogram_label(found.matched, found.mean, found.broken))
        box = (offset + 1, offset, width, upper - 1)
        charts.draw_histogram(cells, box, found.histogram, self.glyphs)
        if lower >= CHARTS_LEAST:
            text = f"{'mean|Δ| ' if width >= 44 else ''}by position, {charts.positions_label(found.positions)}"
            self._chart(cells, offset + upper, width, lower, text)
            charts.draw_positions(cells, (offset + upper + 1, offset, width, lower - 1), found.positions, self.glyphs)

    def _chart(self, cells: Cells, row: int, width: int, height: int, text: str) -> None:
        if height >= CHARTS_LEAST:
            cells.text(row, 1 if self.framed else 0, " " + cut_wide(text, width - 1), Ink.DIM, width)
