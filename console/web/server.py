"""textual-serve's server with access control, a limit of pages, and children that end with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

from console.process import die_with_parent
from console.web.auth import HEADERS, RequestGuard

PAGES: Final = 8
"""Consoles at the same time: each is a process."""
GRACE: Final = 3.0
"""Seconds that a console may take to end after it was asked to."""
LARGEST: Final = 500
"""Columns and rows that a browser may ask for."""

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
            await asyncio.wait_for(self.stop(), GRACE)
            await asyncio.wait_for(process.wait(), GRACE)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class ConsoleServer(Server):
    """Serves one command on a socket that is bound already."""

    def __init__(self, arguments: Sequence[str], title: str, bound: socket.socket, guard: RequestGuard) -> None:
        host, port = bound.getsockname()[:2]
        super().__init__("", host, port, title=title, templates_path=Path(__file__).parent)
        self._arguments = arguments
        self._bound = bound
        self._access = guard
        self._pages: dict[Page, web.WebSocketResponse] = {}

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
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE)
        await runner.setup()
        try:
            await web.SockSite(runner, self._bound).start()
            ready()
            return await ended
        finally:
            await runner.cleanup()

    async def _focus(self, _request: web.Request) -> web.FileResponse:
        return web.FileResponse(Path(__file__).with_name("focus.js"))

    async def on_startup(self, app: web.Application) -> None:
        """Print nothing: the verb prints the address."""

    async def on_shutdown(self, app: web.Application) -> None:  # noqa: ARG002  textual-serve's signature
        """Close the pages, which ends their consoles."""
        await asyncio.gather(*(websocket.close() for websocket in self._pages.values()), return_exceptions=True)

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        answer = self._access.check(
            request.path, request.host, request.headers.get("Origin"), request.query.get("token"), request.cookies
        )
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
        width, height = (
            min(max(to_int(request.query.get(name, ""), default), 1), LARGEST)
            for name, default in (("width", 80), ("height", 24))
        )
        websocket = web.WebSocketResponse(heartbeat=15)
        page = Page(self._arguments, websocket, self)
        self._pages[page] = websocket
        try:
            await websocket.prepare(request)
            await page.start(width, height)
            await self._process_messages(websocket, page)
        finally:
            del self._pages[page]
            await page.end()
        return websocket
