"""What each action of the command line does to the console: one table. What acts on the run asks first, as the keys do.

What can be named is in `console.tui.control.known`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from console.settings.keys import TABS, Where
from console.tui.command import grammar
from console.tui.command.intents import (
    Action,
    Export,
    Goto,
    JudgeFrom,
    Mark,
    Open,
    Order,
    Overlay,
    SetFix,
    ShowScreen,
    SwitchRun,
    UseMarker,
    UseReference,
    UseTheme,
)
from console.tui.control import appearance
from console.tui.control.known import known
from console.tui.control.navigate import goto, show_overlay
from console.tui.dialogs.palette import Entry
from console.tui.dialogs.runs import RunRow, RunsScreen, run_rows
from console.tui.paint.theme import AUTO, choose
from console.tui.watch.judging import last_switch

if TYPE_CHECKING:
    from console.tui.host import Host
    from console.tui.watch.watched_run import Watch


def perform(app: Host, action: Action) -> None:
    """Do what an action asks for."""
    _DOES[type(action)](app, action)


def _watch(app: Host, run: str) -> Watch:
    return next(watch for watch in app.watches if watch.source.run == run)


def _fix(app: Host, action: SetFix) -> None:
    app.acting.ask_fix(action.fix, action.value)


def _order(app: Host, action: Order) -> None:
    paused = app.model.run is not None and app.model.run.status == "paused"
    if action.verb == "pause" and paused:
        app.say("generation is paused already; :resume", "warn")
    elif action.verb == "resume" and not paused:
        app.say("generation is not paused", "warn")
    else:
        acting = app.acting
        asks = {"sync": acting.ask_sync, "pause": acting.ask_pause, "resume": acting.ask_pause, "stop": acting.ask_stop}
        asks[action.verb]()


def _judge(app: Host, action: JudgeFrom) -> None:
    app.action_screen("parity")
    with app.lock:
        step = last_switch(app.model) if action.step == "switch" else action.step
    app.current.judge_from(step)


def _screen(app: Host, action: ShowScreen) -> None:
    where: Where = next(tab.id for tab in TABS if tab.id == action.screen)
    app.action_screen(where)


def _theme(app: Host, action: UseTheme) -> None:
    look = choose(action.theme, sixteen=app.sixteen, environ=os.environ)
    appearance.use_look(app, look)
    instead = action.theme not in (AUTO, look.name)
    app.say(f"theme {look.name}: {look.about}{', which this terminal can show' if instead else ''}")


def _marker(app: Host, action: UseMarker) -> None:
    appearance.use_marker(app, action.marker)


def _open(app: Host, action: Open) -> None:
    opens: dict[str, Callable[[], None]] = {
        "alarms": app.action_alarms,
        "help": app.action_help,
        "runs": app.action_runs,
        "quit": app.action_leave,
    }
    opens[action.what]()


_DOES: Final[dict[type[Any], Callable[[Host, Any], None]]] = {
    SetFix: _fix,
    Order: _order,
    Mark: lambda app, action: app.acting.mark(action.text),
    Export: lambda app, action: app.exports.table(action.table, action.format, action.steps),
    Goto: lambda app, action: goto(app, action.step),
    JudgeFrom: _judge,
    ShowScreen: _screen,
    SwitchRun: lambda app, action: app.show_watch(_watch(app, action.run)),
    Overlay: lambda app, action: show_overlay(app, _watch(app, action.run) if action.run else None),
    UseReference: lambda app, action: app.references.choose((action.run,) if action.run else ()),
    UseTheme: _theme,
    UseMarker: _marker,
    Open: _open,
}


def perform_entry(app: Host, entry: Entry | None) -> None:
    """Do what was chosen in the palette; a command that needs words goes to the command line."""
    if entry is None:
        return
    if isinstance(entry.what, grammar.Command):
        if entry.what.needs:
            app.action_command(f"{entry.what.name} ")
        else:
            perform(app, entry.what.parse(known(app), ()))
        return
    app.run_key(entry.what)


def list_watches(app: Host) -> None:
    """Open the list of the watched runs."""

    def overlay(run: str) -> None:
        watch = _watch(app, run)
        app.show_overlay(None if watch is app.overlay else watch)

    def chosen(run: str | None) -> None:
        if run is not None and run != app.source.run:
            app.show_watch(_watch(app, run))

    def rows() -> list[RunRow]:
        return run_rows(app.watches, app.showing, app.overlay)

    app.push_screen(RunsScreen(app.glyphs, rows, overlay), chosen)
