"""Looks: what colour each kind of cell has. Used by Textual's style sheets and by the cells that the widgets paint.

Meaning is never colour alone: states have symbols, limits have a mark beside the number, series differ in brightness,
another run's line is dashed. So each look may choose its colours freely, and `mono` has none at all.

Contrast is WCAG 2.1's ratio to the background, checked by tests/tui/test_theme.py: 4.5 for words that must be read,
3 for dim words and for lines that carry numbers; frames, ghosts and limits are decoration and only have to be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import msgspec
from rich.color import Color
from rich.style import Style
from textual.theme import BUILTIN_THEMES, Theme

from driftline.catalog.metrics import Health


class Ink(IntEnum):
    """The meaning of a cell; a look gives it colours."""

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
    OVERLAY = 19


SELECTED: Final = 64
"""Added to an ink: the same on the background of the selected row."""

_ROLES: Final[dict[Ink, tuple[str, bool]]] = {
    # ink: the field of Colours that it takes, bold
    Ink.TEXT: ("text", False),
    Ink.BRIGHT: ("bright", True),
    Ink.DIM: ("dim", False),
    Ink.FRAME: ("frame", False),
    Ink.FOCUS: ("accent", False),
    Ink.TITLE: ("text", False),
    Ink.OK: ("ok", False),
    Ink.WARN: ("warn", False),
    Ink.ALARM: ("alarm", True),
    Ink.ACCENT: ("accent", False),
    Ink.LINE: ("line", False),
    Ink.SECOND: ("second", False),
    Ink.GHOST: ("ghost", False),
    Ink.REFERENCE: ("reference", False),
    Ink.FIX_MARK: ("fix_mark", False),
    Ink.SYNC_MARK: ("ghost", False),
    Ink.LIMIT_WARN: ("limit_warn", False),
    Ink.LIMIT_ALARM: ("limit_alarm", False),
    Ink.CURSOR: ("cursor", False),
    Ink.OVERLAY: ("overlay", False),
}

HEALTH_INK: Final[dict[Health, Ink]] = {
    "none": Ink.BRIGHT,
    "healthy": Ink.OK,
    "warn": Ink.WARN,
    "alarm": Ink.ALARM,
}


class Colours(msgspec.Struct, frozen=True, kw_only=True):
    """True colours as #rrggbb, or the names that Rich has for the sixteen of a terminal."""

    background: str
    surface: str
    selection: str
    text: str
    bright: str
    dim: str
    frame: str
    accent: str
    ok: str
    warn: str
    alarm: str
    line: str
    second: str
    overlay: str
    ghost: str
    reference: str
    fix_mark: str
    limit_warn: str
    limit_alarm: str
    cursor: str


class Look(msgspec.Struct, frozen=True):
    """One look. `sixteen` names the look that stands in for it on a terminal of 16 colours.

    With `ansi` the terminal's own background is kept and the colours are names; `attributes` are used instead of
    colours where there are no `colours`.
    """

    name: str
    about: str
    dark: bool
    sixteen: str
    colours: Colours | None
    ansi: bool = False
    attributes: Mapping[Ink, str] = msgspec.field(default_factory=dict)

    @property
    def theme(self) -> str:
        """The name of its theme in Textual."""
        return f"driftline-{self.name}"


DARK: Final = Look(
    "dark",
    "true colours on a dark ground",
    True,
    "dark-16",
    Colours(
        background="#0e1217", surface="#161b22", selection="#243244",
        text="#c8d0d9", bright="#f0f4f8", dim="#77818d", frame="#39424e", accent="#62a6f5",
        ok="#57b86b", warn="#d9a636", alarm="#f0605a",
        line="#6cc3d5", second="#c39ae8", overlay="#e8a27c", ghost="#3d5a78", reference="#5d6570",
        fix_mark="#d9a636", limit_warn="#5c4a1e", limit_alarm="#6b2f2f", cursor="#f0f4f8",
    ),
)  # fmt: skip

