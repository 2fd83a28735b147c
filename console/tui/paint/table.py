"""Tables of cells: which columns fit, and a row of them. Pure.

A narrow screen has fewer columns, not halves of them: those of the highest rank are left out first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from console.tui.paint.cells import Text
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut


@dataclass(frozen=True)
class Column:
    """`width` cells under `title`, on the right side of them for numbers; `grows` takes what room is left."""

    id: str
    title: str
    width: int
    rank: int = 0
    right: bool = False
    grows: bool = False


def choose(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that fit into `width` with a cell between them, in their order."""
    kept = list(columns)
    while len(kept) > 1 and sum(column.width + 1 for column in kept) > width:
        kept.remove(max(kept, key=lambda column: column.rank))
    spare = width - sum(column.width + 1 for column in kept)
    growing = [column for column in kept if column.grows]
    if spare <= 0 or not growing:
        return kept
    wider = {column.id: column.width + spare // len(growing) for column in growing}
    return [
        Column(column.id, column.title, wider.get(column.id, column.width), column.rank, column.right, column.grows)
        for column in kept
    ]


def head(columns: Sequence[Column]) -> list[Text]:
    """The titles."""
    return [(_fitted(column, column.title), Ink.DIM) for column in columns]


def row(columns: Sequence[Column], cells: Mapping[str, Text]) -> list[Text]:
    """One line; a column without a cell is blank."""
    return [(_fitted(column, text), ink) for column in columns for text, ink in [cells.get(column.id, ("", Ink.TEXT))]]


def _fitted(column: Column, text: str) -> str:
    text = cut(text, column.width)
    return f"{text:>{column.width}} " if column.right else f"{text:<{column.width}} "


def flow(chunks: Sequence[Sequence[Text]], width: int, indent: int = 1) -> list[list[Text]]:
    """Pieces of a line, two cells apart, on as many lines as they need.

    A piece is broken only where it is longer than a line, and then between words.
    """
    lines: list[list[Text]] = []
    used = width
    for chunk in chunks:
        length = sum(len(text) for text, _ in chunk)
        if lines and used + 2 + length <= width:
            lines[-1].append(("  ", Ink.TEXT))
            lines[-1] += chunk
            used += 2 + length
            continue
        lines += [[(" " * indent, Ink.TEXT), *part] for part in _broken(chunk, width - indent)]
        # What took several lines has its last one to itself: what follows would read as a part of it.
        used = indent + length if indent + length <= width else width
    return lines


def _broken(chunk: Sequence[Text], width: int) -> list[list[Text]]:
    """A piece on lines of at most `width` cells."""
    if sum(len(text) for text, _ in chunk) <= width:
        return [list(chunk)]
    lines: list[list[Text]] = [[]]
    used = 0
    for text, ink in chunk:
        for word in re.findall(r"\s*\S+\s*$|\s*\S+", text):
            if used + len(word) > width and used:
                lines.append([])
                word, used = word.lstrip(), 0
            piece = cut(word, width)
            lines[-1].append((piece, ink))
            used += len(piece)
    return lines
