"""What each action of the command line does to the console: one table. What acts on the run asks first, as the keys do.

`known` is the other direction: what there is to name, for completion and for checking.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from console.cli.arguments import TABLES
from console.tui.bindings import TABS, Where
from console.tui.command import grammar
from console.tui.command.grammar import Known
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
from console.tui.dialogs.palette import Entry
from console.tui.dialogs.runs import RunRow, RunsScreen, run_rows
from console.tui.paint.glyphs import GLYPHS
from console.tui.paint.theme import AUTO, THEMES, choose
from console.tui.watch.judging import last_switch
from driftline.catalog.fixes import BY_ID

if TYPE_CHECKING:
    from console.tui.app import ConsoleApp
    from console.tui.watch.watched_run import Watch


def known(app: ConsoleApp) -> Known:
    """What can be named at this moment. Takes no lock, because a line may be painted while the app holds it."""
    # One call that copies: the reader may be putting a fix in.
    states = [state for state in list(app.model.fixes.values()) if state.fix in BY_ID]
    position = app.showing.position()
    timeline = position.timeline if position is not None else None
    # Of a recording any step can be gone to, not only what has been played.
    step = timeline.last_step if timeline is not None else app.model.step
    return Known(
        fixes={state.fix: BY_ID[state.fix].values for state in states},
        wanted={state.fix: state.requested for state in states},
        runs=[watch.source.run for watch in app.watches],
        shown=app.source.run,
        screens=[tab.id for tab in TABS],
        themes=THEMES,
        markers=list(GLYPHS),
        tables=TABLES,
        step=step,
        switches=[mark.step + 1 for mark in list(app.model.marks) if mark.kind == "fix"],
    )


def perform(app: ConsoleApp, action: Action) -> None:
    """Do what an action asks for."""
    _DOES[type(action)](app, action)


def _watch(app: ConsoleApp, run: str) -> Watch:
    return next(watch for watch in app.watches if watch.source.run == run)


def _fix(app: ConsoleApp, action: SetFix) -> None:
    app.acting.ask_fix(action.fix, action.value)


def _order(app: ConsoleApp, action: Order) -> None:
    paused = app.model.run is not None and app.model.run.status == "paused"
    if action.verb == "pause" and paused:
        app.say("generation is paused already; :resume", "warn")
    elif action.verb == "resume" and not paused:
        app.say("generation is not paused", "warn")
    else:
        acting = app.acting
        asks = {"sync": acting.ask_sync, "pause": acting.ask_pause, "resume": acting.ask_pause, "stop": acting.ask_stop}
        asks[action.verb]()


def _goto(app: ConsoleApp, action: Goto) -> None:
    if not seek(app, action.step) and not app.current.goto(action.step):
        # Any screen of charts will do; live is the one that every run has.
        show_step(app, action.step)


def show_step(app: ConsoleApp, step: int) -> None:
    """Show a step on the live charts: the crosshair on it, or the recording as of it."""
    app.action_screen("live")
    if not seek(app, step):
        app.call_after_refresh(lambda: app.live.goto(step))


def seek(app: ConsoleApp, step: int) -> bool:
    """Take a recording to a step, whatever screen is on show; False for a live run."""
    if not app.showing.go(step):
        return False
    live = app.live
    # The step will be the newest there is: a window or a crosshair elsewhere would hide it.
    if live.view.cursor is not None:
        live.action_crosshair()
    if live.view.x.mode == "fixed":
        live.action_show_all()
    app.say(f"the recording at step {step}")
    return True


def _judge(app: ConsoleApp, action: JudgeFrom) -> None:
    from console.tui.screens.parity.screen import ParityScreen

    app.action_screen("parity")
    with app.lock:
        step = last_switch(app.model) if action.step == "switch" else action.step
    screen = app.current
    assert isinstance(screen, ParityScreen), "it was asked for"
    screen.judge_from(step)


def _screen(app: ConsoleApp, action: ShowScreen) -> None:
    where: Where = next(tab.id for tab in TABS if tab.id == action.screen)
    app.action_screen(where)


def _theme(app: ConsoleApp, action: UseTheme) -> None:
    look = choose(action.theme, sixteen=app.sixteen, environ=os.environ)
    appearance.use_look(app, look)
    instead = action.theme not in (AUTO, look.name)
    app.say(f"theme {look.name}: {look.about}{', which this terminal can show' if instead else ''}")


def _marker(app: ConsoleApp, action: UseMarker) -> None:
    appearance.use_marker(app, action.marker)


def _open(app: ConsoleApp, action: Open) -> None:
    opens: dict[str, Callable[[], None]] = {
        "alarms": app.action_alarms,
        "help": app.action_help,
        "runs": app.action_runs,
        "quit": app.action_leave,
    }
    opens[action.what]()


_DOES: Final[dict[type[Any], Callable[[ConsoleApp, Any], None]]] = {
    SetFix: _fix,
    Order: _order,
    Mark: lambda app, action: app.acting.mark(action.text),
    Export: lambda app, action: app.exports.table(action.table, action.format, action.steps),
    Goto: _goto,
    JudgeFrom: _judge,
    ShowScreen: _screen,
    SwitchRun: lambda app, action: app.show_watch(_watch(app, action.run)),
    Overlay: lambda app, action: _overlay(app, _watch(app, action.run) if action.run else None),
    UseReference: lambda app, action: app.references.choose((action.run,) if action.run else ()),
    UseTheme: _theme,
    UseMarker: _marker,
    Open: _open,
}


def perform_entry(app: ConsoleApp, entry: Entry | None) -> None:
    """Do what was chosen in the palette; a command that needs words goes to the command line."""
    if entry is None:
        return
    if isinstance(entry.what, grammar.Command):
        if entry.what.needs:
            app.action_command(f"{entry.what.name} ")
        else:
            perform(app, entry.what.parse(known(app), ()))
        return
    namespace = app if entry.what.where == "everywhere" else app.current
    app.call_next(app.run_action, entry.what.action, namespace)


def list_watches(app: ConsoleApp) -> None:
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


def next_overlay(app: ConsoleApp) -> None:
    """Draw the next of the other watched runs over the charts, after the last one none."""
    others: list[Watch | None] = [watch for watch in app.watches if watch is not app.showing]
    if not others:
        app.say("no other run is watched; several are: driftline attach RUN RUN", "warn")
        return
    cycle = [None, *others]
    at = cycle.index(app.overlay) if app.overlay in cycle else 0
    _overlay(app, cycle[(at + 1) % len(cycle)])


def _overlay(app: ConsoleApp, watch: Watch | None) -> None:
    app.show_overlay(watch)
    app.say(f"over the charts: {watch.source.run}" if watch is not None else "no other run over the charts")
