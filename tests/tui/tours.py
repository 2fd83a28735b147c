"""Walks through a screen that see all of it, for tests that want every screen looked at."""

from __future__ import annotations

from textual.pilot import Pilot

from console.tui.app import ConsoleApp
from tests.tui.conftest import screen_text

TOKENS_KEYS = ("o", "j", "o", "n", "enter", "right", "escape", "G", "g", "Y", "space", "N", "space")


async def tokens_tour(pilot: Pilot[None]) -> list[str]:
    """Everything that the tokens screen shows of the tokens that were fed so far; ends on the live screen."""
    app = pilot.app
    assert isinstance(app, ConsoleApp)
    seen = []
    await pilot.press("2")
    for _ in range(2000):
        if app.showing.tokens_asked and app.showing.tokens.head == app.showing.model.head:
            break
        if app.showing.tokens_asked and not getattr(app.source, "_token_queue", ()):
            break  # the newest frame was not one of tokens
        await pilot.pause(0.005)
    for key in ("", *TOKENS_KEYS):
        if key:
            await pilot.press(key)
        await pilot.pause()
        app.refresh_view()
        await pilot.pause()
        seen.append(screen_text(pilot))
    await pilot.press("1")
    return seen
