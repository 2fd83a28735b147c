"""The line above and the line below every screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from console.settings.keys import KEYS, TABS, Key, Where
from console.status.link_health import Banner
from console.tui.paint.cells import Cells, Text
from console.tui.paint.clean_text import clean
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.theme import Ink
from console.tui.paint.units import cut
from console.tui.present.header import Part, fit
from console.tui.widgets.cell_widget import CellWidget
from driftline.frames import Level

_SAYING: Final = 28
"""Cells that news has beside what the run is at least, if it is that long: an alarm's rule and step."""
_FIRST: Final = 1
"""Rank of the parts that stay beside news: which run it is, how it is, and where."""


class HeaderBar(CellWidget):
    """The run on the left; the age of the figures and whether this console may act on the right.

    An alarm that is new takes the place of the run's figures for a while.
    """

    def __init__(self, *, id: str, glyphs: Glyphs) -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.parts: list[Part] = []
        self.link: Text = ("", Ink.DIM)
        self.mode: Text = ("RO", Ink.DIM)
        self.news: tuple[str, Level] | None = None

    def show(self, parts: list[Part], link: Text, mode: Text, news: tuple[str, Level] | None = None) -> None:
        """Take what to show; `mode` says who may act, `news` is an alarm that has just been raised."""
        self.parts, self.link, self.mode, self.news = parts, link, mode, news
        self.repaint()

    def paint(self, cells: Cells) -> None:
        # A fixed width for the age: the line must not jitter four times a second.
        right: list[Text] = [(f"{self.link[0]:>9}", self.link[1]), ("  ", Ink.TEXT), self.mode, (" ", Ink.TEXT)]
        room = max(cells.width - sum(len(text) for text, _ in right), 0)
        if self.news is None:
            cells.line(0, 0, fit(self.parts, room), room)
        else:
            self._news(cells, room, *self.news)
        cells.line(0, room, right)

    def _news(self, cells: Cells, room: int, words: str, level: Level) -> None:
        """Run and place, then the news: cut where there is no room for all of it."""
        text = clean(words)
        kept = [part for part in self.parts if part[0] <= _FIRST]
        used = cells.line(0, 0, fit(kept, max(room - min(len(text) + 1, _SAYING), 0)))
        left = room - used - 2  # a gap before the state of the feed
        cells.text(0, used + 1, cut(text, left), _NOTICE[level])


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
        ink = _NOTICE[banner.level]
        used = cells.line(0, 1, [(f"{_SIGN[banner.level]}{banner.word}", ink), (f"  {banner.text}", Ink.BRIGHT)])
        if banner.more and used + len(banner.more) + 3 < cells.width:
            cells.text(0, used + 3, banner.more, Ink.DIM)


_NOTICE: Final[dict[Level, Ink]] = {"info": Ink.BRIGHT, "warn": Ink.WARN, "error": Ink.ALARM}
_SIGN: Final[dict[Level, str]] = {"info": "", "warn": "! ", "error": "!! "}


_ACTING: Final = frozenset({"live", "sync", "fixes"})
"""The screens on which an operator acts."""
_SHORT: Final = 3
"""Letters of a screen's name where there is no room for all of them."""


class FooterBar(CellWidget):
    """The screens and the keys of this one, or for a while the answer to the last key."""

    def __init__(self, *, id: str, glyphs: Glyphs, where: Where = "live") -> None:
        super().__init__(id=id, glyphs=glyphs)
        self.where = where
        self.can_act = self.replay = False
        self.notice: tuple[str, Level] | None = None

    def show(self, *, can_act: bool, replay: bool, notice: tuple[str, Level] | None) -> None:
        """Take what to show: whether the keys that act on the run would do something, and whether it is a recording."""
        self.can_act, self.replay, self.notice = can_act, replay, notice
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
        shown = [(key, self._entry(*self._words(key), acts=key.acts_on_run)) for key in self._order(keys)]
        # What an operator looks for has its place before the screens have whole words.
        wanted = sum(len(text) for key, entry in shown if self._leads(key) for text, _ in entry)
        used = self._tabs(cells, table, room, room - wanted, strict=self.replay)
        for _, entry in shown:
            if used + sum(len(text) for text, _ in entry) <= room:
                used += cells.line(0, used, entry)
        cells.line(0, max(room, 0), right)

    def _order(self, keys: Sequence[Key]) -> list[Key]:
        """The keys of this screen: those that lead, what it alone has, what every screen has."""
        own = [key for key in keys if key.where in ("screens", self.where, *(("replay",) if self.replay else ()))]
        own = [key for key in own if not (key.acts_on_run and self.replay)]
        return sorted(own, key=lambda key: 0 if self._leads(key) else 2 if key.where == "screens" else 1)

    def _leads(self, key: Key) -> bool:
        """Whether a key comes first: those that play a recording, those that act on the run where one does, and where
        one only looks this screen's own."""
        if self.replay:
            return key.where == "replay" or bool(key.played)
        return key.acts_on_run if self.where in _ACTING else key.where == self.where

    def _words(self, key: Key) -> tuple[str, str]:
        return key.footer_key or key.shown, key.played if self.replay and key.played else key.footer

    def _tabs(self, cells: Cells, table: Sequence[Key], room: int, generous: int, *, strict: bool) -> int:
        """The screens in words where they end before `generous`, else shortened, in figures where even that is beyond
        `room` (or `generous`, where `strict`); the one on show keeps its word. Returns the next free column."""
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
        line = short if 2 + width(short) <= (generous if strict else room) else parts(0)
        line = words if 2 + width(words) <= generous else line
        return 2 + cells.line(0, 1, line)

    def _entry(self, key: str, word: str, *, acts: bool) -> list[Text]:
        # Keys that act stand out only where they would do something.
        ink = (Ink.WARN if self.can_act else Ink.DIM) if acts else Ink.ACCENT
        return [(key, ink), (f" {word}  ", Ink.DIM)]
