"""The look of the console, changed while it runs: its colours, and the characters of charts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from textual.app import App

from console.tui.paint.glyphs import GLYPHS
from console.tui.paint.theme import AUTO, LOOKS, Look, choose, theme
from console.tui.terminal.textual_patches import keep_own_colours

if TYPE_CHECKING:
    from console.tui.host import Host


def prepare(app: App[None], look: Look) -> None:
    """Make all looks known to Textual and begin with one, before the app runs."""
    keep_own_colours(app)
    for look in LOOKS.values():
        app.register_theme(theme(look))
    # Without the watcher: a change of theme has every style sheet parsed again and all laid out once more.
    app.set_reactive(App.theme, look.theme)


def use_look(app: Host, look: Look) -> None:
    """Show everything in another look, at once."""
    app.look = look
    app.theme = look.theme
    _repaint(app)


def use_theme(app: Host, name: str) -> None:
    """Show everything in the look of a theme, as far as this terminal can, and say which that is."""
    look = choose(name, sixteen=app.sixteen, environ=os.environ)
    use_look(app, look)
    instead = name not in (AUTO, look.name)
    app.say(f"theme {look.name}: {look.about}{', which this terminal can show' if instead else ''}")


def use_marker(app: Host, name: str) -> None:
    """Draw everything with other characters, at once. Raises KeyError."""
    app.glyphs = GLYPHS[name]
    for screen in app.run_screens:
        screen.use_glyphs(app.glyphs)
    _repaint(app)


def _repaint(app: Host) -> None:
    # What a chart derives from its series is made while drawing, and the reader must not rewrite it meanwhile.
    with app.drawing(), app.batch_update():
        for screen in app.run_screens:
            screen.repaint()
    app.refresh_view()
