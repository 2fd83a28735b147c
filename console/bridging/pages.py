"""The pages of one HTTP server: asked for with a time limit and a limit of bytes, redirects not followed."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

DEFAULT_URL: Final = "http://127.0.0.1:8000"
"""Where `vllm serve` listens on this machine."""
SECONDS: Final = 5.0
"""For a whole answer, from the first byte of the request to the last one of it."""
MOST_BYTES: Final = 8 << 20
_CHUNK: Final = 1 << 16


class PageError(Exception):
    """A page that could not be had; the message is a clause that says why. `status` is that of HTTP, 0 for none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Pages:
    """Of the server at `url`: `http://HOST[:PORT]` or `https://...`. Raises ValueError for anything else.

    Every request has a connection of its own; any thread may ask.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"'{url[:200]}' is no address of a server: {error}") from error
        if parts.scheme not in ("http", "https") or not host:
            raise ValueError(f"'{url[:200]}' is no address of a server: http://HOST:PORT, as {DEFAULT_URL}")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError(
                f"'{parts.scheme}://{host}...': the address is a host and a port, with no name and no query"
            )
        self.secure, self.host = parts.scheme == "https", host
        self.port = port if port is not None else (443 if self.secure else 80)
        self._below = parts.path.rstrip("/")
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{parts.scheme}://{shown}:{self.port}{self._below}"

    def text(self, page: str, *, seconds: float = SECONDS) -> str:
        """What a GET of a page gives, as text. Raises PageError."""
        return self._ask("GET", page, seconds).decode("utf-8", "replace")

    def json(self, page: str, *, seconds: float = SECONDS) -> Any:
        """The same as JSON. Raises PageError, also for an answer that is none."""
        try:
            return json.loads(self._ask("GET", page, seconds))
        except (ValueError, RecursionError) as error:
            raise PageError(f"GET {page} gave no JSON") from error

    def post(self, page: str, *, seconds: float = SECONDS) -> Any:
        """Have a page do something; what it answers as JSON, None for an answer that is none. Raises PageError."""
        body = self._ask("POST", page, seconds)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return None  # some versions answer with nothing

    def _ask(self, method: str, page: str, seconds: float) -> bytes:
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        deadline = time.monotonic() + seconds
        connection = kind(self.host, self.port, timeout=seconds)
        try:
            connection.connect()
            with _cut_at(connection.sock, deadline) as cut:
                try:
                    connection.request(method, f"{self._below}{page}", headers={"Accept": "*/*"})
                    with connection.getresponse() as response:
                        body = _whole(response, f"{method} {page}")
                except (OSError, http.client.HTTPException, ValueError):
                    if cut.is_set():
                        raise PageError(f"{method} {page} was not answered within {seconds:g} s") from None
                    raise
                if cut.is_set():
                    raise PageError(f"{method} {page} was not answered within {seconds:g} s")
        except ssl.SSLError as error:
            raise PageError(f"no secure connection: {error.reason or error}") from error
        except TimeoutError as error:
            raise PageError(f"{method} {page} was not answered within {seconds:g} s") from error
        except OSError as error:
            raise PageError(f"no answer: {error.strerror or error}") from error
        except (http.client.HTTPException, ValueError) as error:
            raise PageError(f"{method} {page} was not answered by HTTP: {type(error).__name__}") from error
        finally:
            connection.close()
        if 300 <= response.status < 400:
            raise PageError(f"{method} {page} sends elsewhere, which is not followed", response.status)
        if response.status != 200:
            raise PageError(f"{method} {page} gave {response.status} {response.reason}", response.status)
        return body


def _whole(response: http.client.HTTPResponse, what: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := response.read1(_CHUNK):
        size += len(part)
        if size > MOST_BYTES:
            raise PageError(f"{what} gave more than {MOST_BYTES >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


@contextlib.contextmanager
def _cut_at(connected: socket.socket, deadline: float) -> Iterator[threading.Event]:
    """Cut a connection at a time of the monotonic clock: a limit for each read would let an answer drip for ever."""
    cut = threading.Event()

    def end() -> None:
        cut.set()
        with contextlib.suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(deadline - time.monotonic(), 0.0), end)
    timer.daemon = True
    timer.start()
    try:
        yield cut
    finally:
        timer.cancel()