LIGHT: Final = Look(
    "light",
    "true colours on a light ground",
    False,
    "light-16",
    Colours(
        background="#fbfcfd", surface="#eef1f4", selection="#d6e6fa",
        text="#24292f", bright="#05080c", dim="#626b75", frame="#b4bcc5", accent="#0b5fc0",
        ok="#19702f", warn="#855300", alarm="#c01f1f",
        line="#00707f", second="#7a45c4", overlay="#b24a0c", ghost="#8fb0cf", reference="#8a939d",
        fix_mark="#a06a00", limit_warn="#cfa544", limit_alarm="#dd8f8f", cursor="#05080c",
    ),
)  # fmt: skip

# The eight colours of M. Okabe and K. Ito, "Color Universal Design" (2008), were chosen to stay apart for people
# without the red, the green or the blue cones. Good and bad are bluish green and vermillion, which differ in blue and
# in brightness and not in red against green only; a warning is yellow, the brightest of all. Lines are sky blue,
# reddish purple and orange. Blue (#0072b2) is too dark for words on this ground and is decoration here, as is the
# ghost under a line. What is neither stays grey.
OKABE_ITO: Final = Look(
    "okabe-ito",
    "colour-blind safe: the palette of Okabe and Ito on a dark ground",
    True,
    "dark-16",
    Colours(
        background="#0b0e12", surface="#161b22", selection="#1f2b3a",
        text="#d0d5da", bright="#ffffff", dim="#8a939d", frame="#46505c", accent="#56b4e9",
        ok="#009e73", warn="#f0e442", alarm="#e06a10",
        line="#56b4e9", second="#cc79a7", overlay="#e69f00", ghost="#0072b2", reference="#6b747f",
        fix_mark="#f0e442", limit_warn="#6b651f", limit_alarm="#7a3a08", cursor="#ffffff",
    ),
)  # fmt: skip

CONTRAST: Final = Look(
    "contrast",
    "high contrast: at least 7 to 1 for every word, on black",
    True,
    "dark-16",
    Colours(
        background="#000000", surface="#000000", selection="#00347a",
        text="#ffffff", bright="#ffffff", dim="#c8c8c8", frame="#8c8c8c", accent="#7cc4ff",
        ok="#4dff88", warn="#ffe100", alarm="#ff8a80",
        line="#5fffff", second="#ffa6ff", overlay="#ffb454", ghost="#5f87af", reference="#9a9a9a",
        fix_mark="#ffe100", limit_warn="#8f7d00", limit_alarm="#b34a44", cursor="#ffffff",
    ),
)  # fmt: skip

DARK_16: Final = Look(
    "dark-16",
    "the sixteen colours of a terminal with a dark ground",
    True,
    "dark-16",
    Colours(
        background="default", surface="default", selection="blue",
        text="white", bright="bright_white", dim="bright_black", frame="bright_black", accent="bright_blue",
        ok="green", warn="yellow", alarm="bright_red",
        line="bright_cyan", second="magenta", overlay="bright_yellow", ghost="blue", reference="bright_black",
        fix_mark="yellow", limit_warn="yellow", limit_alarm="red", cursor="bright_white",
    ),
    ansi=True,
)  # fmt: skip

# On white only black, blue, red, magenta and grey can be read in the palettes of xterm and VGA: yellow, green and cyan
# are below 3 to 1 and not used for words.
LIGHT_16: Final = Look(
    "light-16",
    "the sixteen colours of a terminal with a light ground",
    False,
    "light-16",
    Colours(
        background="default", surface="default", selection="bright_cyan",
        text="black", bright="black", dim="bright_black", frame="bright_black", accent="blue",
        ok="blue", warn="magenta", alarm="red",
        line="blue", second="magenta", overlay="red", ghost="cyan", reference="bright_black",
        fix_mark="magenta", limit_warn="magenta", limit_alarm="red", cursor="black",
    ),
    ansi=True,
)  # fmt: skip

