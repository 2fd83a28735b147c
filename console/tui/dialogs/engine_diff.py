"""What differs between the engines' configurations, by groups of engines that are set alike."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Final

from console.status.engine_config import NOT_REPORTED, Differences, unreported
from console.tui.dialogs.dialog import Dialog, Row
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink

NAMES: Final = 3
"""Lines of names of a group: `driftline status --engines` lists all."""


class EngineDiffScreen(Dialog[None]):
    """Only what differs; scrolled where it is more than fits."""

    hint = "esc close"
    preferred_width = 96

    def __init__(self, glyphs: Glyphs, found: Differences, again: Callable[[], Differences]) -> None:
        """`again` is asked with every tick, the model's lock held: engines join while the dialog is open."""
        super().__init__(glyphs)
        self._found, self._again = found, again
        self._scrolled = 0

    @property
    def heading(self) -> str:  # type: ignore[override]  # it counts
        count = self._found.engines
        return f"what differs between {count:,} engines" if count > 1 else "what differs between engines"

    def tick(self) -> None:
        self._found = self._again()
        super().tick()

    def lines(self, width: int) -> list[Row]:
        return difference_lines(self._found, width)

    def top(self, height: int) -> int:
        box = self.box.size.width - 4
        self._scrolled = max(min(self._scrolled, len(self.lines(box)) - height), 0)
        return self._scrolled

    def action_line(self, step: int) -> None:
        self._scrolled = max(self._scrolled + step, 0)
        self.box.repaint()


def difference_lines(found: Differences, width: int) -> list[Row]:
    """By key how many engines have which value; then the groups, the largest first, with the names of their engines."""
    if found.engines < 2:
        return [[("one engine, or none, has reported: there is nothing to compare", Ink.DIM)]]
    lines: list[Row] = []
    if not found.keys:
        same = ", ".join(f"{key} {value}" for key, value in found.same.items())
        lines += [[("nothing: all are set alike", Ink.OK)], [], *_folded(f"all have {same}", width, Ink.DIM)]
    wide = max((len(key) for key in found.keys), default=0)
    for key in found.keys:
        said = ";  ".join(f"{count} of {found.engines} {value}" for value, count in found.counts(key))
        parts = textwrap.wrap(said, max(width - wide - 2, 20), break_on_hyphens=False) or [""]
        lines.append([(f"{key:<{wide}}  ", Ink.DIM), (parts[0], Ink.BRIGHT)])
        lines += [[(f"{'':<{wide}}  ", Ink.DIM), (part, Ink.BRIGHT)] for part in parts[1:]]
    for group in found.groups if found.keys else ():
        head = f"{len(group.engines)} of {found.engines}"
        names = textwrap.wrap(
            group.names, max(width - len(head) - 2, 20), max_lines=NAMES, placeholder=" …", break_on_hyphens=False
        )
        lines += [[], [(f"{head}  ", Ink.ACCENT), (names[0], Ink.TEXT)]]
        lines += [[(f"{'':<{len(head)}}  ", Ink.DIM), (part, Ink.TEXT)] for part in names[1:]]
        values = "; ".join(f"{key} {value}" for key, value in group.values.items() if value != NOT_REPORTED)
        lines += _folded(values or "none of it is reported", width, Ink.DIM, "    ")
    for engines, keys in found.silent:
        lines += [[], *_folded(unreported(found, engines, keys), width, Ink.DIM)]
    return lines


def _folded(text: str, width: int, ink: Ink, indent: str = "") -> list[Row]:
    parts = textwrap.wrap(text, max(width, 20), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return [[(part, ink)] for part in parts]
