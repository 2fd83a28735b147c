"""textual-serve's server with access control, a limit of pages, and children that end with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from aiohttp import WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

from console.process import die_with_parent
from console.web import messages
from console.web.auth import HEADERS, RequestGuard
from console.web.door import Door
from driftline.text import sanitize

PAGES: Final = 8
"""Consoles at the same time: each is a process."""
GRACE: Final = 1.0
"""Seconds that the consoles may take to end after they were asked to, all at once; then they are killed."""
_KEPT_ALIVE: Final = 30.0
"""Seconds that an idle connection of a page's own stays open."""
_BAD_MESSAGE: Final = 1008
"""Code with which a WebSocket is closed that sends what is not a page's."""

_USUAL: Final = (("width", 80), ("height", 24))
_REFUSALS: Final = {
    "no token": "open the address that driftline serve has printed: it contains the token",
    "other host": "this host name is not one of driftline serve",
    "other origin": "this page may not talk to driftline serve",
}


class Page(AppService):
    """One console process behind one open page; started without a shell, ended with this server however that ends."""

    def __init__(self, arguments: Sequence[str], websocket: web.WebSocketResponse, server: ConsoleServer) -> None:
        super().__init__(
            "",
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=websocket.close,  # type: ignore[arg-type]  # it also says whether it was open
            download_manager=server.download_manager,
        )
        self._arguments = arguments

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        tied = [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), str(int(signal.SIGTERM))]
        self._process = process = await asyncio.create_subprocess_exec(
            *tied,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._build_environment(width, height),
            start_new_session=True,
        )
        self._stdin = process.stdin
        return process

    async def end(self) -> None:
        """Ask the console to end, and kill it after GRACE seconds."""
        process = self._process
        if process is None:
            return
        try:
            async with asyncio.timeout(GRACE):
                await self.stop()
                await process.wait()
        except TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End the console at once."""
        if self._process is not None and self._process.returncode is None:
            # Not by the process's own `kill`: it looks first whether the process has ended, and takes its exit code
            # away from the loop's thread that waits for it, which then says on stderr that it knows no such process.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)


class ConsoleServer(Server):
    """Serves one command on a socket that is bound already."""

    def __init__(self, arguments: Sequence[str], title: str, bound: socket.socket, guard: RequestGuard) -> None:
        host, port = bound.getsockname()[:2]
        super().__init__("", host, port, title=title, templates_path=Path(__file__).parent)
        self._arguments = arguments
        self._bound = bound
        self._access = guard
        self._pages: dict[Page, web.WebSocketResponse] = {}
        self._door: Door | None = None

    @property
    def address(self) -> str:
        """URL to open in a browser, with the token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/?token={self._access.token}"

    def run(self, ready: Callable[[], None]) -> int:
        """Serve until SIGINT or SIGTERM; `ready` is called once pages can be opened. Returns the exit code."""
        return asyncio.run(self._run(ready))

    async def _run(self, ready: Callable[[], None]) -> int:
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def end(number: int) -> None:
            if not ended.done():
                ended.set_result(128 + number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, end, int(number))
        app = await self._make_app()
        app.router.add_get("/focus.js", self._focus)
        app.middlewares.append(self._guard)
        asyncio.get_running_loop().set_exception_handler(_note)
        runner = web.AppRunner(
            app, access_log=None, logger=_LOG, shutdown_timeout=GRACE / 2, keepalive_timeout=_KEPT_ALIVE
        )
        await runner.setup()
        assert runner.server is not None
        self._door = Door(self._bound, runner.server)
        accepting = asyncio.create_task(self._door.run())
        try:
            ready()
            return await ended
        finally:
            accepting.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(runner.cleanup(), GRACE)
            for page in self._pages:
                page.kill()

    async def _focus(self, _request: web.Request) -> web.FileResponse:
        return web.FileResponse(Path(__file__).with_name("focus.js"))

    async def on_startup(self, app: web.Application) -> None:
        """Print nothing: the verb prints the address."""

    async def on_shutdown(self, app: web.Application) -> None:  # noqa: ARG002  textual-serve's signature
        """Close the pages, which ends their consoles."""
        closing = asyncio.gather(*(websocket.close() for websocket in self._pages.values()), return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # a page that does not answer
            await asyncio.wait_for(closing, GRACE / 2)

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        answer = self._access.check(
            request.path, request.host, request.headers.get("Origin"), request.query.get("token"), request.cookies
        )
        if answer in ("enter", "give cookie") and self._door is not None:
            self._door.admit(request.transport)
        if answer == "give cookie":
            found = web.HTTPSeeOther("/", headers=HEADERS)
            found.set_cookie(self._access.cookie, self._access.token, httponly=True, samesite="Strict")
            return found
        if answer != "enter":
            return web.Response(status=403, text=_REFUSALS[answer] + "\n", headers=HEADERS)
        # The page connects to the host name that it was opened with.
        self.public_url = f"http://{request.host}"
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """One page: a console as long as it is open."""
        if len(self._pages) >= PAGES:
            raise web.HTTPServiceUnavailable(text=f"{PAGES} pages are open already\n")
        wanted = messages.size(*(to_int(request.query.get(name, ""), one) for name, one in _USUAL))
        websocket = web.WebSocketResponse(heartbeat=15, max_msg_size=messages.MOST_BYTES)
        page = Page(self._arguments, websocket, self)
        self._pages[page] = websocket
        try:
            await websocket.prepare(request)
            await page.start(wanted.width, wanted.height)
            await self._process_messages(websocket, page)
        finally:
            del self._pages[page]
            await page.end()
        return websocket

    async def _process_messages(self, websocket: web.WebSocketResponse, app_service: AppService) -> None:
        """Pass on what the page sends; one that sends anything else is closed."""
        async for received in websocket:
            if received.type is not WSMsgType.TEXT:
                continue
            try:
                message = messages.read(received.data)
            except ValueError:
                await websocket.close(code=_BAD_MESSAGE, message=b"not a message of this page")
                return
            match message:
                case messages.Keys():
                    await app_service.send_bytes(message.text.encode("utf-8", "replace"))
                case messages.Size():
                    await app_service.set_terminal_size(message.width, message.height)
                case messages.Ping():
                    await websocket.send_json(["pong", message.data])
                case messages.Focus():
                    await (app_service.focus() if message.on else app_service.blur())


class _OneLine(logging.Handler):
    """Errors of the server's own as one line on stderr; what a connection does is none of them."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError | OSError):
            return
        text = f"{record.getMessage()}{f': {type(error).__name__}: {error}' if error is not None else ''}"
        print(f"driftline: {sanitize(' '.join(text.split()))}", file=sys.stderr, flush=True)


_LOG: Final = logging.Logger("driftline.serve", logging.WARNING)
_LOG.addHandler(_OneLine())


def _note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What went wrong outside of any request."""
    error = context.get("exception")
    _LOG.error(str(context.get("message", "")), exc_info=error if error is not None else None)
