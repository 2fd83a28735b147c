"""The looks, measured: contrast by the formula of WCAG 2.1, and colours that stay apart for who sees fewer of them."""

from __future__ import annotations

import itertools

import pytest
from rich.color import Color

from console.tui.paint.theme import LOOKS, SELECTED, THEMES, Ink, choose, palette

WORDS = (Ink.TEXT, Ink.BRIGHT, Ink.TITLE, Ink.OK, Ink.WARN, Ink.ALARM, Ink.ACCENT, Ink.FOCUS)
"""Must be read: 4.5."""
QUIET = (Ink.DIM, Ink.LINE, Ink.SECOND, Ink.OVERLAY, Ink.CURSOR, Ink.FIX_MARK)
"""Dim words and lines that carry numbers: 3."""
SEEN = (Ink.FRAME, Ink.GHOST, Ink.REFERENCE, Ink.LIMIT_WARN, Ink.LIMIT_ALARM, Ink.SYNC_MARK)
"""Decoration: only has to be there."""

XTERM = {
    "black": (0, 0, 0), "red": (205, 0, 0), "green": (0, 205, 0), "yellow": (205, 205, 0), "blue": (0, 0, 238),
    "magenta": (205, 0, 205), "cyan": (0, 205, 205), "white": (229, 229, 229), "bright_black": (127, 127, 127),
    "bright_red": (255, 0, 0), "bright_green": (0, 255, 0), "bright_yellow": (255, 255, 0),
    "bright_blue": (92, 92, 255), "bright_magenta": (255, 0, 255), "bright_cyan": (0, 255, 255),
    "bright_white": (255, 255, 255),
}  # fmt: skip
"""xterm's own sixteen, the palette that most terminals started from."""

RGB = tuple[float, float, float]


def linear(rgb: RGB) -> RGB:
    r, g, b = ((c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4) for c in (part / 255 for part in rgb))
    return r, g, b


def luminance(rgb: RGB) -> float:
    r, g, b = linear(rgb)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: RGB, other: RGB) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def rgb(colour: Color | None, *, dark: bool) -> RGB:
    if colour is None or colour.is_default:
        return (0, 0, 0) if dark else (255, 255, 255)
    if colour.triplet is not None:
        return tuple(colour.triplet)  # type: ignore[return-value]
    return XTERM[colour.name]


def pair(name: str, ink: int) -> tuple[RGB, RGB]:
    style, dark = palette(name)[ink], LOOKS[name].dark
    assert style is not None
    return rgb(style.color, dark=dark), rgb(style.bgcolor, dark=dark)


COLOURED = [name for name, look in LOOKS.items() if look.colours is not None]


def test_the_formula_is_that_of_wcag():
    assert contrast((255, 255, 255), (0, 0, 0)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("name", COLOURED)
def test_words_can_be_read(name: str):
    sixteen = LOOKS[name].ansi
    for inks, least in ((WORDS, 3.0 if sixteen else 4.5), (QUIET, 3.0), (SEEN, 1.3)):
        for ink in inks:
            # What a terminal's sixteen look like is its own: xterm's are held against the limit of large words.
            if sixteen and ink in SEEN:
                continue
            assert contrast(*pair(name, ink)) >= least, (name, ink.name, round(contrast(*pair(name, ink)), 2))


@pytest.mark.parametrize("name", [name for name in COLOURED if not LOOKS[name].ansi])
def test_words_can_be_read_in_the_selected_row(name: str):
    for ink in (Ink.TEXT, Ink.BRIGHT, Ink.TITLE):
        assert contrast(*pair(name, SELECTED + ink)) >= 4.5, (name, ink.name)
    for ink in (*WORDS, Ink.DIM):
        assert contrast(*pair(name, SELECTED + ink)) >= 3, (name, ink.name, contrast(*pair(name, SELECTED + ink)))


def test_high_contrast_is_high():
    for ink in (*WORDS, Ink.DIM):
        assert contrast(*pair("contrast", ink)) >= 7, ink.name


# Vienot, Brettel, Mollon 1999: linear RGB as people without the long or the middle cones have it.
PROTAN = ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0))
DEUTAN = ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0))


def lab(rgb_: RGB) -> RGB:
    """CIE Lab (D65) of linear RGB."""
    r, g, b = rgb_
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089
    fx, fy, fz = ((t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116) for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def apart(one: RGB, other: RGB, cones: tuple[tuple[float, ...], ...]) -> float:
    seen = []
    for colour in (one, other):
        raw = linear(colour)
        r, g, b = (min(max(sum(w * c for w, c in zip(row, raw, strict=True)), 0.0), 1.0) for row in cones)
        seen.append(lab((r, g, b)))
    return sum((a - b) ** 2 for a, b in zip(*seen, strict=True)) ** 0.5


@pytest.mark.parametrize("cones", [PROTAN, DEUTAN], ids=["protan", "deutan"])
def test_okabe_ito_stays_apart_without_red_or_green(cones: tuple[tuple[float, ...], ...]):
    for group in ((Ink.OK, Ink.WARN, Ink.ALARM), (Ink.LINE, Ink.SECOND, Ink.OVERLAY)):
        for one, other in itertools.combinations(group, 2):
            distance = apart(pair("okabe-ito", one)[0], pair("okabe-ito", other)[0], cones)
            assert distance >= 20, (one.name, other.name, round(distance, 1))


def test_mono_has_no_colour_and_still_tells_apart():
    styles = palette("mono")
    for style in styles:
        assert style is None or (style.color is not None and style.color.is_default)
    looks = [str(styles[ink]) for ink in (Ink.TEXT, Ink.BRIGHT, Ink.DIM, Ink.WARN, Ink.ALARM)]
    assert len(set(looks)) == len(looks)
    assert all(styles[SELECTED + ink] != styles[ink] for ink in Ink)


@pytest.mark.parametrize(
    ("name", "sixteen", "environ", "look"),
    [
        ("auto", False, {}, "dark"),
        ("auto", True, {}, "dark-16"),
        ("auto", True, {"COLORFGBG": "0;15"}, "light-16"),
        ("auto", True, {"COLORFGBG": "15;default;0"}, "dark-16"),
        ("auto", False, {"NO_COLOR": "1"}, "mono"),
        ("auto", False, {"NO_COLOR": ""}, "dark"),
        ("light", True, {}, "light-16"),
        ("okabe-ito", True, {}, "dark-16"),
        ("light", False, {"NO_COLOR": "1"}, "light"),
        ("mono", True, {}, "mono"),
    ],
)
def test_the_look_follows_the_terminal(name: str, sixteen: bool, environ: dict[str, str], look: str):
    assert choose(name, sixteen=sixteen, environ=environ).name == look


def test_there_are_looks_for_all():
    assert set(THEMES) == {"auto", *LOOKS}
    assert all(LOOKS[look.sixteen].ansi for look in LOOKS.values())
