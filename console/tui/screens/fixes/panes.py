"""The panes of the fixes screen: the table, one fix in full, and who did what."""

from __future__ import annotations

import textwrap
from typing import Final

from console.store.model import RunModel
from console.tui.paint.cells import Text
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.present import corrections
from console.tui.present.corrections import CorrectionView
from console.tui.screens.fixes import view as views
from console.tui.screens.fixes.view import Entry, FixView
from console.tui.widgets.pane import Pane
from console.tui.widgets.scrolled import ScrolledPane

NAME: Final = 20
STATE: Final = 12
SINCE: Final = 6
BY: Final = 8
LAYER: Final = 20
EFFECT: Final = 35
"""Cells for an effect with its interval and how many fixes changed with it."""
NARROW: Final = 60
"""Columns below which an entry of the audit has two lines."""
AUDIT_WHO: Final = 3
"""Parts of an entry's line before what was done: when, who, how it ended."""
WIDE: Final = 110
"""Columns from which every column has room, the effect last; below it comes before who did it and since when."""


class FixTable(Pane):
    """Every fix as a row, under a line that says which helps most. The cursor stays on its fix in another order."""

    title = "fixes"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.views: list[FixView] = []
        self.correction: CorrectionView | None = None
        self.word = ""
        self.over = False
        self.cursor = 0

    def show(self, shown: list[FixView], word: str, correction: CorrectionView, *, over: bool = False) -> None:
        """Take the rows, the word for the metric of their effects, and the row below them.

        `over`: nothing can be switched any more.
        """
        self.over = over
        chosen = self.chosen
        self.views, self.word, self.correction = shown, word, correction
        self.cursor = next((i for i, view in enumerate(shown) if view.id == chosen), self.cursor)
        self.repaint()

    @property
    def chosen(self) -> str | None:
        """Id of the fix under the cursor; None for the correction below them, and before there is anything."""
        return self.views[self.cursor].id if self.cursor < len(self.views) else None

    @property
    def on_correction(self) -> bool:
        """Whether the cursor stands on the row below the fixes."""
        return bool(self.views) and self.cursor == len(self.views)

    def label(self) -> str:
        on = sum(view.row.symbol[0] == self.glyphs.on for view in self.views)
        # Said here too: the footer of a small screen has no room for these keys.
        return f"{on} on; o order, v metric" if self.views else ""

    def selected(self) -> int | None:
        return self.cursor + 2

    def move(self, direction: str) -> bool:
        step = {"up": -1, "down": 1}.get(direction, 0)
        if step == 0 or not 0 <= self.cursor + step <= len(self.views):
            return False
        self.cursor += step
        self.repaint()
        return True

    def lines(self, width: int, height: int) -> list[list[Text]]:  # noqa: ARG002  clipped where painted
        text, ink = views.verdict(self.views, self.word, over=self.over)
        since, by = f"{'since':<{SINCE}}", f"{'by':<{BY}}"
        measured = f"Δ {self.word} (95 %)"
        head = f"   {'fix':<{NAME}} {'engines':<{STATE}}"
        if width >= WIDE:
            head += f"{since}{by}{'layer':<{LAYER}}{measured}"
        else:
            # The effect is what one comes for: who and since when have what it leaves, and stand below in full.
            room = width - len(head) - EFFECT
            head += f"{measured:<{EFFECT}}{since if room >= SINCE else ''}{by if room >= SINCE + BY else ''}"
        lines: list[list[Text]] = [[(f" {text}", ink)], [(head, Ink.DIM)]]
        lines += [self._line(view, width) for view in self.views]
        if self.correction is not None:
            lines.append(corrections.line(self.correction, self.glyphs, NAME, STATE, narrow=width < WIDE))
        return lines

    def _line(self, view: FixView, width: int) -> list[Text]:
        row = view.row
        line: list[Text] = [(" ", Ink.TEXT), row.symbol, (f" {row.fix.title:<{NAME}.{NAME}} ", Ink.TEXT)]
        if row.symbol[0] == self.glyphs.unavailable:
            # Nothing was measured or switched: the room is for why.
            return [*line, (row.note[0], Ink.DIM)]
        line.append((f"{row.state[0]:<{STATE}}", row.state[1]))
        effect = [view.effect, *([(f"  {self.glyphs.on} most", Ink.OK)] if view.best else [])]
        settled = row.symbol[0] != self.glyphs.partial
        if width >= WIDE:
            if settled:
                line += [(f"{row.since:<{SINCE}}", Ink.DIM), (f"{row.note[0]:<{BY}.{BY}}", Ink.DIM)]
            else:
                line.append((f"{row.note[0]:<{SINCE + BY}}", row.note[1]))
                if len(row.note[0]) > SINCE + BY:
                    # What is waited for goes on under the layer, which never changes.
                    line.append((" " * max(SINCE + BY + LAYER - len(row.note[0]), 2), Ink.DIM))
                    return [*line, *effect]
            return [*line, (f"{row.fix.layer:<{LAYER}.{LAYER}}", Ink.DIM), *effect]
        room = width - _length(line)
        if not settled:
            # What is waited for first; what was measured before it beside that, whole or not at all.
            both = [(f"{row.note[0]}  ", row.note[1]), view.effect]
            return [*line, *(both if view.gain is not None and _length(both) <= room else [row.note])]
        if _length(effect) > min(room, EFFECT):
            effect = [view.effect]
        line += [*effect, (" " * max(EFFECT - _length(effect), 1), Ink.DIM)]
        if room - EFFECT >= SINCE:
            line.append((f"{row.since:<{SINCE}}", Ink.DIM))
        if room - EFFECT >= SINCE + BY:
            line.append((f"{row.note[0]:<{BY}.{BY}}", Ink.DIM))
        return line


