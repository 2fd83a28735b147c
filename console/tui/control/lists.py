"""The palette's entries and the watched runs as lists to choose from: what a choice does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.tui.command.command import Command
from console.tui.control.known import known
from console.tui.dialogs.palette import Entry, Palette, entries
from console.tui.dialogs.runs import RunRow, RunsScreen, run_rows

if TYPE_CHECKING:
    from console.settings.keys import Where
    from console.tui.host import Host


def list_entries(app: Host, where: Where) -> None:
    """Open the palette on the screen `where`; a command that needs words goes to the command line."""

    def chosen(entry: Entry | None) -> None:
        if entry is None:
            return
        if not isinstance(entry.what, Command):
            app.run_key(entry.what)
        elif entry.what.needs:
            app.action_command(f"{entry.what.name} ")
        else:
            entry.what.request(known(app), ()).perform(app)

    app.push_screen(Palette(app.glyphs, entries(app.keys, where), operator=app.source.operator), chosen)


def list_watches(app: Host) -> None:
    """Open the list of the watched runs."""

    def overlay(run: str) -> None:
        watch = next(watch for watch in app.watches if watch.source.run == run)
        app.overlay = None if watch in (app.overlay, app.showing) else watch
        app.refresh_view()

    def chosen(run: str | None) -> None:
        if run is not None and run != app.source.run:
            app.show_watch(next(watch for watch in app.watches if watch.source.run == run))

    def rows() -> list[RunRow]:
        return run_rows(app.watches, app.showing, app.overlay)

    app.push_screen(RunsScreen(app.glyphs, rows, overlay), chosen)
