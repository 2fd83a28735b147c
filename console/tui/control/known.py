"""The names that the command line may use at this moment, for completion and for checking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.tui.command.command import Known
from console.tui.paint.theme import THEMES
from driftline.catalog.fixes import BY_ID

if TYPE_CHECKING:
    from console.tui.host import Host


def known(app: Host) -> Known:
    """The names of this moment. Takes no lock, because a line may be painted while the app holds it."""
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
        themes=THEMES,
        step=step,
        switches=[mark.step + 1 for mark in list(app.model.marks) if mark.kind == "fix"],
    )
