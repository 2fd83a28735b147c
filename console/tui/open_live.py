"""The console on this terminal, over live runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from console.connect.deferred_source import DeferredSource
from console.connect.target import Target
from console.process import fast_start
from console.settings.file import Settings
from console.tui.app import ConsoleApp
from console.tui.options import app_options
from console.tui.watch.watched_run import Watch

if TYPE_CHECKING:
    from console.tui.watch.guard import Guards


def run_console(
    runs: Sequence[Target],
    operate: bool,
    settings: Settings,
    guards: Callable[[], Guards],
    reference: tuple[str, ...] = (),
) -> int:
    """Show live runs on this terminal, the first at first, until the operator leaves; returns the exit code.

    That is not 0 after a crash. `guards` gives what makes the sentinels of a run, and may raise GrammarError; it is
    asked, and the runs are connected to, once the first frame is on the terminal. `reference`: the runs that they are
    held against. Raises GrammarError when a run cannot be reached. The caller closes the targets.
    """
    sources = [DeferredSource(run, operate=operate) for run in runs]

    def opening(watches: Sequence[Watch]) -> None:
        for source in sources:
            source.open()
        guard = guards()
        for watch in watches:
            watch.guard = guard(watch.source.run)
        fast_start.settle()
        # Reading begins with a tick, and the next one comes 1 / fps later: let the first have something to draw.
        sources[0].wait(1.0 / settings.fps)

    (first, directory), *more = [(source, run.directory) for source, run in zip(sources, runs, strict=True)]
    app = ConsoleApp(
        first,
        run=directory,
        more=more,
        marker=settings.marker,
        fps=settings.fps,
        reference=reference,
        opening=opening,
        **app_options(settings),
    )
    try:
        app.run(mouse=settings.mouse)
    finally:
        for watch in app.watches:
            watch.close()
    if app.reading.failure is not None:
        raise app.reading.failure
    # A crash inside Textual is printed by it, and would otherwise end in 0.
    return app.return_code or 0
