"""The characters a screen is drawn with. All are one cell wide; `ascii` is for fonts and consoles without the rest."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint32]


def _braille() -> Codes:
    # Unicode numbers the dots 1-3 down the left, 4-6 down the right, 7 and 8 below; our bits go row by row.
    dots = (0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80)
    bits = np.arange(256, dtype=np.uint32)
    codes = np.full(256, 0x2800, np.uint32)
    for position, dot in enumerate(dots):
        codes |= np.where(bits >> position & 1, np.uint32(dot), np.uint32(0))
    return codes


def _codes(text: str) -> Codes:
    return np.array([ord(char) for char in text], np.uint32)


class Marker(msgspec.Struct, frozen=True, eq=False):
    """The coding of dots as characters: `wide` x `high` dots a cell, `codes[bits]` the code point.

    Bit `row * wide + column` is the dot at that place, counted from the top left.
    """

    wide: int
    high: int
    codes: Codes


class Glyphs(msgspec.Struct, frozen=True, eq=False):
    """One look: the chart's marker, frames and symbols."""

    name: str
    marker: Marker
    corners: str  # top left, top right, bottom left, bottom right
    horizontal: str
    vertical: str
    mark: str
    limit: str
    gap: str
    on: str
    off: str
    partial: str
    unavailable: str
    pointer: str
    arrow: str
    ellipsis: str = "…"
    """Last of what there is room for, where a text goes on."""


_BRAILLE: Final = Marker(2, 4, _braille())
_BLOCK: Final = Marker(2, 2, _codes(" ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"))
_ASCII: Final = Marker(1, 2, _codes(" '.:"))

GLYPHS: Final[dict[str, Glyphs]] = {
    "braille": Glyphs("braille", _BRAILLE, "╭╮╰╯", "─", "│", "┊", "┈", "×", "●", "○", "◐", "–", "▸", "→"),
    "block": Glyphs("block", _BLOCK, "┌┐└┘", "─", "│", "│", "-", "x", "●", "○", "◐", "–", ">", "→"),
    "ascii": Glyphs("ascii", _ASCII, "++++", "-", "|", "|", "-", "x", "*", "o", "~", "-", ">", ">", ellipsis=">"),
}
