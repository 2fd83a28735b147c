"""Going to a step, and the next of the watched runs to draw over the charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from console.tui.host import Host
    from console.tui.watch.watched_run import Watch


def goto(app: Host, step: int) -> None:
    """Bring a step into view on the screen on show, else on the live charts."""
    if not seek(app, step) and not app.current.goto(step):
        # Any screen of charts will do; live is the one that every run has.
        show_step(app, step)


def show_step(app: Host, step: int) -> None:
    """Show a step on the live charts: the crosshair on it, or the recording as of it."""
    app.action_screen("live")
    if not seek(app, step):
        app.call_after_refresh(lambda: app.live.goto(step))


def seek(app: Host, step: int) -> bool:
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


def next_overlay(app: Host) -> None:
    """Draw the next of the other watched runs over the charts, after the last one none."""
    others: list[Watch | None] = [watch for watch in app.watches if watch is not app.showing]
    if not others:
        app.say("no other run is watched; several are: driftline attach RUN RUN", "warn")
        return
    cycle = [None, *others]
    at = cycle.index(app.overlay) if app.overlay in cycle else 0
    app.show_overlay(cycle[(at + 1) % len(cycle)])