MONO: Final = Look(
    "mono",
    "no colours at all: bold, dim, underlined and reversed",
    True,
    "mono",
    None,
    ansi=True,
    attributes=MappingProxyType(
        {
            Ink.BRIGHT: "bold",
            Ink.DIM: "dim",
            Ink.FRAME: "dim",
            Ink.FOCUS: "bold",
            Ink.WARN: "underline",
            Ink.ALARM: "bold underline",
            Ink.ACCENT: "bold",
            Ink.LINE: "bold",
            Ink.GHOST: "dim",
            Ink.REFERENCE: "dim",
            Ink.SYNC_MARK: "dim",
            Ink.LIMIT_WARN: "dim",
            Ink.LIMIT_ALARM: "dim",
        }
    ),
)

LOOKS: Final[dict[str, Look]] = {
    look.name: look for look in (DARK, LIGHT, OKABE_ITO, CONTRAST, DARK_16, LIGHT_16, MONO)
}
AUTO: Final = "auto"
"""Names no look but the choice of one: by NO_COLOR and by the number of the terminal's colours."""

THEMES: Final = (AUTO, *LOOKS)
"""The names that an operator may choose from."""


def choose(name: str, *, sixteen: bool, environ: Mapping[str, str]) -> Look:
    """The look to start with: `name`, or what stands in for it on a terminal of 16 colours.

    `auto` is dark, without colours where $NO_COLOR says so (no-color.org), and on 16 colours of the brightness that
    $COLORFGBG reports. Raises KeyError for an unknown name.
    """
    if name != AUTO:
        look = LOOKS[name]
        return LOOKS[look.sixteen] if sixteen else look
    if environ.get("NO_COLOR"):
        return MONO
    if not sixteen:
        return DARK
    # "foreground;background", set by rxvt, konsole and others: 7 and 15 are the two whites.
    ground = environ.get("COLORFGBG", "").rpartition(";")[2]
    return LIGHT_16 if ground in ("7", "15") else DARK_16


def theme(look: Look) -> Theme:
    """The look for Textual's own style sheets."""
    c = look.colours
    if c is None or look.ansi:
        ground = "ansi_default"
        # Textual's own style sheets name variables that it has in its own ANSI themes only; nothing of ours uses them.
        names = BUILTIN_THEMES["ansi-dark"].variables
        theirs = {name: "none" if name.endswith("-style") else ground for name in names}
        return Theme(
            name=look.theme, primary=ground, foreground=ground, background=ground, surface=ground, panel=ground,
            boost=ground, dark=look.dark, ansi=True,
            variables=theirs | {"dl-dim": ground, "dl-frame": ground, "dl-bright": ground},
        )  # fmt: skip
    return Theme(
        name=look.theme,
        primary=c.accent,
        secondary=c.second,
        accent=c.accent,
        foreground=c.text,
        background=c.background,
        surface=c.surface,
        panel=c.surface,
        success=c.ok,
        warning=c.warn,
        error=c.alarm,
        dark=look.dark,
        variables={"dl-dim": c.dim, "dl-frame": c.frame, "dl-bright": c.bright},
    )


@lru_cache(maxsize=len(LOOKS))
def palette(name: str = DARK.name) -> tuple[Style | None, ...]:
    """Styles by ink, also by ink + SELECTED, of the look of that name; always the same object for the same look."""
    look = LOOKS[name]
    styles: list[Style | None] = [None] * (SELECTED + len(Ink))
    for ink in Ink:
        if look.colours is None:
            plain = Style.parse(look.attributes.get(ink, "")) + Style.from_color(Color.default(), Color.default())
            styles[ink], styles[SELECTED + ink] = plain, plain + Style(reverse=True)
            continue
        role, bold = _ROLES[ink]
        colour = Color.parse(getattr(look.colours, role))
        ground = None if look.ansi else Color.parse(look.colours.background)
        styles[ink] = Style.from_color(colour, ground) + Style(bold=bold)
        chosen = Color.parse(look.colours.selection)
        styles[SELECTED + ink] = Style.from_color(colour, chosen) + Style(bold=bold)
    return tuple(styles)
