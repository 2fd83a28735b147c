"""A live run before and after the connection to its hub.

The client of a hub takes a tenth of a second to import, for which the first frame on the screen should not wait:
until `open` is done, this is a source from which nothing has been received.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from console.connect.source import Link, Source, SourceError
from console.connect.target import Target
from console.errors import NO_RUN, CommandError
from driftline.frames import Stamped, Verb

if TYPE_CHECKING:
    from console.connect.live_source import LiveSource

_NOT_CONNECTED = "the hub is not connected yet"


class DeferredSource:
    """`LiveSource` once `open` has made it."""

    def __init__(self, target: Target, *, operate: bool) -> None:
        self._target = target
        self._live: LiveSource | None = None
        self._lock = threading.Lock()
        """Held while the live source is made, so that one closed meanwhile leaves no connection behind."""
        self._attempted = threading.Event()
        self._closed = False
        self.run = target.id
        self.operator = operate

    def open(self) -> None:
        """Connect. Raises CommandError; does nothing where the source has been closed."""
        from console.connect.live_source import LiveSource

        with self._lock:
            try:
                if not self._closed:
                    self._live = LiveSource(self._target, operate=self.operator)
            except SourceError as error:
                raise CommandError(str(error), NO_RUN) from error
            finally:
                self._attempted.set()

    def wait(self, timeout: float) -> bool:
        return self._live is not None and self._live.wait(timeout)

    def drain(self, limit: int) -> list[Stamped]:
        return self._live.drain(limit) if self._live is not None else []

    def link(self) -> Link:
        return self._live.link() if self._live is not None else Link(heard=False, age=0.0)

    def tokens(self, on: bool) -> str:
        self._attempted.wait()  # a request for tokens before the connection waits for it
        return self._live.tokens(on) if self._live is not None else _NOT_CONNECTED

    def drain_tokens(self, limit: int) -> list[Stamped]:
        return self._live.drain_tokens(limit) if self._live is not None else []

    @property
    def tokens_behind(self) -> int:
        return self._live.tokens_behind if self._live is not None else 0

    @property
    def session(self) -> str:
        return self._live.session if self._live is not None else ""

    def command(self, verb: Verb, args: dict[str, str], generation: int) -> str:
        return self._connected().command(verb, args, generation)

    def take_lease(self) -> str:
        return self._connected().take_lease()

    def release_lease(self) -> None:
        self._connected().release_lease()

    def _connected(self) -> Source:
        if self._live is None:
            raise SourceError(_NOT_CONNECTED)
        return self._live

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._attempted.set()
            if self._live is not None:
                self._live.close()
