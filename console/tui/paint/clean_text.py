"""Makes any text fit into cells: one line, nothing invisible, nothing that bleeds into its neighbours.

Frames were made safe when they were decoded (`driftline.text`); this guards the geometry of the grid, and what does not
come in frames: names of runs, paths, error messages.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_REPLACEMENT: Final = "\N{MIDDLE DOT}"
_SPACES: Final = frozenset("\t\n\r\v\f\x85\u2028\u2029")
# Cc: C0, DEL, C1. Cf: bidi controls, zero-width joiners, tags. Cs: lone surrogates, which no terminal can be sent.
# Co and Cn have no agreed width. Zl and Zp are in _SPACES.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def clean(text: str) -> str:
    """`text` as one printable line: white space to single cells, everything invisible to a middle dot.

    Combining marks are replaced too: stacked without end they bleed over the neighbouring lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_safe(char) for char in text)


def _safe(char: str) -> str:
    if char in _SPACES:
        return " "
    category = unicodedata.category(char)
    return _REPLACEMENT if category in _HIDDEN or category in ("Mn", "Me") else char
