"""The line above and the line below every screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from console.trouble import Banner
from console.tui.bindings import KEYS, TABS, Key, Where
from console.tui.glyphs import Glyphs
from console.tui.present import Part, fit
from console.tui.theme import Ink
from console.tui.widgets.cells import Cells, CellWidget, Text
from driftline.frames import Level


class HeaderBar(CellWidget):
    """What the run is on the left; how fresh the screen is, and whether it may act, on the right."""

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.parts: list[Part] = []
        self.link: Text = ("", Ink.DIM)
        self.mode: Text = ("RO", Ink.DIM)

    def show(self, parts: list[Part], link: Text, mode: Text) -> None:
        """Take what to show; `mode` says who may act."""
        self.parts, self.link, self.mode = parts, link, mode
        self.repaint()

    def paint(self, cells: Cells) -> None:
        # A fixed width for the age: the line must not jitter four times a second.
        right: list[Text] = [(f"{self.link[0]:>9}", self.link[1]), ("  ", Ink.TEXT), self.mode, (" ", Ink.TEXT)]
        room = cells.width - sum(len(text) for text, _ in right)
        cells.line(0, 0, fit(self.parts, room), max(room, 0))
        cells.line(0, max(room, 0), right)


class BannerBar(CellWidget):
    """The one thing that is wrong, below the header and above all figures; takes no room while nothing is."""

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.banner: Banner | None = None

    def show(self, banner: Banner | None) -> None:
        """Take what to show."""
        self.banner = banner
        self.repaint()

    def paint(self, cells: Cells) -> None:
        banner = self.banner
        if banner is None:
            return
        # Never colour alone: the word is in capitals and the sign says how bad it is.
        sign = {"info": "", "warn": "! ", "error": "!! "}[banner.level]
        ink = _NOTICE[banner.level]
        used = cells.line(0, 1, [(f"{sign}{banner.word}", ink), (f"  {banner.text}", Ink.BRIGHT)])
        if banner.more and used + len(banner.more) + 3 < cells.width:
            cells.text(0, used + 3, banner.more, Ink.DIM)


_NOTICE: dict[Level, Ink] = {"info": Ink.BRIGHT, "warn": Ink.WARN, "error": Ink.ALARM}


_SHORT: Final = 3
"""Letters of a screen's name where there is no room for all of them."""


class FooterBar(CellWidget):
    """The screens and the keys of this one, or for a while the answer to the last key."""

    def __init__(self, *, id: str, glyphs: Glyphs, where: Where = "live") -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.where = where
        self.operator = False
        self.notice: tuple[str, Level] | None = None

    def show(self, *, operator: bool, notice: tuple[str, Level] | None) -> None:
        """Take what to show."""
        self.operator, self.notice = operator, notice
        self.repaint()

    def paint(self, cells: Cells) -> None:
        if self.notice is not None:
            text, level = self.notice
            cells.text(0, 1, text, _NOTICE[level])
            return
        table = getattr(self.app, "keys", KEYS)  # every app may show a footer; the console says on which keys
        keys = [key for key in table if key.footer]
        right = [
            part for key in keys if key.where == "everywhere" for part in self._entry(key.shown, key.footer, acts=False)
        ]
        right[-1:] = [(text.rstrip(), ink) for text, ink in right[-1:]]
        room = cells.width - sum(len(text) for text, _ in right) - 1
        # What acts on the run is what an operator looks for: it has its place before the screens have whole words.
        acting = [self._entry(key.shown, key.footer, acts=True) for key in keys if key.acts_on_run]
        used = self._tabs(cells, table, room, room - sum(len(text) for entry in acting for text, _ in entry))
        # What acts comes first, then what this screen alone has.
        own = [key for key in keys if key.where in ("screens", self.where)]
        own.sort(key=lambda key: (not key.acts_on_run, key.where == "screens"))
        for key in own:
            entry = self._entry(key.footer_key or key.shown, key.footer, acts=key.acts_on_run)
            length = sum(len(text) for text, _ in entry)
            if used + length <= room:
                used += cells.line(0, used, entry)
        cells.line(0, max(room, 0), right)

    def _tabs(self, cells: Cells, table: Sequence[Key], room: int, generous: int) -> int:
        """The screens in words where they end before `generous`, else shortened, in figures where even that is beyond
        `room`; the one on show keeps its word. Returns the next free column."""
        if len(TABS) < 2:
            return 1
        keys = [
            next((key.shown for key in table if (key.where, key.id) == ("everywhere", tab.id)), tab.key) for tab in TABS
        ]

        def parts(letters: int | None) -> list[Text]:
            found: list[Text] = []
            for key, tab in zip(keys, TABS, strict=True):
                here = tab.id == self.where
                found.append((key, Ink.ACCENT))
                found.append((f"{tab.word[: None if here else letters]} ", Ink.BRIGHT if here else Ink.DIM))
            return found

        def width(line: list[Text]) -> int:
            return sum(len(text) for text, _ in line)

        words, short = parts(None), parts(_SHORT)
        line = words if 2 + width(words) <= generous else short if 2 + width(short) <= room else parts(0)
        return 2 + cells.line(0, 1, line)

    def _entry(self, key: str, word: str, *, acts: bool) -> list[Text]:
        # Keys that act stand out only where they would do something.
        ink = (Ink.WARN if self.operator else Ink.DIM) if acts else Ink.ACCENT
        return [(key, ink), (f" {word}  ", Ink.DIM)]
