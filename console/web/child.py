"""The console behind one page: `python -P -m console.web.child RUN [KEY]`, started by the server only.

Read-only whatever key there is: it asks for a viewer's, and its source refuses to act.
"""

from __future__ import annotations

import sys

from console.outcome import NO_RUN, Failure
from console.place import Place, place


def main(arguments: list[str]) -> int:
    """Show the run until the page is closed or the operator leaves; the exit code of a console."""
    run, marker, fps, *key = arguments
    try:
        found = place(run, key=key[0] if key else None)
        if not found.live():
            raise Failure(f"run {found.id} is not live", NO_RUN)
        return show(found, marker, float(fps))
    except Failure as failure:
        print(f"driftline: {failure}", file=sys.stderr)
        return failure.code


def show(run: Place, marker: str, fps: float) -> int:
    """The console with the driver that the server has named, which is none of a terminal."""
    from console.sentinels import load
    from console.sentinels.alert import Alerts
    from console.tui.app import ConsoleApp
    from console.tui.guard import guards
    from console.tui.live_source import LiveSource
    from console.tui.source import SourceError

    try:
        source = LiveSource(run, operate=False)
    except SourceError as error:
        raise Failure(str(error), NO_RUN) from error
    try:
        app = ConsoleApp(source, run=run.directory, marker=marker, fps=fps, guards=guards(load(), Alerts()))
        app.driver_class = app.get_driver_class()
        app.run(mouse=False)
    finally:
        source.close()
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
