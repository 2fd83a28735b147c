"""A screen as text that a review can read: its characters, and below them which ink every cell has.

The first part is what the terminal shows, a bar at the end of each row. The second part has a letter for the ink of
every cell; rows of nothing but the most frequent ink, which is a dot, are left out. The third part names the inks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from string import ascii_letters, digits
from typing import Any

from rich.color import Color
from rich.style import Style
from textual.app import App

MOST = "."
LETTERS = ascii_letters + digits + "".join(chr(code) for code in range(0xC0, 0x180))
"""More than any screen has inks; running out of them is a KeyError."""
FLAGS = ("bold", "dim", "italic", "underline", "reverse", "strike")


def colour(found: Color | None) -> str:
    """Name of an ANSI colour, `#rrggbb` of any other, `-` for the terminal's own."""
    if found is None or found.is_default:
        return "-"
    return found.triplet.hex if found.triplet is not None else found.name


def ink(style: Style | None) -> str:
    """Foreground, background and attributes of a cell, in words."""
    if style is None:
        return "- on -"
    flags = [flag for flag in FLAGS if getattr(style, flag)]
    return " ".join([f"{colour(style.color)} on {colour(style.bgcolor)}", *flags])


def rows(app: App[Any]) -> Iterator[tuple[str, list[str]]]:
    """Of every row its characters and the ink of each column."""
    for strip in app.screen._compositor.render_strips():
        inks = []
        for segment in strip:
            inks += [ink(segment.style)] * segment.cell_length
        yield strip.text, inks


def screen_text(app: App[Any]) -> str:
    """The screen of an app now, in the three parts above."""
    shown = list(rows(app))
    common = [name for name, _ in Counter(chain.from_iterable(inks for _, inks in shown)).most_common(1)]
    seen = dict.fromkeys(chain.from_iterable(inks for _, inks in shown))
    letters = dict(zip((name for name in seen if name not in common), LETTERS, strict=False))
    letters |= dict.fromkeys(common, MOST)
    masks = ["".join(letters[name] for name in inks) for _, inks in shown]
    lines = [f"{text}|" for text, _ in shown]
    lines += ["", *(f"{row:2} {mask.rstrip(MOST)}" for row, mask in enumerate(masks, 1) if mask.strip(MOST))]
    lines += ["", *sorted(f"{letter} {name}" for name, letter in letters.items())]
    return "\n".join(lines) + "\n"
