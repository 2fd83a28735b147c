"""Taking in the runs that are watched: what has to be done before the first, and a reader's thread for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from textual.message import Message
from textual.worker import get_current_worker

from console.errors import CommandError
from console.tui.watch.watched_run import Watch

if TYPE_CHECKING:
    from console.tui.host import Host

Opening = Callable[[Sequence[Watch]], None]
"""Done with the watches before any of them is read, on a thread of its own. May raise CommandError."""


class Tick(Message):
    """The model may have news. A waiting tick stands for all later ones."""

    bubble = False

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Tick)


class Opened(Message):
    """The work before reading is done, or has failed."""

    bubble = False

    def __init__(self, failure: CommandError | None) -> None:
        super().__init__()
        self.failure = failure


class Reading:
    """Everything here is the app's thread, but what is said to be a worker's."""

    def __init__(self, app: Host, opening: Opening | None) -> None:
        self._app, self._opening = app, opening
        self.failure: CommandError | None = None
        """Why the app has ended, where that is neither the operator's wish nor a crash."""

    def start(self) -> None:
        """Begin at once, where nothing has to be done before."""
        if self._opening is None:
            self._begin()

    def painted(self) -> None:
        """The first frame is on the terminal, and may be so again: do now what has to be done before reading."""
        if self._opening is not None:
            opening, self._opening = partial(self._open, self._opening), None
            self._app.run_worker(opening, name="opening", group="opening", thread=True)

    def _open(self, opening: Opening) -> None:
        """A worker's: it connects."""
        failure: CommandError | None = None
        try:
            opening(self._app.watches)
        except CommandError as error:
            failure = error
        self._app.post_message(Opened(failure))

    def opened(self, failure: CommandError | None) -> None:
        """Read, or end the app."""
        self.failure = failure
        if failure is not None:
            self._app.exit(return_code=failure.exit_code)
        else:
            self._begin()

    def _begin(self) -> None:
        for watch in self._app.watches:
            self.read(watch)
        self._app.references.begin()

    def read(self, watch: Watch) -> None:
        """Take in one run until the app ends."""
        app = self._app

        def news() -> None:
            if watch is app.showing:  # the others are drawn with it, however many there are
                app.post_message(Tick())

        def take_in() -> None:
            worker = get_current_worker()
            watch.read(app.fps, news, lambda: worker.is_cancelled)

        app.run_worker(take_in, name="reader", group="reader", thread=True)
