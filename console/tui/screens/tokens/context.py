"""A token among its neighbours: the pieces of its sequence, wrapped, each in the colour and marks of its difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from rich.cells import cell_len

from console.store.tokens.ring import Token, TokenStore
from console.tui.paint.cells import Text
from console.tui.paint.clean_text import clean
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import SELECTED, Ink
from console.tui.paint.units import cut_wide
from console.tui.paint.units import version as weights
from console.tui.screens.tokens.view import INKS, level, marks


@dataclass(frozen=True)
class Unit:
    """A unit that is not broken at the end of a line: a token with its marks, or where another version took over."""

    text: str
    ink: int
    row: int = -1


def units(store: TokenStore, token: Token, glyphs: Glyphs, room: int) -> tuple[list[Unit], int, int]:
    """The tokens around one of them, and how many there are before and after these; `room` is in cells."""
    sequence = token.sequence
    first, end = sequence.first, sequence.first + sequence.count
    # Every token takes a cell at least. The window moves by its own length, so that lines break where they did.
    pace = max(room, 1)
    window = (token.row - first) // pace
    start, stop = first + max(window - 1, 0) * pace, min(first + (window + 2) * pace, end)
    diffs = store.rows("diff", start, stop).tolist()
    versions = store.rows("version", start, stop).tolist()
    pieces = store.pieces(sequence.number, start, stop)
    ids = [] if pieces else store.rows("id", start, stop).tolist()
    wide = max(room // 4, 8)
    made: list[Unit] = []
    before: int | None = None
    for at, (diff, version) in enumerate(zip(diffs, versions, strict=True)):
        if version != before:
            made.append(Unit(f"{glyphs.vertical}{weights(version)}{glyphs.vertical}", Ink.ACCENT))
            before = version
        text = _shown(pieces[at], glyphs) if pieces else f"{ids[at]}"
        text = cut_wide(text, wide) if len(text) * 2 > wide else clean(text)
        high = level(abs(diff))
        left, right = marks(glyphs)[high]
        chosen = start + at == token.row
        if chosen:
            left, right = f"[{left}", f"{right}]"
        ink: int = INKS[high]
        made.append(Unit(f"{left}{text}{right}", ink | SELECTED if chosen else ink, start + at))
        if not pieces:
            made.append(Unit(" ", Ink.DIM))
    return made, start - first, end - stop


def _shown(piece: str, glyphs: Glyphs) -> str:
    """A piece as it stands in its text; what would not be seen is made visible."""
    if not piece:
        return '""'
    if piece.isspace():
        return ("_" if glyphs.name == "ascii" else "␣") * min(len(piece), 8)
    return piece


def wrapped(made: list[Unit], width: int) -> tuple[list[list[Unit]], int]:
    """Units in lines of at most `width` cells, and the line that the chosen one is in."""
    lines: list[list[Unit]] = [[]]
    used, chosen = 0, 0
    for unit in made:
        size = cell_len(unit.text)
        if used + size > width and lines[-1]:
            lines.append([])
            used = 0
        lines[-1].append(unit)
        used += size
        if unit.ink >= SELECTED:
            chosen = len(lines) - 1
    return lines, chosen


def context(store: TokenStore, token: Token, glyphs: Glyphs, width: int, height: int) -> list[list[Text]]:
    """At most `height` lines of at most `width` cells around a token, its own in the middle where there are more."""
    if height < 1 or width < 4:
        return []
    made, before, after = units(store, token, glyphs, width * height)
    lines, chosen = wrapped(made, width - 1)
    top = min(max(chosen - height // 2, 0), max(len(lines) - height, 0))
    shown: list[list[Text]] = [
        [(" ", Ink.TEXT), *((unit.text, cast("Ink", unit.ink)) for unit in line)] for line in lines[top : top + height]
    ]
    if (top or before) and shown and chosen != top:
        shown[0] = [(f" {cut_wide('… earlier tokens', width - 2)}", Ink.DIM)]
    if (top + height < len(lines) or after) and len(shown) > 1 and chosen != top + len(shown) - 1:
        shown[-1] = [(f" {cut_wide('… later tokens', width - 2)}", Ink.DIM)]
    return shown


def plain(store: TokenStore, token: Token, glyphs: Glyphs) -> str:
    """All of a sequence with its marks, as text."""
    made, _, _ = units(store, token, glyphs, max(token.sequence.count, 1))
    return "".join(unit.text for unit in made)
