"""Colours: one palette, used by Textual's style sheets and by the cells that the widgets paint themselves.

Meaning is never colour alone: states have symbols, limits have a mark beside the number, series differ in brightness.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Final

from rich.color import Color
from rich.style import Style
from textual.theme import Theme

from driftline.metrics import Health

BACKGROUND: Final = "#0e1217"
SURFACE: Final = "#161b22"
SELECTION: Final = "#243244"
TEXT: Final = "#c8d0d9"
BRIGHT: Final = "#f0f4f8"
DIM: Final = "#77818d"
FRAME: Final = "#39424e"
ACCENT: Final = "#62a6f5"
GREEN: Final = "#57b86b"
YELLOW: Final = "#d9a636"
RED: Final = "#f0605a"
MAGENTA: Final = "#c39ae8"
CYAN: Final = "#6cc3d5"
GHOST: Final = "#3d5a78"
REFERENCE: Final = "#5d6570"

THEME: Final = Theme(
    name="driftline",
    primary=ACCENT,
    secondary=MAGENTA,
    accent=ACCENT,
    foreground=TEXT,
    background=BACKGROUND,
    surface=SURFACE,
    panel=SURFACE,
    success=GREEN,
    warning=YELLOW,
    error=RED,
    dark=True,
    variables={"dl-dim": DIM, "dl-frame": FRAME, "dl-bright": BRIGHT},
)


class Ink(IntEnum):
    """What a cell is for; the palette says how that looks."""

    TEXT = 0
    BRIGHT = 1
    DIM = 2
    FRAME = 3
    FOCUS = 4
    TITLE = 5
    OK = 6
    WARN = 7
    ALARM = 8
    ACCENT = 9
    LINE = 10
    SECOND = 11
    GHOST = 12
    REFERENCE = 13
    FIX_MARK = 14
    SYNC_MARK = 15
    LIMIT_WARN = 16
    LIMIT_ALARM = 17
    CURSOR = 18


SELECTED: Final = 64
"""Added to an ink: the same on the background of the selected row."""

_FOREGROUND: Final[dict[Ink, tuple[str, str, bool]]] = {
    # ink: true colour, its name on a terminal of 16 colours, bold
    Ink.TEXT: (TEXT, "white", False),
    Ink.BRIGHT: (BRIGHT, "bright_white", True),
    Ink.DIM: (DIM, "bright_black", False),
    Ink.FRAME: (FRAME, "bright_black", False),
    Ink.FOCUS: (ACCENT, "bright_blue", False),
    Ink.TITLE: (TEXT, "white", False),
    Ink.OK: (GREEN, "green", False),
    Ink.WARN: (YELLOW, "yellow", False),
    Ink.ALARM: (RED, "bright_red", True),
    Ink.ACCENT: (ACCENT, "bright_blue", False),
    Ink.LINE: (CYAN, "bright_cyan", False),
    Ink.SECOND: (MAGENTA, "magenta", False),
    Ink.GHOST: (GHOST, "blue", False),
    Ink.REFERENCE: (REFERENCE, "bright_black", False),
    Ink.FIX_MARK: (YELLOW, "yellow", False),
    Ink.SYNC_MARK: (GHOST, "blue", False),
    Ink.LIMIT_WARN: ("#5c4a1e", "yellow", False),
    Ink.LIMIT_ALARM: ("#6b2f2f", "red", False),
    Ink.CURSOR: (BRIGHT, "bright_white", False),
}

HEALTH_INK: Final[dict[Health, Ink]] = {
    "none": Ink.BRIGHT,
    "healthy": Ink.OK,
    "warn": Ink.WARN,
    "alarm": Ink.ALARM,
}


@lru_cache(maxsize=4)
def palette(sixteen: bool = False) -> tuple[Style | None, ...]:
    """Styles by ink, also by ink + SELECTED. On 16 colours the terminal's own background is kept."""
    styles: list[Style | None] = [None] * (SELECTED + len(Ink))
    for ink, (true_colour, name, bold) in _FOREGROUND.items():
        colour = Color.parse(name if sixteen else true_colour)
        ground = None if sixteen else Color.parse(BACKGROUND)
        styles[ink] = Style.from_color(colour, ground) + Style(bold=bold)
        chosen = Color.parse("blue" if sixteen else SELECTION)
        styles[SELECTED + ink] = Style.from_color(colour, chosen) + Style(bold=bold)
    return tuple(styles)
