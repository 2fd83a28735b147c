"""The door of `driftline serve`: how many connections may be open, and how long one may be silent.

Who has no token can open connections all the same, by the thousand: each has SILENT_SECONDS for a request with the
token, and only MOST_SILENT of them are open at a time, of which the oldest gives way to the next that comes. So there
is always a place for who sends its request at once. What has been admitted does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import BaseTransport, Protocol, Transport
from collections.abc import Callable
from typing import Final

SILENT_SECONDS: Final = 5.0
MOST_SILENT: Final = 128
"""Far below the 1,024 open files that a process may have where no other limit is set."""
_PAUSE_SECONDS: Final = 0.05


class Door:
    """Accepts connections on a listening socket until it is cancelled, and hands each to a protocol of `make`."""

    def __init__(self, bound: socket.socket, make: Callable[[], Protocol]) -> None:
        self._bound = bound
        self._make = make
        self._silent: dict[BaseTransport, asyncio.TimerHandle] = {}
        """Those that have not been admitted, the oldest first, and when their time is up."""

    @property
    def silent(self) -> int:
        """How many connections are open that have not been admitted."""
        return len(self._silent)

    def admit(self, transport: BaseTransport | None) -> None:
        """This connection has shown the token: it stays."""
        if transport is not None and (timer := self._silent.pop(transport, None)) is not None:
            timer.cancel()

    async def run(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._bound.setblocking(False)
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._bound)
                with contextlib.suppress(OSError):  # it has gone again already
                    transport, _ = await loop.connect_accepted_socket(self._make, accepted)
                    self._add(transport)
            except OSError:  # no more files: the oldest of the silent has to go
                self._close_oldest()
                await asyncio.sleep(_PAUSE_SECONDS)

    def _add(self, transport: Transport) -> None:
        for gone in [one for one in self._silent if one.is_closing()]:
            self.admit(gone)
        while len(self._silent) >= MOST_SILENT:
            self._close_oldest()
        loop = asyncio.get_running_loop()
        self._silent[transport] = loop.call_later(SILENT_SECONDS, self._close, transport)

    def _close_oldest(self) -> None:
        if oldest := next(iter(self._silent), None):
            self._close(oldest)

    def _close(self, transport: BaseTransport) -> None:
        self.admit(transport)  # it is forgotten
        assert isinstance(transport, Transport)
        transport.abort()
