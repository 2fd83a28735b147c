"""Which class shows which screen of the table; each is imported when it is first looked at."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from console.tui.bindings import Where
from console.tui.glyphs import Glyphs
from console.tui.screens.run_screen import RunScreen

_CLASSES: Final[dict[Where, tuple[str, str]]] = {
    "live": ("console.tui.screens.live", "LiveScreen"),
    "fixes": ("console.tui.screens.fixes", "FixesScreen"),
    "parity": ("console.tui.screens.parity", "ParityScreen"),
    "sync": ("console.tui.screens.sync", "SyncScreen"),
    "tokens": ("console.tui.screens.tokens", "TokensScreen"),
    "engines": ("console.tui.screens.engines", "EnginesScreen"),
    "events": ("console.tui.screens.events", "EventsScreen"),
}


def make(ident: Where, glyphs: Glyphs) -> RunScreen:
    """A new screen. Raises KeyError for one that is not in the table."""
    module, name = _CLASSES[ident]
    return cast("RunScreen", getattr(import_module(module), name)(glyphs))