def _length(line: list[Text]) -> int:
    return sum(len(text) for text, _ in line)


class Detail(ScrolledPane):
    """The chosen fix or correction, in full."""

    title = "chosen"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self._rows: list[list[Text]] = []

    def show(self, title: str, rows: list[list[Text]]) -> None:
        """Take what to show; another title starts at its first line."""
        if title != self.title:
            self.title, self.top = title, 0
        self._rows = rows
        self.repaint()

    @property
    def count(self) -> int:
        return len(self._wrapped(self.room[0]))

    def label(self) -> str:
        below = self.count - self.top - self.room[1]
        return f"{below} more below" if below > 0 else ""

    def lines(self, width: int, height: int) -> list[list[Text]]:
        lines = self._wrapped(width)
        top = max(min(self.top, len(lines) - height), 0)
        return lines[top : top + height]

    def _wrapped(self, width: int) -> list[list[Text]]:
        """Rows of a label and one text are wrapped under their text; others are whole already."""
        lines: list[list[Text]] = []
        for row in self._rows:
            if len(row) != 2 or sum(len(text) for text, _ in row) <= width:
                lines.append(row)
                continue
            (label, label_ink), (text, ink) = row
            parts = textwrap.wrap(text, max(width - len(label) - 1, 10)) or [""]
            lines.append([(label, label_ink), (parts[0], ink)])
            lines += [[(" " * len(label), Ink.DIM), (part, ink)] for part in parts[1:]]
        return lines


class Audit(ScrolledPane):
    """Commands and how they ended, newest first; scrolled with up and down."""

    title = "who did what"

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.entries: list[Entry] = []

    def show(self, model: RunModel) -> None:
        """Take the commands of a run. A view that is scrolled stays on its entries."""
        entries = views.audit(model)
        if self.top:
            self.top = max(min(self.top + len(entries) - len(self.entries), len(entries) - 1), 0)
        self.entries = entries
        self.repaint()

    @property
    def count(self) -> int:
        return len(self.entries)

    def label(self) -> str:
        refused = sum(entry.state in ("refused", "failed", "expired") for entry in self.entries)
        bad = f", {refused} refused or failed" if refused else ""
        return f"{len(self.entries)}{bad}" if self.entries else ""

    def lines(self, width: int, height: int) -> list[list[Text]]:
        if not self.entries:
            return [[(" no one has acted on this run", Ink.DIM)]]
        shown = [views.audit_line(entry, width) for entry in self.entries[self.top : self.top + height]]
        if width >= NARROW:
            return shown
        # The action below its issuer: there is no room for both beside each other.
        return [part for line in shown for part in (line[:AUDIT_WHO], [("   ", Ink.DIM), *line[AUDIT_WHO:]])][:height]
