"""A live run before and after its hub is spoken to.

What a hub is spoken to with takes a tenth of a second to import, which an operator who waits for the first frame need
not wait for: until `open` is done this is a run of which nothing has been heard.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from console.connect.source import Link, Source, SourceError
from console.connect.target import Place
from console.errors import NO_RUN, CommandError
from driftline.frames import Stamped, Verb

if TYPE_CHECKING:
    from console.connect.live_source import LiveSource

_TOO_EARLY = "the hub is not connected yet"


class OpeningSource:
    """`LiveSource` once `open` has made it."""

    def __init__(self, place: Place, *, operate: bool) -> None:
        self._place = place
        self._live: LiveSource | None = None
        self._lock = threading.Lock()
        """Held while it is made, so that a console that is left meanwhile leaves nothing behind."""
        self._tried = threading.Event()
        self._closed = False
        self.run = place.id
        self.operator = operate

    def open(self) -> None:
        """Connect. Raises CommandError; does nothing where the source has been closed."""
        from console.connect.live_source import LiveSource

        with self._lock:
            try:
                if not self._closed:
                    self._live = LiveSource(self._place, operate=self.operator)
            except SourceError as error:
                raise CommandError(str(error), NO_RUN) from error
            finally:
                self._tried.set()

    def wait(self, timeout: float) -> bool:
        return self._live is not None and self._live.wait(timeout)

    def drain(self, limit: int) -> list[Stamped]:
        return self._live.drain(limit) if self._live is not None else []

    def link(self) -> Link:
        return self._live.link() if self._live is not None else Link(heard=False, age=0.0)

    def tokens(self, on: bool) -> str:
        self._tried.wait()  # whoever was quick with the key for tokens gets them, once there is whom to ask
        return self._live.tokens(on) if self._live is not None else _TOO_EARLY

    def drain_tokens(self, limit: int) -> list[Stamped]:
        return self._live.drain_tokens(limit) if self._live is not None else []

    @property
    def tokens_behind(self) -> int:
        return self._live.tokens_behind if self._live is not None else 0

    @property
    def session(self) -> str:
        return self._live.session if self._live is not None else ""

    def command(self, verb: Verb, args: dict[str, str], generation: int) -> str:
        return self._open().command(verb, args, generation)

    def take_lease(self) -> str:
        return self._open().take_lease()

    def release_lease(self) -> None:
        self._open().release_lease()

    def _open(self) -> Source:
        if self._live is None:
            raise SourceError(_TOO_EARLY)
        return self._live

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._tried.set()
            if self._live is not None:
                self._live.close()
