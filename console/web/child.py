"""The console behind one page: `python -P -m console.web.child PAGE`, started by the server only.

Read-only with any key: it asks for a viewer's, and its source refuses commands.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from console.connect.target import Target, find_target
from console.errors import NO_RUN, CommandError
from console.settings.file import Settings

if TYPE_CHECKING:
    from console.connect.source import Source
    from console.tui.app import ConsoleApp
    from driftline.rundir import RunDir


class Page(msgspec.Struct, frozen=True):
    """Content of a page: a run directory, a key file ("" for the run's own), a file of sentinel rules over the packaged
    ones ("" for those alone), and the operator's settings."""

    run: str
    settings: Settings = Settings()
    key: str = ""
    rules: str = ""

    def argument(self) -> str:
        """As the child's one argument."""
        return msgspec.json.encode(self).decode()


def main(arguments: list[str]) -> int:
    """Show the run until the page is closed or the operator leaves; the exit code of a console."""
    page = msgspec.json.decode(arguments[0], type=Page)
    try:
        found = find_target(page.run, key=page.key or None)
        if not found.live():
            raise CommandError(f"run {found.id} is not live", NO_RUN)
        return show(found, page)
    except CommandError as failure:
        print(f"driftline: {failure}", file=sys.stderr)
        return failure.exit_code


def show(run: Target, page: Page) -> int:
    """The console with the driver that the server has named, which does not use a terminal."""
    from console.connect.live_source import LiveSource
    from console.connect.source import SourceError

    try:
        source = LiveSource(run, operate=False)
    except SourceError as error:
        raise CommandError(str(error), NO_RUN) from error
    try:
        app = console(source, run.directory, page)
        app.driver_class = app.get_driver_class()
        app.run(mouse=False)
    finally:
        source.close()
    return app.return_code or 0


def console(source: Source, directory: RunDir | None, page: Page) -> ConsoleApp:
    """The app as the operator has configured it, but for what belongs to a terminal: bells, commands, a history."""
    from console.sentinels import load
    from console.sentinels.notify import Alerts
    from console.tui.app import ConsoleApp
    from console.tui.watch.guard import guards

    settings = page.settings
    return ConsoleApp(
        source,
        run=directory,
        marker=settings.marker,
        fps=settings.fps,
        theme=settings.theme,
        keys=settings.keys,
        smoothing=settings.smoothing,
        guards=guards(load(Path(page.rules) if page.rules else None), Alerts()),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
