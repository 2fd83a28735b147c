"""The class of each screen of the table; each is imported when it is first looked at."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from console.settings.keys import Where
from console.tui.paint.glyphs import Glyphs
from console.tui.screens.base.run_screen import RunScreen

_CLASSES: Final[dict[Where, tuple[str, str]]] = {
    "live": ("console.tui.screens.live.screen", "LiveScreen"),
    "fixes": ("console.tui.screens.fixes.screen", "FixesScreen"),
    "parity": ("console.tui.screens.parity.screen", "ParityScreen"),
    "sync": ("console.tui.screens.sync.screen", "SyncScreen"),
    "tokens": ("console.tui.screens.tokens.screen", "TokensScreen"),
    "engines": ("console.tui.screens.engines.screen", "EnginesScreen"),
    "events": ("console.tui.screens.events.screen", "EventsScreen"),
}


def make(ident: Where, glyphs: Glyphs) -> RunScreen:
    """A new screen. Raises KeyError for one that is not in the table."""
    module, name = _CLASSES[ident]
    return cast("RunScreen", getattr(import_module(module), name)(glyphs))
