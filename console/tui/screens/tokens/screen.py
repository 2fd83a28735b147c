"""The tokens screen: the worst token pairs of the newest steps, in their text, and the sequences that stand out."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np
from textual import work
from textual.app import ComposeResult
from textual.containers import Container
from textual.widget import Widget

from console.connect.source import Link
from console.store.filter_grammar import Filter
from console.store.model import RunModel
from console.store.tokens.filter import TOKENS
from console.store.tokens.ring import Token, TokenStore
from console.store.tokens.survey import By, Survey, survey
from console.tui.bindings import bindings
from console.tui.paint.glyphs import Glyphs
from console.tui.paint.units import cut_wide
from console.tui.screens.base.run_screen import BASE_CSS, Direction, RunScreen, StyleSheets
from console.tui.screens.tokens import view as views
from console.tui.screens.tokens.copy import copied
from console.tui.screens.tokens.engine_pairs import engine_pairs, pairs_label
from console.tui.screens.tokens.panes import ContextPane, Distribution, EnginePairsPane, OutlierTable, WorstList
from console.tui.terminal.clipboard import copy_text
from console.tui.watch.watched_run import Watch
from console.tui.widgets.filter_line import FilterLine

ALL_FROM: Final = (110, 34)
"""Columns and rows from which tokens and sequences are shown together."""
CHARTS_FROM: Final = 72
"""Columns from which there is room for the distribution beside something else."""
PAIRS_FROM: Final = 24
"""Rows from which there is room for engine against engine below the rest."""
PAIRS_MOST: Final = 6
ORDERS: Final[tuple[By, ...]] = ("mean", "max", "sum")
HINT: Final = "engine=engine-0 version>=12 position<3 step=812 |d|>0.1 text=foo"


class TokensScreen(RunScreen):
    """Tokens are asked for when this screen is first looked at."""

    ident = "tokens"
    CSS_PATH: ClassVar[StyleSheets] = [BASE_CSS, "screen.tcss"]
    BINDINGS = bindings("screens", "tokens")

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(glyphs)
        self.filter: Filter = ()
        self.typed = ""
        self.by: By = "mean"
        self.sequences_shown = False
        """Whether the sequences have the place of the tokens, where there is room for one of them."""
        self.chosen: int | None = None
        """Row of the token that the operator has chosen; None is the worst, whichever that is."""
        self.found: Survey | None = None
        self._still: TokenStore | None = None
        self._surveyed: tuple[object, ...] = ()

    def body(self) -> ComposeResult:
        with Container(id="upper"):
            yield WorstList(id="worst", glyphs=self.glyphs)
            yield Distribution(id="spread", glyphs=self.glyphs)
        with Container(id="middle"):
            yield ContextPane(id="context", glyphs=self.glyphs)
            yield Distribution(id="aside", glyphs=self.glyphs)
        with Container(id="lower"):
            yield OutlierTable(id="outliers", glyphs=self.glyphs)
        yield EnginePairsPane(id="pairs", glyphs=self.glyphs)
        yield FilterLine(TOKENS.complaint, HINT, glyphs=self.glyphs)

    # -- where things are

    @property
    def roomy(self) -> bool:
        """Whether tokens and sequences are shown together."""
        width, height = self.size
        return width >= ALL_FROM[0] and height >= ALL_FROM[1]

    def place_panes(self, width: int, height: int) -> None:
        line = self.query_one(FilterLine)
        line.display = line.is_open
        if self.enlarged is not None:
            self.enlarged.styles.width = "1fr"
            self.enlarged.styles.height = "1fr"
            for part in self.enlarged.ancestors:
                if isinstance(part, Container):
                    part.styles.height = "1fr"
            return
        pairs = self.query_one(EnginePairsPane)
        tall = min(len(pairs.pairs), PAIRS_MOST) + 2
        pairs.display = bool(pairs.pairs) and height >= PAIRS_FROM
        pairs.styles.height = tall
        rows = height - 2 - (1 if line.is_open else 0) - (tall if pairs.display else 0)
        both = self.roomy
        upper, middle, lower = (self.query_one(part) for part in ("#upper", "#middle", "#lower"))
        spread, aside = self.query_one("#spread"), self.query_one("#aside")
        if both:
            self.query_one("#body").move_child(lower, after=middle)
        else:
            self.query_one("#body").move_child(lower, before=middle)
        upper.display = both or not self.sequences_shown
        lower.display = both or self.sequences_shown
        # The distribution stands beside the list where that has room enough, else beside the context.
        spread.display = width >= ALL_FROM[0]
        aside.display = ALL_FROM[0] > width >= CHARTS_FROM
        aside.styles.width = width * 3 // 8
        spread.styles.width = max(width * 2 // 5, 40)
        upper.styles.height = rows * 2 // 5 if both else max(rows * 9 // 20, 6)
        lower.styles.height = rows * 3 // 10 if both else max(rows * 9 // 20, 6)
        middle.styles.height = "1fr"
        middle.styles.layout = "horizontal"

    # -- tokens are asked for when they are looked at

    @property
    def watched(self) -> Watch:
        return self.console_app.showing

    @property
    def store(self) -> TokenStore:
        """The tokens on show: as they come, or as they were when the view was frozen."""
        return self.watched.tokens if self._still is None else self._still

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self._ask(self.watched)

    @work(thread=True, group="tokens", exclusive=True)
    def _ask(self, watch: Watch) -> None:
        watch.ask_tokens()
        self.app.call_from_thread(self.console_app.refresh_view)

    def forget(self) -> None:
        self.chosen, self.found, self._still, self._surveyed = None, None, None, ()
        if self.is_current:
            self._ask(self.watched)

    # -- news

    def draw(self, model: RunModel, link: Link) -> None:  # noqa: ARG002  tokens are beside the model
        store, watch = self.store, self.watched
        self._draw_pairs(model)
        key = (id(store), store.revision, self.filter, self.by)
        if self.found is None or key != self._surveyed:
            self._surveyed, self.found = key, survey(store, self.filter, self.by)
        found = self.found
        token = self._token(store, found)
        standing = views.Standing(watch.tokens_asked, watch.tokens_refused, watch.source.tokens_behind, self.typed)
        why = views.nothing(standing, found)
        place = _place(found.worst, token.row if token is not None else None)
        worst, outliers = self.query_one(WorstList), self.query_one(OutlierTable)
        if worst.display and self.query_one("#upper").display:
            worst.show(store, found, place, why, self._label(found, place))
        if outliers.display and self.query_one("#lower").display:
            sequence = _place(found.outliers, token.sequence.number if token is not None else None)
            outliers.show(store, found, sequence, why, self.by)
        for spread in self.query(Distribution):
            if spread.display:
                spread.show(found)
        label = "not among the worst" if token is not None and place is None else ""
        self.query_one(ContextPane).show(store, token, label)

    def _draw_pairs(self, model: RunModel) -> None:
        pane, before = self.query_one(EnginePairsPane), len(self.query_one(EnginePairsPane).pairs)
        found = engine_pairs(model)
        pane.show(found, pairs_label(model, found))
        if len(found) != before:
            self.rearrange()

    def _token(self, store: TokenStore, found: Survey) -> Token | None:
        """The chosen token; the worst where none was chosen, or the chosen one is not kept any more."""
        if self.chosen is not None:
            token = store.token(self.chosen)
            if token is not None:
                return token
            self.chosen = None
        return store.token(int(found.worst[0])) if len(found.worst) else None

    def _label(self, found: Survey, place: int | None) -> str:
        parts = []
        if place is not None:
            parts.append(f"{place + 1}/{len(found.worst)}")
        if self.filter:
            parts.append(f"{found.matched:,} of {found.kept:,} match {cut_wide(self.typed, 30)}")
        elif found.kept:
            parts.append(f"newest {found.kept:,}")
        if found.stale:
            parts.append(f"{found.stale / found.matched:.0%} stale")
        return ", ".join(parts)

    def _look(self) -> None:
        """Draw the same tokens anew; also while frozen, because the view is the operator's."""
        app = self.console_app
        if self.ready:
            with app.lock, app.batch_update():
                self.draw(app.model, app.source.link())

    # -- the token that is chosen

    def choose(self, row: int | None) -> None:
        """Look at a token; None follows the worst."""
        self.chosen = row
        self._look()

    def _current(self) -> Token | None:
        with self.console_app.lock:
            return None if self.found is None else self._token(self.store, self.found)

    def action_worse(self, step: int) -> None:
        """To the next worst token that matches, or the one before."""
        token, found = self._current(), self.found
        if token is None or found is None or not len(found.worst):
            self.say("no token matches" if self.filter else "there are no tokens yet", "warn")
            return
        place = _place(found.worst, token.row)
        wanted = 0 if place is None else place + step
        if not 0 <= wanted < len(found.worst):
            end = "the worst" if step < 0 else f"the last of the {len(found.worst):,} worst; a filter shows others"
            self.say(f"this is {end}")
            return
        self.choose(int(found.worst[wanted]))

    def action_end(self, last: bool) -> None:
        """To the worst token, which is followed from then on, or to the last that is listed."""
        if self.found is not None and len(self.found.worst):
            self.choose(int(self.found.worst[-1]) if last else None)

    def moved(self, focused: Widget | None, direction: Direction) -> bool:
        step = {"up": -1, "left": -1, "down": 1, "right": 1}[direction]
        upright = direction in ("up", "down")
        if isinstance(focused, WorstList) and upright:
            self.action_worse(step)
            return True
        if isinstance(focused, OutlierTable) and upright:
            return self._sequence(step)
        if isinstance(focused, ContextPane) and not upright:
            return self._beside(step)
        return False

    def _beside(self, step: int) -> bool:
        """To the neighbour in the text."""
        token = self._current()
        if token is None:
            return False
        first, count = token.sequence.first, token.sequence.count
        if not first <= token.row + step < first + count:
            return False
        self.choose(token.row + step)
        return True

    def _sequence(self, step: int) -> bool:
        """To the worst token of the next sequence of the ranking."""
        token, found = self._current(), self.found
        if token is None or found is None or not len(found.outliers):
            return False
        place = _place(found.outliers, token.sequence.number)
        wanted = 0 if place is None else place + step
        if not 0 <= wanted < len(found.outliers):
            return False
        self._open(int(found.outliers[wanted]))
        return True

    def _open(self, number: int) -> None:
        with self.console_app.lock:
            sequence = self.store.sequence(number)
            row = None if sequence is None else views.worst_rows(self.store, sequence, 1)[0]
        if row is not None:
            self.choose(row)

    # -- view

    def action_enlarge(self) -> None:
        """Enter on a token or a sequence opens its text; on another pane it gives that the room."""
        focused = self.focused
        if self.enlarged is None and isinstance(focused, WorstList | OutlierTable):
            pane = self.query_one(ContextPane)
            self.set_focus(pane)
            self.enlarge(pane)
        else:
            super().action_enlarge()

    def action_outliers(self) -> None:
        """Sequences instead of tokens, or back; where both are shown, to the other pane."""
        pane: Widget
        if self.enlarged is not None:
            self.enlarge(None)
        if self.roomy:
            pane = self.query_one(WorstList if isinstance(self.focused, OutlierTable) else OutlierTable)
        else:
            self.sequences_shown = not self.sequences_shown
            self.rearrange()
            pane = self.query_one(OutlierTable if self.sequences_shown else WorstList)
        self.set_focus(pane)
        if isinstance(pane, OutlierTable) and self.found is not None and len(self.found.outliers):
            token = self._current()
            if token is None or _place(self.found.outliers, token.sequence.number) is None:
                self._open(int(self.found.outliers[0]))
        self.call_after_refresh(self._look)

    def action_order(self) -> None:
        self.by = ORDERS[(ORDERS.index(self.by) + 1) % len(ORDERS)]
        self._look()
        self.say(f"sequences by {views.order_word(self.by)}, largest first")

    def action_filter(self) -> None:
        self.query_one(FilterLine).open()
        self.rearrange()

    def on_filter_line_changed(self, message: FilterLine.Changed) -> None:
        self.typed, self.filter, self.chosen = message.text, TOKENS.parse(message.text), None
        self._look()

    def on_filter_line_closed(self) -> None:
        self.rearrange()
        self.set_focus(self.query_one(OutlierTable if self.sequences_shown and not self.roomy else WorstList))
        self.call_after_refresh(self._look)

    def action_freeze(self) -> None:
        self._still = None  # before the view is drawn live again
        super().action_freeze()
        if self.frozen:
            with self.console_app.lock:
                self._still = self.watched.tokens.frozen_copy()
            self._look()

    def action_back(self) -> None:
        """One level out: enlargement, then sequences, then the filter, then the choice."""
        if self.enlarged is not None:
            self.enlarge(None)
        elif self.sequences_shown and not self.roomy:
            self.action_outliers()
        elif self.filter:
            self.query_one(FilterLine).clear()
        elif self.chosen is not None:
            self.choose(None)

    def action_show_step(self) -> None:
        """Show the step whose batch the chosen token was in."""
        token = self._current()
        if token is None:
            self.say("there is no token yet", "warn")
        else:
            self.console_app.show_step(token.sequence.step)

    def action_copy(self) -> None:
        """The chosen token and its context, to the clipboard and to a file of the run."""
        token = self._current()
        if token is None:
            self.say("there is no token to copy yet", "warn")
            return
        app = self.console_app
        with app.lock:
            text = copied(self.store, token, app.source.run, self.glyphs)
        folder = app.run_dir.snapshots if app.run_dir is not None else None
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            name = f"token-step{token.sequence.step}-pos{token.position}.txt"
            self.say(copy_text(self.app, text, "token", folder, name))
        except OSError as error:
            self.say(f"copied to the clipboard only; {error.filename}: {error.strerror}", "error")


def _place(ranking: np.ndarray, value: int | None) -> int | None:
    """The place of a number in a ranking."""
    if value is None:
        return None
    places = np.flatnonzero(ranking == value)
    return int(places[0]) if len(places) else None
