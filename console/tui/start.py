"""The console on this terminal, over live runs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from console.config import Settings
from console.outcome import NO_RUN, Failure
from console.place import Place
from console.tui.app import ConsoleApp
from console.tui.guard import Guards
from console.tui.live_source import LiveSource
from console.tui.options import app_options
from console.tui.source import Source, SourceError
from driftline.rundir import RunDir


def run_console(
    runs: Sequence[Place],
    operate: bool,
    settings: Settings,
    guards: Guards | None = None,
    reference: tuple[str, ...] = (),
) -> int:
    """Show live runs on this terminal, the first at first, until the operator leaves; returns the exit code.

    That is not 0 after a crash. `guards` makes the sentinels of a run; `reference`: the runs that it is held against.
    Raises Failure when a run cannot be reached. The places stay the caller's to close.
    """
    with contextlib.ExitStack() as opened:
        sources: list[tuple[Source, RunDir | None]] = []
        for run in runs:
            try:
                source = LiveSource(run, operate=operate)
            except SourceError as error:
                raise Failure(str(error), NO_RUN) from error
            opened.callback(source.close)
            sources.append((source, run.directory))
        (first, directory), *more = sources
        app = ConsoleApp(
            first,
            run=directory,
            more=more,
            marker=settings.marker,
            fps=settings.fps,
            guards=guards,
            reference=reference,
            **app_options(settings),
        )
        for watch in app.watches:
            opened.callback(watch.close)
        app.run(mouse=settings.mouse)
    # A crash inside Textual is printed by it, and would otherwise end in 0.
    return app.return_code or 0
